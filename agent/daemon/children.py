"""svcagent's own verbs, each in its own process.

A child outlives a daemon that is killed, and a daemon outlives whatever its child runs into. Nothing here knows what a
verb does. A verb writes to the daemon's log itself; one that is repeated is captured instead, so that the daemon can
log what is new.
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
"""This svcagent. -P: a directory called agent where the daemon was started is another one."""
CAPTURED = ("--json", "--log-format", "text")
LONGEST_OUTPUT = 1 << 24
"""Bytes that are read of what a verb printed."""

_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


@dataclass(frozen=True)
class Ended:
    """How a verb ended: its exit status, negative for the signal that killed it.

    ``document`` and ``errors``, of a captured verb: its ``--json``, and what it printed on standard error.
    """

    status: int
    document: Any = None
    errors: str = ""

    @property
    def was_killed(self) -> bool:
        """True if a signal ended it that it could not handle."""
        return self.status < 0


@dataclass(frozen=True)
class Launcher:
    """Starts verbs. ``options`` stand before the verb; ``environ`` is the daemon's environment."""

    options: Sequence[str]
    environ: Mapping[str, str]
    command: Sequence[str] = SVCAGENT

    async def start(self, verb: Sequence[str]) -> "Child":
        """Start a verb that writes to the daemon's log.

        :raises OSError: there is no process or no memory to be had.
        """
        return Child(
            await self._start(["-v", *self.options, *verb], {DAEMON_CHILD: "1"}, asyncio.subprocess.DEVNULL, None)
        )

    async def start_captured(self, verb: Sequence[str]) -> "Child":
        """Start a verb whose document and errors are returned at its end.

        :raises OSError: there is no process or no memory to be had.
        """
        # In memory: no pipe that fills while nobody reads, and nothing left when the daemon is killed.
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
            # What a terminal sends to the daemon's group must reach the daemon alone, which passes it on.
            process_group=0,
        )


class Child:
    """A verb that runs. ``document`` and ``errors`` are the files that capture what it prints."""

    def __init__(self, process: asyncio.subprocess.Process, *captured: int) -> None:
        self._process = process
        self._captured = captured

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end; a reload restores its service first."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signum)

    async def ended(self) -> Ended:
        """Wait for its end, not for that of its own children."""
        try:
            status = await self._process.wait()
            document, errors = [os.pread(one, LONGEST_OUTPUT, 0) for one in self._captured] or [b"", b""]
            return Ended(status, _document(document), errors.decode(errors="replace"))
        finally:
            for one in self._captured:
                os.close(one)


def _document(output: bytes) -> Any:
    """Return what the verb printed; None if it printed none, as after SIGKILL."""
    try:
        return json.loads(output)
    except (ValueError, RecursionError):
        return None
