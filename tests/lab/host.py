"""One host of a lab: its address, its directories, its servers, and the environment of a program that runs there."""

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.lab.ground import MARK
from tests.lab.parts import Engine
from tests.lab.server import PATH, Server


@dataclass(frozen=True)
class Host:
    name: str
    address: str
    directory: Path
    consul: Server
    engine: Engine

    @property
    def consul_url(self) -> str:
        """The HTTP API of its Consul agent."""
        return f"http://{self.address}:8500"

    @property
    def dns(self) -> tuple[str, int]:
        """The DNS server of its Consul agent."""
        return self.address, 8600

    @property
    def docker_host(self) -> str:
        return self.engine.url

    @property
    def services_dir(self) -> Path:
        return self.directory / "services.d"

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def status_file(self) -> Path:
        """Where its daemon says what it does."""
        return self.directory / "status.json"

    def environment(self) -> dict[str, str]:
        """The environment in which svcagent, docker and consul run as if on this host, and nothing of the user's."""
        return environment_in(self.directory.parent, self.directory) | {
            "CONSUL_HTTP_ADDR": f"{self.address}:8500",
            "DOCKER_HOST": self.docker_host,
            "DOCKER_CONFIG": str(self.directory / "docker"),
            "SVCAGENT_SERVICES_DIR": str(self.services_dir),
            "SVCAGENT_STATE_DIR": str(self.state_dir),
            "SVCAGENT_STATUS_FILE": str(self.status_file),
        }

    def power_off(self) -> None:
        """The host is gone at one stroke: Consul agent, engine, containers. Its directory stays."""
        self.consul.kill()
        self.engine.power_off()

    def power_on(self, seconds: float = 60) -> None:
        """The host boots: its servers start, and the engine its containers."""
        servers = (self.consul, self.engine)
        for server in servers:
            server.start()
        for server in servers:
            server.wait_ready(seconds)


def environment_in(lab: Path, home: Path) -> dict[str, str]:
    """The environment of a lab's processes: its mark, and nothing of the user's but the search path.

    Under sudo they leave no compiled files in the checkout, as their parent.
    """
    found = {"PATH": PATH, "HOME": str(home), "LANG": "C.UTF-8", MARK: str(lab)}
    return found | {"PYTHONDONTWRITEBYTECODE": "1"} if sys.dont_write_bytecode else found
