"""The kernel's own answer to who is connected."""

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.engine.host_clients import host_connections
from agent.engine.sockets import server_ends
from tests.lab.ground import wait_until
from tests.real.conftest import ConsulHost


@pytest.mark.parametrize(
    ("family", "bound", "clients", "ends"),
    [
        (socket.AF_INET, "127.0.0.9", ["127.0.0.9", "127.0.0.9"], ["127.0.0.9", "127.0.0.9"]),
        (socket.AF_INET6, "::1", ["::1"], ["::1"]),
        (socket.AF_INET6, "::", ["::1", "127.0.0.10"], ["127.0.0.10", "::1"]),
    ],
)
def test_each_connection_is_identified_by_its_local_address(
    family: socket.AddressFamily, bound: str, clients: list[str], ends: list[str]
) -> None:
    """IPv4 on an IPv6 socket included; listening sockets and the clients' own ends are not."""
    with ExitStack() as stack:
        server = stack.enter_context(
            socket.create_server((bound, 0), family=family, dualstack_ipv6=family == socket.AF_INET6)
        )
        port = server.getsockname()[1]
        for client in clients:
            stack.enter_context(socket.create_connection((client, port), timeout=5))

        found = [end.local[0] for end in server_ends(port)]

    assert sorted(found, key=str) == [ipaddress.ip_address(end) for end in ends]


def test_an_ended_connection_is_not_reported_again() -> None:
    with socket.create_server(("127.0.0.9", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.9", port), timeout=5):
            accepted, _address = server.accept()
            accepted.close()

        assert server_ends(port) == []


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A service that takes connections and never answers."""
    with socket.create_server(("127.0.0.9", 0)) as server:
        yield server


def connected(server: socket.socket) -> int:
    return len(server_ends(server.getsockname()[1]))


def clients(server: socket.socket) -> int:
    return host_connections(server.getsockname()[1], "127.0.0.9")


def test_a_client_that_waits_for_an_answer_counts_also_when_it_has_said_all_that_it_will(silent: socket.socket) -> None:
    """Half-closed is not gone; closed is, though the service has not noticed yet."""
    with socket.create_connection(silent.getsockname(), timeout=5) as client:
        wait_until(lambda: connected(silent) == 1, 5, "it is connected")
        assert clients(silent) == 1
        client.shutdown(socket.SHUT_WR)
        assert clients(silent) == 1

    assert (connected(silent), clients(silent)) == (1, 0)


def test_another_address_and_another_port_do_not_count(silent: socket.socket) -> None:
    port = silent.getsockname()[1]
    with socket.create_connection(silent.getsockname(), timeout=5):
        wait_until(lambda: connected(silent) == 1, 5, "it is connected")

        assert host_connections(port) == host_connections(port, "0.0.0.0") == 1
        assert host_connections(port, "127.0.0.10") == host_connections(port + 1) == 0


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_consuls_own_checks_are_no_clients(host: ConsulHost, silent: socket.socket, kind: str) -> None:
    """Neither while they wait for an answer, nor after they gave up; a client beside them counts."""
    address, port = silent.getsockname()
    where = f"http://{address}:{port}/" if kind == "http" else f"{address}:{port}"
    check = {"CheckID": f"silent-{kind}", "Name": "silent", kind: where, "Interval": "300ms", "Timeout": "200ms"}
    host.ask.put("/v1/agent/check/register", {"ID": check.pop("CheckID"), **check})
    seen: set[int] = set()

    def is_asked_again() -> bool:
        seen.add(clients(silent))
        return connected(silent) >= 3

    wait_until(is_asked_again, 30, "three checks have been waiting")
    with socket.create_connection((address, port), timeout=5):
        beside = clients(silent)
    host.ask.deregister_check(f"silent-{kind}")

    assert seen == {0}
    assert beside == 1
