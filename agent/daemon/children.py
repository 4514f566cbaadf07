"""svcagent's own verbs, each in a process of its own: what they log while they run, and how they end.

A child outlives a daemon that is killed, and a daemon outlives whatever its child runs into. Nothing here knows what a
verb does.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

LINE_BYTES = 1 << 20
"""A longer line of a child's log is a fault of the child; it is cut off there."""
LINGER_SECONDS = 0.5
"""For what a child wrote before it ended. Its own children may hold the pipe open for longer."""

SVCAGENT = (sys.executable, "-P", "-m", "agent")
"""This very svcagent. -P: a directory called agent where the daemon was started is another one."""
IN_JSON = ("--json", "--log-format", "json", "-v")

_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")

Record: TypeAlias = Mapping[str, Any]
"""One line of a verb's log, as ``--log-format json`` writes it."""


@dataclass(frozen=True)
class Ended:
    """How a verb ended: its exit status, negative for the signal that killed it, and the document of its ``--json``."""

    status: int
    document: Any = None

    @property
    def was_killed(self) -> bool:
        """Did a signal end it that it could not see to, or that it did not survive?"""
        return self.status < 0


@dataclass(frozen=True)
class Launcher:
    """Starts verbs. ``options``: what stands before the verb; ``environ``: the daemon's own environment."""

    options: Sequence[str]
    environ: Mapping[str, str]
    command: Sequence[str] = SVCAGENT

    async def start(self, verb: Sequence[str], tell: Callable[[Record], None]) -> "Child":
        """Start one. ``tell`` gets every line of its log.

        :raises OSError: there is no process or no memory to be had.
        """
        argv = [*self.command, *IN_JSON, *self.options, *verb]
        environ = {name: value for name, value in self.environ.items() if name not in _SYSTEMD}
        # In memory: no pipe that fills while nobody reads, and nothing left when the daemon is killed.
        output = os.memfd_create("svcagent")
        # A pipe of our own and not asyncio's: that one stays open for as long as a grandchild holds it.
        log, child_log = os.pipe()
        stream = os.fdopen(log, "rb", buffering=0)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=child_log,
                # What a terminal sends to the daemon's group must reach the daemon alone, which passes it on.
                process_group=0,
            )
        except BaseException:
            stream.close()
            os.close(output)
            raise
        finally:
            os.close(child_log)
        return Child(process, output, stream, tell)


class Child:
    """A verb that runs."""

    def __init__(
        self, process: asyncio.subprocess.Process, output: int, log: IO[bytes], tell: Callable[[Record], None]
    ) -> None:
        self._process = process
        self._output = output
        self._log = log
        self._tell = tell

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end; a reload puts its service back first."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signum)

    def kill(self) -> None:
        """End it at once; what it left half done is in its journal."""
        self.stop(signal.SIGKILL)

    async def ended(self) -> Ended:
        """Wait for its end, while its log is read."""
        reader = asyncio.StreamReader(limit=LINE_BYTES)
        pipe, _protocol = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._log
        )
        reading = asyncio.create_task(self._read(reader))
        # Also if a bug ends it: a child must not wait for a reader that is gone.
        reading.add_done_callback(lambda _reading: pipe.close())
        try:
            status = await self._process.wait()
            done, _pending = await asyncio.wait({reading}, timeout=LINGER_SECONDS)
            for one in done:
                one.result()
            return Ended(status, _document(self._output))
        finally:
            reading.cancel()
            pipe.close()
            os.close(self._output)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                continue  # too long; what there was of it has been thrown away
            if not line:
                return
            self._tell(_record(line))


def _record(line: bytes) -> Record:
    """The record; a line that is none, of a library say, is told as it stands."""
    with suppress(ValueError, RecursionError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return {"level": "warning", "text": line.decode(errors="replace").rstrip()}


def _document(output: int) -> Any:
    """What the verb printed; None if it printed none, as after SIGKILL."""
    size = os.fstat(output).st_size
    try:
        return json.loads(os.pread(output, size, 0))
    except (ValueError, RecursionError):
        return None
