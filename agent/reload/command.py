"""Runs one command of a definition: no shell, no secrets, a time limit, and nothing left running that was cut short."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

from agent.clock import Clock, Deadline, poll
from agent.data import dataclass
from agent.errors import CommandFailed
from agent.text import clean, clean_lines, has_credentials, is_secret_name, shown_command

GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL."""
POLL_SECONDS = 0.02
KEPT_BYTES = 8192
KEPT_LINES = 20
LONGEST_LINE = 400
LONGEST_REASON = 200
"""Of the output, its end: enough to see why, and short enough for an error."""

_CHUNK = 1 << 16
_CHUNKS_AT_ONCE = 16


class NotStarted(Exception):
    """A program could not be started; says why."""


@dataclass(frozen=True)
class Finished:
    """How a command ended.

    ``status``: its exit status, the negative number of the signal that ended it, or None when its time was over.
    ``output``: the last lines of what it printed, to standard output and standard error.
    """

    status: int | None
    seconds: float
    output: str


@dataclass(frozen=True)
class Command:
    """A command of the definition, and what its failure is called.

    ``what`` and ``limit_key`` are for messages: what it is, and where in the definition its limit stands.
    """

    what: str
    argv: Sequence[str]
    timeout: float
    limit_key: str
    failure: type[CommandFailed] = CommandFailed


def carry_out(
    command: Command,
    environ: Mapping[str, str],
    clock: Clock,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Finished:
    """As `run`, and it must succeed.

    :raises CommandFailed: or what else ``command.failure`` is: it could not be started, ended with another status
        than 0, or took too long.
    """
    name = f"{command.what} ({shown_command(command.argv)})"
    try:
        finished = run(command.argv, environ, command.timeout, clock, waiting)
    except NotStarted as error:
        raise command.failure(
            f"{name} cannot be started: {error}. Write the program's full path, and let svcagent run it"
        ) from error
    if finished.status == 0:
        return finished
    if finished.status is None:
        how = (
            f"had not ended after {command.timeout:g} s and was stopped; if it needs longer, raise {command.limit_key}"
        )
    elif finished.status < 0:
        how = f"was ended by signal {-finished.status}"
    else:
        how = f"failed with exit status {finished.status}"
    if not finished.output:
        how = f"{how} and printed nothing"
    raise command.failure(f"{name} {how}", finished.output)


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without credentials, and without the variables that name files of them.

    A command has no use for svcagent's own access to Consul, Docker, DNS and clouds; what it logs is read by others.
    """
    return {name: value for name, value in environ.items() if not is_secret_name(name) and not has_credentials(value)}


def run(
    argv: Sequence[str],
    environ: Mapping[str, str],
    timeout: float,
    clock: Clock,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Finished:
    """Run it in a session of its own, in ``/``, with nothing to read, and wait for it.

    It has ended when its first process has; what that left behind goes on, but its output is read no longer. At the
    end of ``timeout`` seconds, and when the wait is interrupted, the whole process group gets SIGTERM, and after
    `GRACE_SECONDS` SIGKILL.

    ``waiting`` is entered for the wait; what it raises (`Interrupted`) passes through.

    :raises NotStarted: the program could not be started.
    """
    began = clock.monotonic()
    process = _start(argv, environ)
    assert process.stdout is not None  # noqa: S101 - for mypy: a pipe was asked for
    with process.stdout as pipe:
        tail = _Tail(pipe.fileno())
        try:
            with waiting():
                has_ended = poll(lambda: tail.has_read(process), Deadline.after(clock, timeout), POLL_SECONDS)
        except BaseException:
            _end(process, tail, clock)
            raise
        if not has_ended:
            _end(process, tail, clock)
        return Finished(process.returncode if has_ended else None, clock.monotonic() - began, tail.text)


def _start(argv: Sequence[str], environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(  # noqa: S603 - argv comes from the definition, and no shell sees it
            argv,
            env=dict(environ),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise NotStarted(error.strerror or str(error)) from error
    except Exception as error:
        # A NUL or half a character in an argument or a variable, an empty argument list, no memory, a name with "=":
        # Popen raises whatever it meets, and none of it is a bug of svcagent's.
        raise NotStarted(clean(f"{type(error).__name__}: {error}", LONGEST_REASON)) from error


class _Tail:
    """The end of what comes out of a pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._kept = b""

    def has_read(self, process: "subprocess.Popen[bytes]") -> bool:
        """Read what has come, and say whether that was all: the process had ended before."""
        has_ended = process.poll() is not None
        # No more at a time, so that a command that prints without end does not keep its limit from being seen.
        for _ in range(_CHUNKS_AT_ONCE):
            try:
                chunk = os.read(self._descriptor, _CHUNK)
            except BlockingIOError:
                break
            if not chunk:
                break
            self._kept = (self._kept + chunk)[-KEPT_BYTES:]
        return has_ended

    @property
    def text(self) -> str:
        """Its last lines, cleaned."""
        return clean_lines(self._kept.decode(errors="replace"), KEPT_LINES, LONGEST_LINE)


def _end(process: "subprocess.Popen[bytes]", tail: _Tail, clock: Clock) -> None:
    """End its whole process group, gently for a while; not to be interrupted."""
    _signal(process, signal.SIGTERM)
    poll(
        lambda: tail.has_read(process) and not _signal(process, 0),
        Deadline.after(clock, GRACE_SECONDS),
        POLL_SECONDS,
    )
    _signal(process, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # another user's, or inside the kernel: it is not waited for without end
        process.wait(GRACE_SECONDS)
    tail.has_read(process)


def _signal(process: "subprocess.Popen[bytes]", signum: int) -> bool:
    """Send it to the group, which has the number of its first process; False when nobody is left there."""
    try:
        os.killpg(process.pid, signum)
    except ProcessLookupError:
        return False
    except PermissionError:  # sudo's, say
        return True
    return True
