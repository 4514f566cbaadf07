"""Runs a command of a definition: without a shell or secrets, with a time limit that ends all of its processes."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from agent.clock import Clock, Deadline, poll
from agent.data import dataclass
from agent.errors import CommandFailed
from agent.text import clean, clean_lines, has_credentials, is_secret_name, shown_command

GRACE_SECONDS = 5.0
"""Seconds between SIGTERM and SIGKILL."""
POLL_SECONDS = 0.02
KEPT_BYTES = 8192
KEPT_LINES = 20
LONGEST_LINE = 400
LONGEST_REASON = 200
"""The end of the output is kept: enough to see the cause, and short enough for an error."""

_CHUNK = 1 << 16
_CHUNKS_AT_ONCE = 16


class NotStarted(Exception):
    """A program could not be started, with the reason."""


@dataclass(frozen=True)
class CommandResult:
    """How a command ended.

    ``status``: its exit status, the negative number of the signal that ended it, or None if its time expired.
    ``output``: the last lines of its standard output and standard error.
    """

    status: int | None
    seconds: float
    output: str


@dataclass(frozen=True)
class Command:
    """A command of the definition. For messages: ``what`` it is, and ``limit_key``, the key of its time limit."""

    what: str
    argv: Sequence[str]
    timeout: float
    limit_key: str
    failure: type[CommandFailed] = CommandFailed


def run_checked(
    command: Command,
    environ: Mapping[str, str],
    clock: Clock,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> CommandResult:
    """Run the command. Raise ``command.failure`` if it cannot start, exits with a status other than 0, or times out."""
    name = _name(command)
    try:
        finished = run(command.argv, environ, command.timeout, clock, waiting)
    except NotStarted as error:
        raise _not_started(command, str(error)) from error
    if finished.status == 0:
        return finished
    if finished.status is None:
        how = f"did not end within {command.timeout:g} s and was stopped. If it needs longer, raise {command.limit_key}"
    elif finished.status < 0:
        how = f"was ended by signal {-finished.status}"
    else:
        how = f"failed with exit status {finished.status}"
    if not finished.output:
        how = f"{how} and printed nothing"
    raise command.failure(f"{name} {how}", finished.output)


def require_program(command: Command, environ: Mapping[str, str]) -> None:
    """Raise ``command.failure``, as `run_checked` would, if the program does not exist or must not be executed."""
    program = Path(command.argv[0])
    # As Popen looks for it, in the directory in which `run` starts it.
    found = [Path("/") / folder / program for folder in ([""] if "/" in str(program) else os.get_exec_path(environ))]
    # Not Path.exists and Path.is_file, which raise for a directory that this user must not search.
    if not any(os.path.exists(one) for one in found):  # noqa: PTH110
        raise _not_started(command, f"the program {clean(str(program), LONGEST_REASON)} does not exist")
    if not any(os.path.isfile(one) and os.access(one, os.X_OK) for one in found):  # noqa: PTH113
        raise _not_started(command, f"{clean(str(program), LONGEST_REASON)} is not executable")


def _name(command: Command) -> str:
    return f"{command.what} ({shown_command(command.argv)})"


def _not_started(command: Command, why: str) -> CommandFailed:
    remedy = "Write the program's full path, and allow svcagent to execute it"
    return command.failure(f"{_name(command)} cannot be started: {why}. {remedy}")


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without credentials, and without the variables that name files of them.

    A command does not need svcagent's access to Consul, Docker, DNS and clouds, and others read what it logs.
    """
    return {name: value for name, value in environ.items() if not is_secret_name(name) and not has_credentials(value)}


def run(
    argv: Sequence[str],
    environ: Mapping[str, str],
    timeout: float,
    clock: Clock,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> CommandResult:
    """Run a program in its own session, in ``/``, without standard input, and wait for it. Raise `NotStarted`.

    It has ended when its first process has. What that left behind continues, but its output is no longer read. After
    ``timeout`` seconds, and when the wait is interrupted, the process group gets SIGTERM, and SIGKILL after
    `GRACE_SECONDS`. ``waiting`` is entered for the wait; what it raises (`Interrupted`) passes through.
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
        return CommandResult(process.returncode if has_ended else None, clock.monotonic() - began, tail.text)


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
        # A NUL or an unpaired surrogate in an argument or a variable, an empty argument list, no memory, a name with
        # "=": Popen raises many types, and none of these is a bug of svcagent.
        raise NotStarted(clean(f"{type(error).__name__}: {error}", LONGEST_REASON)) from error


class _Tail:
    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._kept = b""

    def has_read(self, process: "subprocess.Popen[bytes]") -> bool:
        """Read the available output; return True if that was all, because the process had ended before."""
        has_ended = process.poll() is not None
        # A limit, so that a command that prints without end does not hide that its time has expired.
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
        return clean_lines(self._kept.decode(errors="replace"), KEPT_LINES, LONGEST_LINE)


def _end(process: "subprocess.Popen[bytes]", tail: _Tail, clock: Clock) -> None:
    """End the process group: SIGTERM, a grace period, SIGKILL. Nothing interrupts this."""
    _signal(process, signal.SIGTERM)
    poll(
        lambda: tail.has_read(process) and not _signal(process, 0),
        Deadline.after(clock, GRACE_SECONDS),
        POLL_SECONDS,
    )
    _signal(process, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # another user's process, or one stuck in the kernel
        process.wait(GRACE_SECONDS)
    tail.has_read(process)


def _signal(process: "subprocess.Popen[bytes]", signum: int) -> bool:
    """Send a signal to the process group, which has the ID of its first process; return False if the group is empty."""
    try:
        os.killpg(process.pid, signum)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of sudo, for example
        return True
    return True
