"""What the lock's tests share: the real ``consul lock``, waiters in processes of their own, what Consul holds."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from agent.clock import Deadline, SystemClock
from agent.consul import Consul, Lock
from tests.lab.server import REPOSITORY, spawn
from tests.real.conftest import ConsulHost

CLOCK = SystemClock()
DETAILS = {"node": "here", "pid": 1, "command": "svcagent reload", "since": "2026-05-01T12:00:00+00:00"}


def make_lock(consul: Consul, prefix: str, limit: int = 1, **more: Any) -> Lock:
    return Lock(consul, prefix, "svcagent reload web", DETAILS, CLOCK, limit=limit, **more)


def soon(seconds: float = 10) -> Deadline:
    return Deadline.after(CLOCK, seconds)


@contextmanager
def consul_lock(
    host: ConsulHost, prefix: str, *options: str, command: str = "sleep 600"
) -> Iterator["subprocess.Popen[Any]"]:
    """The real command, holding the lock until its child ends."""
    argv = ["consul", "lock", *options, prefix, command]
    process = spawn(argv, host.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def pairs(host: ConsulHost, below: str = "") -> dict[str, dict[str, Any]]:
    """The keys that Consul has, all that it says of each."""
    _make_some_key(host)
    return {pair["Key"]: pair for pair in host.ask.get("/v1/kv/?recurse") if pair["Key"].startswith(below)}


@cache
def _make_some_key(host: ConsulHost) -> None:
    """Consul answers 404 for a listing of none."""
    host.ask.put("/v1/kv/some-key", 1)


def holder(host: ConsulHost, prefix: str) -> str | None:
    """The session that holds the lock of one holder."""
    session: str | None = pairs(host).get(f"{prefix}/.lock", {}).get("Session")
    return session


def sessions(host: ConsulHost, prefix: str) -> list[str]:
    """svcagent's living sessions for that lock. `consul lock` may leave its own behind when it ends."""
    name = rf"Consul lock for 'svcagent\b[^']*' at '{re.escape(prefix)}'"
    return [one["ID"] for one in host.ask.get("/v1/session/list") if re.fullmatch(name, one["Name"])]


def assert_nothing_left(host: ConsulHost, prefix: str) -> None:
    assert pairs(host, f"{prefix}/") == {}
    assert pairs(host, f"svcagent/{prefix}/") == {}
    assert sessions(host, prefix) == []


def raft_writes(host: ConsulHost) -> int:
    return int(host.ask.get("/v1/agent/self")["Stats"]["raft"]["applied_index"])


class Waiter:
    """svcagent in a process of its own."""

    def __init__(self, host: ConsulHost, prefix: str, node: str, limit: int = 1) -> None:
        self.node = node
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._process = spawn(
            [sys.executable, "-m", "tests.real.lock_waiter", prefix, str(limit), node],
            host.environment(),
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line.strip())

    def hears(self, beginning: str, seconds: float = 20) -> str:
        end = CLOCK.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - CLOCK.monotonic()))
            except queue.Empty:
                raise AssertionError(
                    f"{self.node} did not say {beginning!r} in {seconds} s; it said {self.said}"
                ) from None
            self.said.append(line)
            if line.startswith(beginning):
                return line

    def is_silent(self) -> bool:
        """Has it said nothing that was not heard yet?"""
        return self._lines.empty()

    def report_event(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def signal(self, signum: int) -> None:
        os.kill(self._process.pid, signum)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._reader.join(5)
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()


@contextmanager
def line_of(host: ConsulHost, prefix: str, count: int, limit: int = 1) -> Iterator[list[Waiter]]:
    """The first holds the lock, the others stand in the line, in this order."""
    waiters: list[Waiter] = []
    try:
        for number in range(count):
            waiter = Waiter(host, prefix, f"host-{number}", limit)
            waiters.append(waiter)
            waiter.hears("held" if number < limit else f"place {number + 1 - limit} ")
        yield waiters
    finally:
        for waiter in waiters:
            waiter.close()
