"""What the access tests share: Consul servers configured otherwise, and bad servers."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.consul import Consul
from agent.definitions import Settings
from tests.lab import asking, parts
from tests.lab.ground import claimed
from tests.lab.host import environment_in
from tests.lab.server import Server

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"


@contextmanager
def consul_with(more: Mapping[str, Any] | Callable[[str, Path], Mapping[str, Any]]) -> Iterator["Access"]:
    """A running Consul server with this beside its usual configuration."""
    with claimed() as ground:
        address = ground.address(1)
        environment = environment_in(ground.directory, ground.directory)
        chosen = more(address, ground.directory) if callable(more) else more
        server = parts.consul_server(ground.directory, address, environment, chosen)
        with server.running():
            yield Access(server, address, ground.directory)


@dataclass(frozen=True)
class ConsulHosts:
    """A Consul server, and hosts with an agent each, by name."""

    server: Server
    agents: dict[str, Server]
    addresses: dict[str, str]
    directory: Path
    asks: dict[str, asking.Consul]
    at_server: asking.Consul


@contextmanager
def consul_hosts(*nodes: str, ttls: Mapping[str, str]) -> Iterator[ConsulHosts]:
    """Running, each with a directory of its name. ``ttls``: of DNS answers, by service."""
    with claimed() as ground, ExitStack() as stack:
        environment = environment_in(ground.directory, ground.directory)
        addresses = {node: ground.address(last) for last, node in enumerate(nodes, 2)}
        for name in ("server", *nodes):
            (ground.directory / name).mkdir(mode=0o700)
        server = parts.consul_server(ground.directory / "server", ground.address(1), environment)
        agents = {}
        for node, address in addresses.items():
            place = ground.directory / node
            agents[node] = parts.consul_agent(node, place, address, ground.address(1), environment)
            config = json.loads((place / "consul.json").read_text()) | {"dns_config": {"service_ttl": ttls}}
            (place / "consul.json").write_text(json.dumps(config))
        asks = [stack.enter_context(closing(asking.Consul(f"http://{one}:8500"))) for one in addresses.values()]
        at_server = stack.enter_context(closing(asking.Consul(f"http://{ground.address(1)}:8500")))
        for one in (server, *agents.values()):
            stack.callback(one.discard)
            one.start()
        for one in (server, *agents.values()):
            one.wait_ready()
        by_node = dict(zip(nodes, asks, strict=True))
        yield ConsulHosts(server, agents, addresses, ground.directory, by_node, at_server)


@dataclass(frozen=True)
class Access:
    """One Consul server that is hard to reach."""

    server: Server
    address: str
    directory: Path

    @contextmanager
    def connection(self, **settings: str) -> Iterator[Consul]:
        environ = {"CONSUL_HTTP_ADDR": f"{self.address}:8500", **settings}
        connection = Consul(Settings.load(None, environ).consul)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def asked(address: str, token: str) -> Iterator[asking.Consul]:
    ask = asking.Consul(f"http://{address}:8500")
    ask.headers["X-Consul-Token"] = token
    try:
        yield ask
    finally:
        ask.close()


class Listener:
    """Accepts connections on loopback, counts them, and hands each to ``serve`` in a thread of its own."""

    def __init__(self, serve: Callable[[socket.socket], None], address: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listening = socket.create_server((address, 0), family=family)
        self._serve = serve
        self.accepted = 0
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_ended: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _peer = self._listening.accept()
                self.accepted += 1
                threading.Thread(target=self._served, args=(connection,), daemon=True).start()

    def _served(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self._serve(connection)


def answering(answer: bytes) -> Callable[[socket.socket], None]:
    """Sends these bytes for whatever is asked, and closes."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    return serve


def forwarding(target: tuple[str, int]) -> Callable[[socket.socket], None]:
    """Joins each connection to one to the target."""

    def serve(connection: socket.socket) -> None:
        with socket.create_connection(target) as onward:
            back = threading.Thread(target=_copy, args=(onward, connection), daemon=True)
            back.start()
            _copy(connection, onward)
            back.join(5)

    return serve


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
