"""A services.d of its own on the module's Consul server, and svcagent's verbs run on it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.real.conftest import ConsulHost
from tests.support.http import QuietHandler, serving
from tests.support.svcagent import Result, Svcagent


class RegistrationHost(Svcagent):
    """One host's services.d, and what its agent holds."""

    def __init__(self, home: Path, host: ConsulHost, **settings: str) -> None:
        super().__init__(home, **{"CONSUL_HTTP_ADDR": f"{host.address}:8500", **settings})
        self.host = host

    def service(self, name: str, **fields: Any) -> Path:
        return self.write(name, {"service": {"name": name, **fields}})

    def registered(self, name: str, **fields: Any) -> None:
        """Define a service and register everything that is defined."""
        self.service(name, **fields)
        self.register()

    def remove(self, file: str) -> None:
        (self.services_dir / f"{file}.json").unlink()

    def register(self, *argv: str) -> Result:
        return self.run("register", *argv)

    def planned(self, *argv: str) -> dict[str, dict[str, Any]]:
        """What plan says in JSON, by service."""
        changes = json.loads(self("--json", "plan", *argv).out)["changes"]
        return {change["service"]: change for change in changes}

    def services(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.host.ask.get("/v1/agent/services")
        return found

    def checks(self) -> dict[str, str]:
        """The status of every check of the agent."""
        return {check_id: check["Status"] for check_id, check in self.host.ask.get("/v1/agent/checks").items()}

    def put(self, path: str, body: Any = None) -> None:
        """What somebody else does to the agent."""
        self.host.ask.put(f"/v1/agent/{path}", body)

    def clear(self) -> None:
        """Leave the agent as it was found."""
        for service_id in self.services():
            self.host.ask.deregister_service(service_id)
        for check_id in self.checks():
            self.host.ask.deregister_check(check_id)


@dataclass
class Backend:
    """What checks ask: an HTTP server that counts, and answers as it is configured."""

    url: str = ""
    address: str = ""
    status: int = 200
    hits: dict[str, int] = field(default_factory=dict)


@contextmanager
def backend() -> Iterator[Backend]:
    """A backend on a separate port."""

    backend = Backend()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            backend.hits[self.path] = backend.hits.get(self.path, 0) + 1
            self.send_response(backend.status)
            self.end_headers()

    with serving(Handler) as address:
        backend.url, backend.address = f"http://{address}", address
        yield backend
