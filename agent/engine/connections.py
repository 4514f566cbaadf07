"""Who is still connected to a port, from the text of ``/proc/<pid>/net/tcp`` and ``tcp6``. Pure.

Format: the kernel's Documentation/networking/proc_net_tcp.rst. Not by psutil: it reads its own network namespace only.
"""

import ipaddress
import re
import sys
from collections.abc import Iterable

from agent.engine.model import Inspect

_COUNTED = "01|03|08"
"""ESTABLISHED, SYN_RECV and CLOSE_WAIT (include/net/tcp_states.h): a client that still expects an answer."""


def count(tables: Iterable[str], ports: Iterable[int], address: str | None = None) -> int:
    """Connections whose local end is one of ``ports``, on ``address`` only if that is a concrete one."""
    only = ipaddress.ip_address(address) if address else None
    if only is not None and only.is_unspecified:
        only = None
    wanted = frozenset(ports)
    return sum(only is None or _address(end) == only for table in tables for end in _local_ends(table, wanted))


def container_ports(inspect: Inspect, port: int) -> frozenset[int]:
    """The ports inside the container that clients reach by ``port``: what is published under it, else itself."""
    published = inspect["NetworkSettings"].get("Ports") or {}
    inside = {
        int(inner.partition("/")[0])
        for inner, bindings in published.items()
        if inner.endswith("/tcp") and any(binding["HostPort"] == str(port) for binding in bindings or ())
    }
    return frozenset(inside or {port})


def _local_ends(table: str, ports: Iterable[int]) -> list[str]:
    """The local addresses, as the kernel writes them, of connections that count. A busy host's table has tens of
    thousands of rows in TIME_WAIT: they are passed over without being taken apart."""
    wanted = "|".join(f"{port:04X}" for port in ports)
    return re.findall(rf"^ *\d+: ([0-9A-F]+):(?:{wanted}) \S+ (?:{_COUNTED}) ", table, re.MULTILINE)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Addresses stand there as 32-bit words in the machine's own byte order; IPv4 inside IPv6 is given as IPv4."""
    raw = bytes.fromhex(text)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
