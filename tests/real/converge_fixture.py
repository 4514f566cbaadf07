"""The daemon's pieces for convergence, wired as the daemon wires them: watches that wake one converging thread."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from agent.clock import SystemClock
from agent.consul import Consul
from agent.daemon.agent_watch import AgentWatch
from agent.daemon.converge import Convergence
from agent.daemon.convergence_log import ConvergenceResult
from agent.daemon.files_watch import FilesWatch
from agent.definitions import Settings
from tests.lab import asking
from tests.lab.ground import LabError, claimed, wait_until
from tests.lab.host import environment_in
from tests.lab.server import Server

STOP = "stop"
HOSTNAME = "web1"
EVENT_SECONDS = 5
"""What an event may take to show on a busy machine: less than any pause or timer after which svcagent looks again."""


@dataclass
class Place:
    """One host's directories, and the agent that it has."""

    directory: Path
    address: str
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services_dir.mkdir(parents=True, exist_ok=True)
        self.state_dir.mkdir(mode=0o700, exist_ok=True)

    @property
    def services_dir(self) -> Path:
        return self.directory / "etc" / "services.d"

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def settings(self) -> Settings:
        environ = {"CONSUL_HTTP_ADDR": f"{self.address}:8500", **self.environ}
        return Settings.load(None, environ, services_dir=self.services_dir, state_dir=self.state_dir)

    def define(self, name: str, **fields: Any) -> Path:
        return self.write(name, json.dumps({"service": {"name": name, **fields}}))

    def write(self, name: str, text: str) -> Path:
        """Write a definition atomically, because the daemon may read it at any moment."""
        new = self.services_dir / f".{name}.new"
        new.write_text(text)
        return new.replace(self.services_dir / f"{name}.json")

    def kept(self) -> dict[str, Any]:
        """What the daemon keeps, by file name."""
        return {file.name: json.loads(file.read_text()) for file in (self.state_dir / "definitions").glob("*.json")}


@contextmanager
def converging(place: Place) -> Iterator[Convergence]:
    """A convergence alone, to be run by the test; another one has forgotten all but what is on disk."""
    settings = place.settings
    consul = Consul(settings.consul)
    try:
        yield Convergence(settings, consul, SystemClock(), place.environ, HOSTNAME)
    finally:
        consul.close()


class Wired:
    """All pieces at work, from ``with`` to its end."""

    def __init__(self, place: Place) -> None:
        settings = place.settings
        self._queue: SimpleQueue[str] = SimpleQueue()
        self._own, self._canarys = Consul(settings.consul), Consul(settings.consul)
        self._convergence = Convergence(settings, self._own, SystemClock(), place.environ, HOSTNAME)
        self.files = FilesWatch(settings.services_dir, lambda: self._queue.put("files"))
        self.agent = AgentWatch(self._canarys, SystemClock(), lambda: self._queue.put("agent"))
        self._thread = threading.Thread(target=self._converge)
        self.runs: list[tuple[str, ConvergenceResult]] = []

    def __enter__(self) -> "Wired":
        self.files.start()
        self.agent.start()
        self._queue.put("start")
        self._thread.start()
        wait_until(lambda: bool(self.runs), 30, "the first convergence is over")
        return self

    def __exit__(self, *_ended: object) -> None:
        self.files.stop()
        self.agent.stop()
        self._queue.put(STOP)
        self._thread.join()
        self._own.close()
        assert not [one for one in threading.enumerate() if one.name in ("agent-watch", "files-watch")]

    @property
    def last(self) -> ConvergenceResult:
        return self.runs[-1][1]

    def _converge(self) -> None:
        again_in: float | None = None
        while True:
            try:
                why = self._queue.get(timeout=min(60.0, again_in or 60.0))
            except Empty:
                why = "again" if again_in else "minute"
            if why == STOP:
                return
            result = self._convergence.run()
            is_new = any(one.service_id == result.canary for one in result.changes)
            self.agent.follow(result.canary, is_new=is_new)
            self.runs.append((why, result))
            again_in = result.again_in


class Waker:
    """What a watch calls. It converges nothing, but follows again, as if it had."""

    def __init__(self, address: str, canary: str = "", **environ: str) -> None:
        settings = Settings.load(None, {"CONSUL_HTTP_ADDR": address, **environ}).consul
        self.watch = AgentWatch(Consul(settings), SystemClock(), self._wake)
        self.canary = canary
        self.wakes: list[float] = []

    def __enter__(self) -> "Waker":
        self.watch.follow(self.canary)
        self.watch.start()
        return self

    def __exit__(self, *_ended: object) -> None:
        self.watch.stop()
        assert not [one for one in threading.enumerate() if one.name == "agent-watch"]

    def wakes_after(self, change: Callable[[], object]) -> None:
        """It wakes by a change, long before it would ask again by itself."""
        before = len(self.wakes)
        change()
        wait_until(lambda: len(self.wakes) > before, EVENT_SECONDS, "it wakes", every=0.002)

    def sleeps(self, seconds: float) -> None:
        before = len(self.wakes)
        time.sleep(seconds)
        assert len(self.wakes) == before

    def _wake(self) -> None:
        self.wakes.append(time.monotonic())
        # Asynchronously, as a convergence is over some time later.
        threading.Timer(0.02, lambda: self.watch.follow(self.canary)).start()


@dataclass(frozen=True)
class Agent:
    """One Consul agent that a test may stop, start and ask."""

    server: Server
    address: str
    directory: Path
    ask: asking.Consul
    is_remembering: bool
    """Does it keep its services over a restart?"""

    def services(self) -> Mapping[str, Any]:
        """What it holds; nothing while it does not answer."""
        with suppress(OSError, LabError):
            found: Mapping[str, Any] = self.ask.get("/v1/agent/services")
            return found
        return {}

    def is_answering(self) -> bool:
        try:
            return bool(self.ask.get("/v1/agent/self"))
        except (OSError, LabError):
            return False

    def forget(self, service_id: str) -> None:
        self.ask.deregister_service(service_id)

    def clear(self) -> None:
        for service_id in self.services():
            self.forget(service_id)


@contextmanager
def consul_agent(*, is_remembering: bool) -> Iterator[Agent]:
    """An agent that is its own server, started: with a data directory, or in -dev mode, which forgets everything."""
    with claimed() as ground:
        address = ground.address(1)
        config = {"ports": {"serf_wan": -1, "grpc": -1}, "disable_update_check": True, "connect": {"enabled": False}}
        (ground.directory / "config.json").write_text(json.dumps(config))
        mode = (
            ["-server", "-bootstrap-expect=1", f"-data-dir={ground.directory / 'data'}"] if is_remembering else ["-dev"]
        )
        ask = asking.Consul(f"http://{address}:8500")
        argv = ["consul", "agent", *mode, f"-bind={address}", f"-client={address}"]
        server = Server(
            "consul",
            [*argv, f"-config-file={ground.directory / 'config.json'}"],
            ground.directory / "consul.log",
            environment_in(ground.directory, ground.directory),
            lambda: _has_leader(ask),
        )
        with closing(ask), server.running():
            yield Agent(server, address, ground.directory, ask, is_remembering)


def _has_leader(ask: asking.Consul) -> bool:
    try:
        return bool(ask.get("/v1/status/leader"))
    except (OSError, LabError):
        return False
