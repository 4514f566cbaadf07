"""Counting connections in the kernel's tables."""

import sys
from ipaddress import ip_address

import pytest

from agent.engine.connections import container_ports, forwarded_ports, has_listener, in_table
from agent.engine.host_clients import is_client
from agent.engine.sockets import SocketEnd, count

pytestmark = pytest.mark.skipif(
    sys.byteorder != "little", reason="the tables below were taken on a little-endian machine"
)

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
REST = "00000000:00000000 00:00000000 00000000     0        0 1 1 0000000000000000 20 4 30 10 -1"


def table(*rows: str) -> str:
    return HEAD + "".join(f"  {at}: {row} {REST}\n" for at, row in enumerate(rows))


# 127.0.0.2:8080, seen from the server and, with both ends swapped, from the client.
SERVER = "0200007F:1F90 0100007F:C350 {}"
CLIENT = "0100007F:C350 0200007F:1F90 01"
# ::ffff:127.0.0.2 and ::1.
MAPPED = "0000000000000000FFFF00000200007F:1F90 0000000000000000FFFF00000100007F:C351 01"
IPV6 = "00000000000000000000000001000000:1F90 00000000000000000000000001000000:C352 01"


@pytest.mark.parametrize("state", [f"{number:02X}" for number in range(1, 12)])
def test_only_states_in_which_a_client_expects_an_answer_count(state: str) -> None:
    assert len(in_table(table(SERVER.format(state)), [8080])) == (state in ("01", "03", "08"))


@pytest.mark.parametrize(
    ("lines", "ports", "expected"),
    [
        ((SERVER.format("01"), CLIENT), [8080], 1),
        ((SERVER.format("01"),), [80, 8081], 0),
        ((SERVER.format("01"), MAPPED, IPV6), [8080], 3),
    ],
    ids=["not the client's end", "no other port", "both address families"],
)
def test_connections_to_a_port_count(lines: tuple[str, ...], ports: list[int], expected: int) -> None:
    assert len(in_table(table(*lines), ports)) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [(None, 3), ("", 3), ("0.0.0.0", 3), ("::", 3), ("127.0.0.2", 2), ("127.0.0.3", 0), ("::1", 1)],
)
def test_an_address_narrows_the_count_unless_it_is_none_in_particular(address: str | None, expected: int) -> None:
    assert count(in_table(table(SERVER.format("01"), MAPPED, IPV6), [8080]), address) == expected


def test_an_empty_table_holds_no_connection() -> None:
    assert in_table(HEAD, [8080]) == in_table("", [8080]) == []


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        (None, {8080}),
        ({}, {8080}),
        ({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]}, {80}),
        ({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "9090"}], "8080/tcp": None}, {8080}),
        ({"53/udp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}, {8080}),
    ],
)
def test_a_published_port_is_looked_for_under_the_containers_own(ports: object, expected: set[int]) -> None:
    assert container_ports({"NetworkSettings": {"Ports": ports}}, 8080) == expected


HERE, AWAY = ("127.0.0.9", 8080), ("198.18.0.1", 4000)


def end(
    state: int, remote: tuple[str, int] = ("127.0.0.1", 4000), local: tuple[str, int] = HERE, inode: int = 1
) -> SocketEnd:
    return SocketEnd(state, (ip_address(local[0]), local[1]), (ip_address(remote[0]), remote[1]), inode)


@pytest.mark.parametrize(
    ("served", "peer", "expected"),
    [
        (end(1), end(1, HERE, inode=7), True),
        (end(8), end(5, HERE, inode=7), True),
        # Consul's own.
        (end(1), end(1, HERE, inode=99), False),
        (end(8), end(5, HERE, inode=99), False),
        # Nobody holds the other end any more, or it is no more.
        (end(8), end(5, HERE, inode=0), False),
        (end(1), end(4, HERE, inode=0), False),
        (end(8), None, False),
        (end(8, remote=(HERE[0], 4000)), None, False),
        # It may just have come, and of other machines nothing is known.
        (end(1), None, True),
        (end(1, AWAY), None, True),
        (end(8, AWAY), None, True),
    ],
)
def test_local_connections_count_if_the_end_waits(served: SocketEnd, peer: SocketEnd | None, expected: bool) -> None:
    assert is_client(served, peer, {99}) is expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("00000000:1F90 00000000:0000 0A", True),
        ("00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A", True),
        ("020011AC:1F90 00000000:0000 0A", True),
        ("0100007F:1F90 00000000:0000 0A", False),
        ("00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A", False),
        ("00000000:1F91 00000000:0000 0A", False),
        ("00000000:1F90 00000000:0000 01", False),
    ],
)
def test_a_listener_counts_where_a_forwarded_connection_would_reach_it(row: str, expected: bool) -> None:
    """Not on the namespace's own loopback, on another port, or in another state."""
    assert has_listener(table(row), [8080]) is expected


def test_a_port_is_forwarded_by_the_address_that_it_is_published_on() -> None:
    ports = {
        "8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}, {"HostIp": "::", "HostPort": "80"}],
        "9090/tcp": [{"HostIp": "10.0.0.1", "HostPort": "81"}],
        "53/udp": [{"HostIp": "", "HostPort": "82"}],
        "7070/tcp": None,
    }
    inspect = {"NetworkSettings": {"Ports": ports}}

    assert forwarded_ports(inspect, 80, "127.0.0.1") == forwarded_ports(inspect, 80, "::1") == {8080}
    assert forwarded_ports(inspect, 81, "10.0.0.1") == {9090}
    assert forwarded_ports(inspect, 81, "127.0.0.1") == frozenset()
    assert forwarded_ports(inspect, 82, "127.0.0.1") == frozenset()
    assert forwarded_ports({"NetworkSettings": {"Ports": None}}, 80, "127.0.0.1") == frozenset()
