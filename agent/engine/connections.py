"""Which clients are connected to a port, for a container with its own network namespace. Pure.

The input is the text of ``/proc/<pid>/net/tcp`` and ``tcp6``; format: the kernel's
Documentation/networking/proc_net_tcp.rst. psutil reads its own network namespace only. For the machine's own namespace
see `sockets`.
"""

import ipaddress
import re
from collections.abc import Iterable

from agent.engine.model import Inspect
from agent.engine.sockets import COUNTED_STATES, LISTEN, Address, table_address


def in_table(table: str, ports: Iterable[int]) -> list[Address]:
    """Return the local ends of the connections to these ports. Of many rows, only those that count are parsed."""
    wanted = "|".join(f"{port:04X}" for port in ports)
    states = "|".join(f"{state:02X}" for state in COUNTED_STATES)
    return _local_ends(table, wanted, states)


def has_listener(table: str, ports: Iterable[int]) -> bool:
    """True if a socket listens on one of these ports, and not only for the namespace's own loopback."""
    wanted = "|".join(f"{port:04X}" for port in ports)
    return any(not address.is_loopback for address in _local_ends(table, wanted, f"{LISTEN:02X}"))


def forwarded_ports(inspect: Inspect, port: int, address: str) -> frozenset[int]:
    """Return the container's ports to which Docker forwards this address and port of the host."""
    wanted = ipaddress.ip_address(address)
    return frozenset(
        int(inner.partition("/")[0])
        for inner, bindings in (inspect["NetworkSettings"].get("Ports") or {}).items()
        if inner.endswith("/tcp")
        for binding in bindings or ()
        if binding.get("HostPort") == str(port) and _covers(binding.get("HostIp"), wanted)
    )


def _covers(bound: str | None, wanted: Address) -> bool:
    """True if the binding covers the address. One without an address covers all."""
    if not bound:
        return True
    address = ipaddress.ip_address(bound)
    return address.is_unspecified or address == wanted


def _local_ends(table: str, ports: str, states: str) -> list[Address]:
    row = rf"^ *\d+: ([0-9A-F]+):(?:{ports}) \S+ (?:{states}) "
    return [table_address(end) for end in re.findall(row, table, re.MULTILINE)]


def container_ports(inspect: Inspect, port: int) -> frozenset[int]:
    """Return the ports inside the container that clients reach by ``port``: those published under it, else itself."""
    published = (inspect.get("NetworkSettings") or {}).get("Ports") or {}
    inside = {
        int(inner.partition("/")[0])
        for inner, bindings in published.items()
        if re.fullmatch(r"[0-9]{1,5}/tcp", inner) and any(one.get("HostPort") == str(port) for one in bindings or ())
    }
    return frozenset(inside or {port})
