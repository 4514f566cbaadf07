"""One real server of a kind for the tests of a module: Consul, or a Docker Engine with a registry."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from agent import logs
from agent.consul import Consul
from agent.definitions import ConsulSettings, Settings
from tests.lab import asking, parts
from tests.lab.ground import claimed, wait_until
from tests.lab.host import environment_in
from tests.lab.server import Server
from tests.real.engine_fixture import DockerHost, docker_host
from tests.support.svcagent import Svcagent


@dataclass(frozen=True)
class ConsulHost:
    """A Consul server of its own, and the environment of programs that speak to it."""

    server: Server
    address: str
    directory: Path
    settings: ConsulSettings
    ask: asking.Consul

    def environment(self) -> dict[str, str]:
        """For svcagent and consul, and nothing of the user's."""
        services, state = self.directory / "services.d", self.directory / "state"
        services.mkdir(exist_ok=True)
        state.mkdir(mode=0o700, exist_ok=True)
        return environment_in(self.directory, self.directory) | {
            "CONSUL_HTTP_ADDR": f"{self.address}:8500",
            "SVCAGENT_SERVICES_DIR": str(services),
            "SVCAGENT_STATE_DIR": str(state),
        }


_numbers = count(1)


@pytest.fixture(scope="module")
def host() -> Iterator[ConsulHost]:
    with claimed() as ground:
        address = ground.address(1)
        environment = environment_in(ground.directory, ground.directory)
        server = parts.consul_server(ground.directory, address, environment)
        with server.running(), closing(asking.Consul(f"http://{address}:8500")) as ask:
            # The leader registers itself a moment later; until then it makes no sessions.
            wait_until(lambda: bool(ask.get("/v1/catalog/nodes")), 20, "the server's own node is in the catalog")
            settings = Settings.load(None, {"CONSUL_HTTP_ADDR": f"{address}:8500"}).consul
            yield ConsulHost(server, address, ground.directory, settings, ask)


@pytest.fixture
def consul(host: ConsulHost) -> Iterator[Consul]:
    connection = Consul(host.settings)
    yield connection
    connection.close()


@pytest.fixture
def another(consul: Consul) -> Iterator[Callable[[], Consul]]:
    """Makes further connections, for others that a test has beside svcagent's own; closed at its end."""
    with ExitStack() as connections:
        yield lambda: connections.enter_context(closing(consul.another()))


@pytest.fixture(scope="module")
def running() -> Iterator[DockerHost]:
    with docker_host() as docker:
        yield docker


@pytest.fixture
def docker(running: DockerHost) -> Iterator[DockerHost]:
    """The same, empty again after each test."""
    try:
        yield running
    finally:
        running.clear()


@pytest.fixture
def image(docker: DockerHost) -> str:
    """The first version, pushed and here; its name."""
    reference = docker.latest
    docker.engine.pull(reference, docker.push("1"), lambda _: None)
    return reference


@pytest.fixture
def number() -> int:
    """One that no other test has."""
    return next(_numbers)


@pytest.fixture
def svcagent(tmp_path: Path) -> Svcagent:
    return Svcagent(tmp_path)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's Consul settings reaches a test."""
    for name in list(os.environ):
        if name.startswith(("CONSUL_", "SVCAGENT_", "DOCKER_")) and name not in (
            "SVCAGENT_PARTS_DIR",
            "SVCAGENT_TEST_STORE",
        ):
            monkeypatch.delenv(name)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All that is logged meanwhile, as by a daemon."""
    logs.set_up(logs.Format.TEXT, is_verbose=True)
    yield caplog
    logs.set_up(logs.Format.TEXT, is_verbose=False)
