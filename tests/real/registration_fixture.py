"""A services.d of its own on the module's Consul server, and svcagent's verbs run on it."""

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from agent.cli.group import cli
from agent.errors import SvcagentError
from tests.lab.server import svcagent_argv
from tests.real.conftest import ConsulHost


@dataclass(frozen=True)
class Outcome:
    """How a verb ended."""

    exit_code: int
    out: str
    err: str


@dataclass
class Site:
    """One host's services.d, and what its agent holds."""

    host: ConsulHost
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state_dir.mkdir(mode=0o700, exist_ok=True)

    @property
    def state_dir(self) -> Path:
        """What svcagent keeps."""
        return self.directory.with_name(f"{self.directory.name}-state")

    def write(self, file: str, content: Any) -> Path:
        """A definition, whole, as text or as bytes."""
        path = self.directory / f"{file}.json"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def service(self, name: str, **fields: Any) -> Path:
        """A definition of one service."""
        return self.write(name, {"service": {"name": name, **fields}})

    def remove(self, file: str) -> None:
        """Take a definition away."""
        (self.directory / f"{file}.json").unlink()

    def run(self, *argv: str) -> Outcome:
        """A verb in this process: the same code as the command, without the time of its imports."""
        result = CliRunner().invoke(cli, argv, env=self._all(), standalone_mode=False)
        if isinstance(result.exception, SvcagentError):
            return Outcome(result.exception.exit_code, result.stdout, f"{result.stderr}{result.exception}")
        if result.exception is not None:
            raise result.exception
        return Outcome(int(result.return_value or 0), result.stdout, result.stderr)

    def register(self, *argv: str) -> Outcome:
        """Converge, and insist that it went well."""
        outcome = self.run("register", *argv)
        assert outcome.exit_code == 0, outcome
        return outcome

    def planned(self, *argv: str) -> dict[str, dict[str, Any]]:
        """What plan says in JSON, by service."""
        changes = json.loads(self.run("--json", "plan", *argv).out)["changes"]
        return {change["service"]: change for change in changes}

    def start(self, *argv: str) -> "subprocess.Popen[str]":
        """The command itself."""
        return subprocess.Popen(
            [*svcagent_argv(), *argv],
            env=self.host.environment() | self._all(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def services(self) -> Mapping[str, Any]:
        """What the agent holds."""
        found: Mapping[str, Any] = self.host.ask.get("/v1/agent/services")
        return found

    def checks(self) -> dict[str, str]:
        """The status of every check of the agent."""
        return {check_id: check["Status"] for check_id, check in self.host.ask.get("/v1/agent/checks").items()}

    def put(self, path: str, body: Any = None) -> None:
        """What somebody else does to the agent."""
        self.host.ask.put(f"/v1/agent/{path}", body)

    def _all(self) -> dict[str, str]:
        return {
            "CONSUL_HTTP_ADDR": f"{self.host.address}:8500",
            "SVCAGENT_SERVICES_DIR": str(self.directory),
            "SVCAGENT_STATE_DIR": str(self.state_dir),
            **self.environment,
        }

    def clear(self) -> None:
        """Leave the agent as it was found."""
        for service_id in self.services():
            self.host.ask.deregister_service(service_id)
        for check_id in self.checks():
            self.host.ask.deregister_check(check_id)


@dataclass
class Backend:
    """What checks ask: an HTTP server that counts, and answers as it is told."""

    url: str
    address: str
    status: int = 200
    hits: dict[str, int] = field(default_factory=dict)


@contextmanager
def backend() -> Iterator[Backend]:
    """A backend on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.hits[self.path] = told.hits.get(self.path, 0) + 1
            self.send_response(told.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that it has
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"127.0.0.1:{server.server_address[1]}"
    told = Backend(f"http://{address}", address)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
