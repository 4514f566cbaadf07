"""The kernel's own answer to who is connected."""

import ipaddress
import socket
from contextlib import ExitStack

import pytest

from agent.engine.sockets import local_ends


@pytest.mark.parametrize(
    ("family", "bound", "clients", "ends"),
    [
        (socket.AF_INET, "127.0.0.9", ["127.0.0.9", "127.0.0.9"], ["127.0.0.9", "127.0.0.9"]),
        (socket.AF_INET6, "::1", ["::1"], ["::1"]),
        (socket.AF_INET6, "::", ["::1", "127.0.0.10"], ["127.0.0.10", "::1"]),
    ],
)
def test_each_connection_is_told_by_its_local_end(
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

        found = local_ends(port)

    assert sorted(found, key=str) == [ipaddress.ip_address(end) for end in ends]


def test_a_connection_that_has_ended_is_told_no_more() -> None:
    """TIME_WAIT is nobody's request."""
    with socket.create_server(("127.0.0.9", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.9", port), timeout=5):
            accepted, _address = server.accept()
            accepted.close()

        assert local_ends(port) == []
