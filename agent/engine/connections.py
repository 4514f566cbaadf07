"""Who is still connected to a port, from the text of ``/proc/<pid>/net/tcp`` and ``tcp6``. Pure.

Format: the kernel's Documentation/networking/proc_net_tcp.rst. Not by psutil: it reads its own network namespace only.
"""

import ipaddress
import sys
from collections.abc import Iterable, Iterator

from agent.engine.model import Inspect

_COUNTED = {"01", "03", "08"}
"""ESTABLISHED, SYN_RECV and CLOSE_WAIT (include/net/tcp_states.h): a client that still expects an answer."""


def count(tables: Iterable[str], ports: Iterable[int], address: str | None = None) -> int:
    """Connections whose local end is one of ``ports``, on ``address`` only if that is a concrete one."""
    wanted = frozenset(ports)
    only = ipaddress.ip_address(address) if address else None
    if only is not None and only.is_unspecified:
        only = None
    return sum(
        port in wanted and (only is None or local == only)
        for table in tables
        for local, port, state in _rows(table)
        if state in _COUNTED
    )


def container_ports(inspect: Inspect, port: int) -> frozenset[int]:
    """The ports inside the container that clients reach by ``port``: what is published under it, else itself."""
    published = inspect["NetworkSettings"].get("Ports") or {}
    inside = {
        int(inner.partition("/")[0])
        for inner, bindings in published.items()
        if inner.endswith("/tcp") and any(binding["HostPort"] == str(port) for binding in bindings or ())
    }
    return frozenset(inside or {port})


def _rows(table: str) -> Iterator[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int, str]]:
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 4:
            continue
        address, _, port = fields[1].partition(":")
        yield _address(address), int(port, 16), fields[3]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Addresses stand there as 32-bit words in the machine's own byte order; IPv4 inside IPv6 is given as IPv4."""
    raw = bytes.fromhex(text)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
