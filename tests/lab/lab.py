"""The lab: a fleet of real servers on one machine, with addresses, directories and processes of its own.

Consul's server, the registry and the engine that builds images are at the block's first address; each host has the
next one, with a Consul agent and a Docker Engine there. Everything ends with the lab, and with the process that made it.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from tests.lab import image, parts
from tests.lab.ground import MARK, Ground, LabError, claimed, wait_until
from tests.lab.parts import Engine
from tests.lab.server import PATH, REPOSITORY, Server, spawn, svcagent_argv

LOCK = "keyword_suggest_reload"


class Consul:
    """Asks one Consul agent, for what a test asserts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def get(self, path: str, seconds: float = 10) -> Any:
        """The JSON answer; an HTTP error raises."""
        return self._asked("GET", path, None, seconds)

    def put(self, path: str, body: Any = None, seconds: float = 10) -> Any:
        """Send JSON; the JSON answer, or nothing where there is none. An HTTP error raises."""
        return self._asked("PUT", path, body, seconds)

    def delete(self, path: str, seconds: float = 10) -> Any:
        """The JSON answer; an HTTP error raises."""
        return self._asked("DELETE", path, None, seconds)

    def passing(self, service: str = image.NAME) -> tuple[str, ...]:
        """The nodes whose instance is passing, sorted: those that DNS answers with."""
        entries = self.get(f"/v1/health/service/{service}?passing&consistent")
        return tuple(sorted(entry["Node"]["Node"] for entry in entries))

    def close(self) -> None:
        """Close its connections."""
        self._session.close()

    def _asked(self, method: str, path: str, body: Any, seconds: float) -> Any:
        response = self._session.request(method, self.url + path, json=body, timeout=seconds)
        if not response.ok:
            raise LabError(f"{method} {path} at {self.url}: {response.status_code} {response.text.strip()}")
        return response.json() if response.content else None


@dataclass(frozen=True)
class Host:
    """One host of the fleet."""

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
        """Its engine, as ``DOCKER_HOST`` names it."""
        return self.engine.url

    @property
    def services_dir(self) -> Path:
        """Its ``services.d``."""
        return self.directory / "services.d"

    @property
    def state_dir(self) -> Path:
        """Where its svcagent keeps journals."""
        return self.directory / "state"

    def environment(self) -> dict[str, str]:
        """The environment in which svcagent, docker and consul run as if on this host, and nothing of the user's."""
        return _environment(self.directory.parent, self.directory) | {
            "CONSUL_HTTP_ADDR": f"{self.address}:8500",
            "DOCKER_HOST": self.docker_host,
            "DOCKER_CONFIG": str(self.directory / "docker"),
            "SVCAGENT_SERVICES_DIR": str(self.services_dir),
            "SVCAGENT_STATE_DIR": str(self.state_dir),
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


class Lab:
    """A fleet, from ``with`` to its end. Main thread only: see `spawn`."""

    hosts: tuple[Host, ...]
    server: Server
    registry: Server
    builder: Engine

    def __init__(self, hosts: int = 3, *, seconds: float = 60) -> None:
        """``seconds``: how long its start may take."""
        self._size = hosts
        self._seconds = seconds
        self._stack = ExitStack()
        self._consuls: dict[str, Consul] = {}
        self._commands: list[subprocess.Popen[str]] = []
        self._ground: Ground

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise LabError("the lab needs root: its Docker Engines mount, and make control groups and namespaces")
        try:
            self._ground = self._stack.enter_context(claimed())
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def directory(self) -> Path:
        """All that the lab has on disk; gone with it."""
        return self._ground.directory

    @property
    def name(self) -> str:
        """What names the lab where its directory does not: its control groups."""
        return self._ground.name

    @property
    def server_dns(self) -> tuple[str, int]:
        """The DNS server of the Consul server, for clients that shall not depend on any host."""
        return self._ground.address(1), 8600

    @property
    def repository(self) -> str:
        """The service's image, without a tag."""
        return f"{self._ground.address(1)}:5000/{image.NAME}"

    def push(self, version: str, *, broken: bool = False, healthy: bool = True, tag: str = "latest") -> str:
        """Build one version and push it; its digest in the registry.

        ``broken``: its container prints an error and exits with status 1. Not ``healthy``: it serves, but ``/hc`` is 404.
        """
        reference = f"{self.repository}:{tag}"
        image.build(self.builder.api, reference, version, broken=broken, healthy=healthy)
        return image.push(self.builder.api, reference)

    def run_service(self, host: Host, load_seconds: float = 0.5) -> str:
        """Pull the latest image on a host and start the service's container there; its id.

        ``load_seconds``: how long the service loads before it listens.
        """
        reference = f"{self.repository}:latest"
        image.pull(host.engine.api, reference)
        return image.run(host.engine.api, reference, host.address, load_seconds)

    def definition(self, host: Host, *, interval: str = "10s", **reload: Any) -> dict[str, Any]:
        """The host's definition; ``reload`` adds to that section or replaces what is in it."""
        url = f"http://{host.address}:{image.PORT}/hc"
        return {
            "service": {
                "name": image.NAME,
                "tags": ["production"],
                "address": host.address,
                "port": image.PORT,
                "checks": [{"http": url, "interval": interval, "timeout": "5s"}],
            },
            "reload": {
                "image": f"{self.repository}:latest",
                "container": image.NAME,
                "lock": LOCK,
                **reload,
            },
        }

    def write_definition(self, host: Host, *, interval: str = "10s", **reload: Any) -> Path:
        """Put the host's definition into its ``services.d``; the file."""
        file = host.services_dir / f"{image.NAME}.json"
        file.write_text(json.dumps(self.definition(host, interval=interval, **reload), indent=2))
        return file

    def register(self, host: Host, *, interval: str = "10s") -> None:
        """Register the service as the host's own Consul configuration would, without svcagent."""
        service = self.definition(host, interval=interval)["service"]
        self.consul(host).put("/v1/agent/service/register", service)

    def consul(self, host: Host | None = None) -> Consul:
        """Asks a host's agent, or the server."""
        url = host.consul_url if host else f"http://{self._ground.address(1)}:8500"
        if url not in self._consuls:
            self._consuls[url] = Consul(url)
            self._stack.callback(self._consuls[url].close)
        return self._consuls[url]

    def wait_passing(self, hosts: Sequence[Host] | None = None, seconds: float = 30) -> None:
        """Wait until exactly these hosts' instances (default: all) are passing in the catalog."""
        wanted = tuple(sorted(host.name for host in (self.hosts if hosts is None else hosts)))
        wait_until(lambda: self.consul().passing() == wanted, seconds, f"exactly {wanted} are passing")

    def versions(self) -> dict[str, str | None]:
        """The version that each host's container serves; nothing where none answers."""
        return {host.name: _served(f"http://{host.address}:{image.PORT}/version") for host in self.hosts}

    def svcagent(self, host: Host, *arguments: str, **popen: Any) -> "subprocess.Popen[str]":
        """Start svcagent on a host, with text pipes; ``env`` adds to the host's environment. It ends with the lab."""
        return self.command(host, *svcagent_argv(), *arguments, **popen)

    def command(self, host: Host, *argv: str, **popen: Any) -> "subprocess.Popen[str]":
        """Start any program on a host, with text pipes; ``env`` adds to the host's environment. It ends with the lab."""
        options: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "cwd": REPOSITORY,
        }
        environment = host.environment() | popen.pop("env", {})
        process = spawn(argv, environment, **(options | popen))
        self._commands.append(process)
        return process

    def _start(self) -> None:
        servers = self._make()
        self._stack.callback(self._end_commands)
        for server in servers:
            self._stack.callback(server.discard)
            server.start()
        for server in servers:
            server.wait_ready(self._seconds)

    def _make(self) -> list[Server]:
        first = self._ground.address(1)
        center = self._ground.directory / "center"
        center.mkdir()
        environment = _environment(self.directory, center)
        self.server = parts.consul_server(center, first, environment)
        self.registry = parts.registry(center, first, environment)
        self.builder = Engine("builder engine", center, f"/{self.name}/center", environment)
        self.hosts = tuple(self._host(number) for number in range(1, self._size + 1))
        return [
            self.server,
            *(host.consul for host in self.hosts),
            *(host.engine for host in self.hosts),
            self.builder,
            self.registry,
        ]

    def _host(self, number: int) -> Host:
        name = f"host{number}"
        address = self._ground.address(number + 1)
        directory = self.directory / name
        for made, mode in ((directory, 0o755), (directory / "services.d", 0o755), (directory / "state", 0o700)):
            made.mkdir(mode=mode)
        environment = _environment(self.directory, directory)
        consul = parts.consul_agent(name, directory, address, self._ground.address(1), environment)
        engine = Engine(f"engine of {name}", directory, f"/{self.name}/{name}", environment)
        return Host(name, address, directory, consul, engine)

    def _end_commands(self) -> None:
        for process in self._commands:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe:
                    pipe.close()


def _environment(lab: Path, home: Path) -> dict[str, str]:
    return {"PATH": PATH, "HOME": str(home), "LANG": "C.UTF-8", MARK: str(lab)}


def _served(url: str) -> str | None:
    try:
        with requests.Session() as session:
            session.trust_env = False
            response = session.get(url, timeout=2)
            return response.text.strip() if response.ok else None
    except requests.RequestException:
        return None
