"""A daemon that has the real local API and nothing behind it: reloads go as a test tells them to."""

import queue
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.daemon.api import Record
from agent.daemon.api_server import ApiServer
from agent.errors import BadDefinition, Fault, NotFound

SINCE = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
NEXT = datetime(2026, 3, 1, 10, 10, tzinfo=UTC)
RELOADED = {"service": "web", "node": "host1", "image": "web:1", "outcome": "reloaded", "wanted": "sha256:2"}


@dataclass
class Looking:
    """One subscription."""

    is_started_here: bool
    records: "queue.SimpleQueue[Record]" = field(default_factory=queue.SimpleQueue)
    is_closed: bool = False
    is_dead: bool = False
    since: datetime = SINCE
    why: str = "schedule"
    pid: int | None = 4711
    is_forced: bool = False
    is_in_maintenance: bool = False

    def get(self, timeout: float) -> Record | None:
        """The next one that the test told; a dead daemon's connection is gone."""
        if self.is_dead:
            raise ConnectionAbortedError
        try:
            return self.records.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Remember it."""
        self.is_closed = True


class Backend:
    """``told`` is what the one reload, of web, has told so far."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.is_running = False
        self.told: list[Record] = []
        self.lookers_on: list[Looking] = []
        self.asked: list[dict[str, Any]] = []
        self.cancelled: list[str] = []

    def status(self) -> Mapping[str, Any]:
        """As of the directories under the socket's."""
        return {
            "pid": 4711,
            "since": SINCE,
            "state_dir": str(self.directory / "state"),
            "services_dir": str(self.directory / "services.d"),
            "status": "1 service",
            "is_ready": True,
            "next_runs": {"reload web": NEXT, "cname sync": SINCE, "reload api": NEXT},
        }

    def schedule(self, name: str | None) -> Sequence[Mapping[str, Any]]:
        """Two runs, one of them of web."""
        if name is None:
            return [{"job": "cname sync", "at": SINCE}, {"job": "reload web", "at": NEXT}]
        self._known(name)
        return [{"job": "reload web", "at": NEXT}]

    def history(self, name: str) -> Sequence[Mapping[str, Any]]:
        """An error of each kind, or nothing."""
        if name == "bug":
            raise RuntimeError("a secret of the code")
        if name == "bad":
            raise BadDefinition([Fault("web.json", "service.port", "is wrong")])
        self._known(name)
        return []

    def metrics(self) -> tuple[bytes, str] | None:
        """One."""
        return b"svcagent_up 1\n", "text/plain; version=0.0.4"

    def reload(self, name: str, **asked: Any) -> Looking:
        """Start it, or look on."""
        self._known(name)
        self.asked.append(asked)
        looking = Looking(not self.is_running)
        self.is_running = True
        for record in self.told:
            looking.records.put(record)
        self.lookers_on.append(looking)
        return looking

    def cancel(self, name: str) -> None:
        """Remember it."""
        self._known(name)
        if not self.is_running:
            raise NotFound(f"no reload of {name} runs")
        self.cancelled.append(name)

    def tell(self, *records: Record) -> None:
        """What the reload logs."""
        self.told += records
        for looking in self.lookers_on:
            for record in records:
                looking.records.put(record)

    def end(self, **result: Any) -> None:
        """How it ends."""
        self.is_running = False
        self.tell({"result": RELOADED | result})

    def _known(self, name: str) -> None:
        if name != "web":
            raise NotFound(f"no service is called {name!r}; there is: web")


@dataclass(frozen=True)
class Daemon:
    """The server and what is behind it."""

    backend: Backend
    server: ApiServer
    path: Path


@contextmanager
def directory() -> Iterator[Path]:
    """With a name that is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="svcagent-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def daemon_in(place: Path, listen: str | None = None) -> Iterator[Daemon]:
    """A daemon with its socket in that directory."""
    backend, path = Backend(place), place / "svcagent.sock"
    server = ApiServer(backend, path, listen)
    server.start()
    try:
        yield Daemon(backend, server, path)
    finally:
        for looking in backend.lookers_on:
            looking.records.put({"result": {}})
        server.stop(5)


def event(step: str, phase: str, text: str = "", **more: Any) -> Record:
    """A line of a reload's log."""
    level = "warning" if phase == "note" else "info"
    common = {"service": "web", "reload": "r1", "seconds": 0.25}
    return {"time": SINCE.isoformat(), "level": level, "text": text, "step": step, "phase": phase, **common, **more}


def ask(address: Path | tuple[str, int], request: str | bytes) -> bytes:
    """The whole answer to a request, byte for byte. One that is refused unread ends with a reset."""
    answer = b""
    with connected(address) as connection:
        with suppress(ConnectionError):
            connection.sendall(request if isinstance(request, bytes) else request.encode())
        with suppress(ConnectionError):
            while piece := connection.recv(1 << 16):
                answer += piece
    return answer


def connected(address: Path | tuple[str, int]) -> socket.socket:
    """A connection."""
    if isinstance(address, Path):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(20)
        connection.connect(str(address))
        return connection
    return socket.create_connection(address, timeout=20)
