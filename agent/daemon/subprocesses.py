"""svcagent's own commands, each in its own process.

A child survives a daemon that is killed, and the daemon survives any failure of its child. Nothing here depends on what
a command does. A command writes to the daemon's log itself; a repeated one is captured instead, so that the daemon logs
only what is new.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from agent.logs import DAEMON_CHILD

SVCAGENT = (sys.executable, "-P", "-m", "agent")
"""This svcagent. With -P, a directory called agent in the working directory is not imported."""
CAPTURED = ("--json", "--log-format", "text")
LONGEST_OUTPUT = 1 << 24
"""Bytes of a command's output that are read."""

_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


@dataclass(frozen=True)
class EndedProcess:
    """How a command ended: its exit status, negative for the signal that killed it.

    For a captured command, ``document`` is its ``--json`` output and ``errors`` its standard error.
    """

    status: int
    document: Any = None
    errors: str = ""


@dataclass(frozen=True)
class Launcher:
    """Starts commands. ``options`` precede the command; ``environ`` is the daemon's environment."""

    options: Sequence[str]
    environ: Mapping[str, str]
    command: Sequence[str] = SVCAGENT

    async def start(self, verb: Sequence[str], token: str) -> "Child":
        """Start a command that writes to the daemon's log. Raise OSError without a process or memory for it.

        ``token`` shows the command that the daemon started it, and is in what it records about itself.
        """
        arguments = ["-v", *self.options, *verb]
        return Child(await self._start(arguments, {DAEMON_CHILD: token}, asyncio.subprocess.DEVNULL, None))

    async def start_captured(self, verb: Sequence[str]) -> "Child":
        """Start a command whose output is captured. Raise OSError without a process or memory for it."""
        # In memory: a pipe could fill up unread, and a file would remain if the daemon is killed.
        document, errors = os.memfd_create("document"), os.memfd_create("errors")
        try:
            process = await self._start([*self.options, *CAPTURED, *verb], {}, document, errors)
        except BaseException:
            os.close(document)
            os.close(errors)
            raise
        return Child(process, document, errors)

    async def _start(
        self, arguments: Sequence[str], more: Mapping[str, str], stdout: int, stderr: int | None
    ) -> asyncio.subprocess.Process:
        environ = {name: value for name, value in self.environ.items() if name not in _SYSTEMD}
        return await asyncio.create_subprocess_exec(
            *self.command,
            *arguments,
            env={**environ, **more},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            # A terminal's signals to the process group must reach only the daemon, which forwards them.
            process_group=0,
        )


class Child:
    """A running command. ``document`` and ``errors`` are the files that capture its output."""

    def __init__(self, process: asyncio.subprocess.Process, *captured: int) -> None:
        self._process = process
        self._captured = captured

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end; a reload restores its service first."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signum)

    async def ended(self) -> EndedProcess:
        """Wait for its end, but not for its own children."""
        try:
            status = await self._process.wait()
            document, errors = [os.pread(one, LONGEST_OUTPUT, 0) for one in self._captured] or [b"", b""]
            return EndedProcess(status, _document(document), errors.decode(errors="replace"))
        finally:
            for one in self._captured:
                os.close(one)


def _document(output: bytes) -> Any:
    """Return the command's JSON document; None if it printed none, as after SIGKILL."""
    try:
        return json.loads(output)
    except (ValueError, RecursionError):
        return None
