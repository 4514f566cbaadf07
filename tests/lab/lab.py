"""The lab: a fleet of real servers on one machine, with addresses, directories and processes of its own.

Consul's server, the registry and the engine that builds images are at the block's first address; each host has the
next one, with a Consul agent and a Docker Engine there. All of it ends with the lab, and with the process that made it.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab import image, parts
from tests.lab.asking import Consul, version_at
from tests.lab.ground import Ground, LabError, claimed, wait_until
from tests.lab.host import Host, environment_in
from tests.lab.parts import Engine
from tests.lab.server import REPOSITORY, Server, spawn, svcagent_argv

LOCK = "keyword_suggest_reload"

QUICK_SETTLE = {"canary": "0.3s", "each": "0.1s"}
"""Most tests are about other steps; those about this one write their own."""

PRODUCT_SETTLE: dict[str, str] = {}
"""What a definition without the key means: the product's defaults."""

NO_SETTLE = {"canary": "0s", "each": "0s"}


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

    def environment(self) -> dict[str, str]:
        """The environment of a program that belongs to no host."""
        return environment_in(self.directory, self.directory)

    def address(self, last: int) -> str:
        """One address of the lab's block; the server and the hosts have those from 1 on."""
        return self._ground.address(last)

    @property
    def server_dns(self) -> tuple[str, int]:
        """The DNS server of the Consul server, for clients that shall not depend on any host."""
        return self._ground.address(1), 8600

    @property
    def repository(self) -> str:
        return f"{self._ground.address(1)}:5000/{image.NAME}"

    def push(
        self,
        version: str,
        *,
        broken: bool = False,
        healthy: bool = True,
        tag: str = "latest",
        serve: str = image.SERVE,
        check: str = "",
    ) -> str:
        """Build one version and push it; its digest in the registry.

        ``broken``: its container prints an error and exits with 1. Not ``healthy``: it serves, but without ``/hc``.
        ``serve`` and ``check``: as for `image.build`.
        """
        reference = f"{self.repository}:{tag}"
        image.build(self.builder.api, reference, version, broken=broken, healthy=healthy, serve=serve, check=check)
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
                "settle": QUICK_SETTLE,
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
        return {host.name: version_at(host.address) for host in self.hosts}

    def svcagent(self, host: Host, *arguments: str, **popen: Any) -> "subprocess.Popen[str]":
        """Start svcagent on a host, with text pipes; ``env`` adds to the host's environment. It ends with the lab."""
        return self.command(host, *svcagent_argv(), *arguments, **popen)

    def command(self, host: Host, *argv: str, **popen: Any) -> "subprocess.Popen[str]":
        """Start any program on a host, like `svcagent`."""
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
        environment = environment_in(self.directory, center)
        self.server = parts.consul_server(center, first, environment)
        self.registry = parts.registry(center, first, environment)
        self.builder = Engine("builder engine", center, f"{self.name}/center", environment)
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
        environment = environment_in(self.directory, directory)
        consul = parts.consul_agent(name, directory, address, self._ground.address(1), environment)
        engine = Engine(f"engine of {name}", directory, f"{self.name}/{name}", environment)
        return Host(name, address, directory, consul, engine)

    def _end_commands(self) -> None:
        for process in self._commands:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe:
                    pipe.close()
