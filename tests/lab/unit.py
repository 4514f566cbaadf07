"""svcagent's daemon on a host as systemd would run it: told to be ready, killed, started again at once, stopped."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.lab.ground import LabError, wait_until
from tests.lab.lab import Lab


class Unit:
    """One daemon. What it logs, over all its lives, is in `log`.

    ``launch``: starts svcagent on its host, as `Lab.svcagent` does; ``directory``: for its log.
    """

    def __init__(self, name: str, directory: Path, launch: "Callable[..., subprocess.Popen[str]]") -> None:
        self._name = name
        self._launch = launch
        self._log = directory / "daemon.log"
        self._notified = directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._notified))
        self._socket.setblocking(False)
        self.messages: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def children(self) -> list[int]:
        """The processes of the verbs that it runs."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in found]

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, **environment: str) -> None:
        """Start it; not waited for. ``environment``: what is added to its host's."""
        told = {"NOTIFY_SOCKET": str(self._notified)}
        with self._log.open("a") as log:
            self._process = self._launch("run", env=told | environment, stderr=log, stdout=log)

    def start_ready(self, **environment: str) -> None:
        """Start it, and wait until it has converged."""
        self.start(**environment)
        self.wait_ready()

    def told(self, message: str) -> bool:
        """Has it told systemd this, in any of its lives?"""
        with suppress(BlockingIOError):
            while True:
                self.messages.append(self._socket.recv(4096).decode())
        return message in self.messages

    def wait_ready(self, seconds: float = 20) -> None:
        """Wait until it says that it has converged."""
        wait_until(lambda: self.told("READY=1"), seconds, f"the daemon of {self._name} is ready")

    def kill(self, *, with_children: bool) -> None:
        """SIGKILL, as the kernel sends it to one process out of memory, or systemd to all of a unit."""
        children = self.children if with_children else []
        for pid in (self.pid, *children):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._running.wait(10)

    def stop(self, seconds: float = 90) -> int:
        self._running.terminate()
        try:
            return self._running.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"the daemon of {self._name} has not ended after {seconds:g} s: {self.log}") from error

    def hang_up(self) -> None:
        self._running.send_signal(signal.SIGHUP)

    def discard(self) -> None:
        if self.is_running:
            self.kill(with_children=True)
        self._socket.close()
        self._notified.unlink()
        self._log.unlink(missing_ok=True)

    @property
    def _running(self) -> "subprocess.Popen[str]":
        assert self._process is not None
        return self._process


@contextmanager
def units(lab: Lab) -> Iterator[list[Unit]]:
    found = [Unit(host.name, host.directory, partial(lab.svcagent, host)) for host in lab.hosts]
    try:
        for unit in found:
            unit.start()
        for unit in found:
            unit.wait_ready()
        yield found
    finally:
        for unit in found:
            unit.discard()


def until_next_minute() -> float:
    return 60 - time.time() % 60
