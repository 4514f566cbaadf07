"""This machine's TCP connections, asked of the kernel by sock_diag(7), as ``ss`` does.

``/proc/net/tcp`` says the same, but a busy host has tens of thousands of rows in TIME_WAIT there, and reading them
takes a tenth of a second; here the kernel itself passes them over.
"""

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

COUNTED_STATES = (1, 3, 8)
"""ESTABLISHED, SYN_RECV and CLOSE_WAIT (include/net/tcp_states.h): a client that still expects an answer."""

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_DONE, _ERROR = 3, 2
_HEADER = struct.Struct("=IHHII")
_BUFFER = 1 << 16


def host_connections(port: int, address: str | None = None) -> int:
    """How many clients are connected to a port of this machine, for services outside containers.

    ``address``: the local address to count; None or an unspecified one counts all. Raises `OSError` as `local_ends`.
    """
    return count(local_ends(port), address)


def count(ends: Iterable[Address], address: str | None = None) -> int:
    """How many of these local ends are on ``address``; all of them where that is none in particular."""
    only = ipaddress.ip_address(address) if address else None
    if only is None or only.is_unspecified:
        return sum(1 for _ in ends)
    return sum(end == only for end in ends)


def local_ends(port: int) -> list[Address]:
    """The local address of each connection to a local TCP port. Raises `OSError` where the kernel does not tell."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(5)
        return [end for family in (socket.AF_INET, socket.AF_INET6) for end in _asked(netlink, family, port)]


def _asked(netlink: socket.socket, family: int, port: int) -> Iterator[Address]:
    states = sum(1 << state for state in COUNTED_STATES)
    # struct inet_diag_req_v2, its sockid with the source port alone, in network order.
    body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, states) + struct.pack("!H46x", port)
    header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0)
    netlink.send(header + body)
    while True:
        messages = memoryview(netlink.recv(_BUFFER))
        while messages:
            length, kind, *_ = _HEADER.unpack_from(messages)
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise OSError(-struct.unpack_from("=i", messages, _HEADER.size)[0], "sock_diag refused")
            yield _source(messages[_HEADER.size : length])
            messages = messages[(length + 3) & ~3 :]


def _source(message: memoryview) -> Address:
    """The source address of a ``struct inet_diag_msg``; IPv4 inside IPv6 is given as IPv4."""
    family, raw = message[0], bytes(message[8:24])
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(raw[:4])
    address = ipaddress.IPv6Address(raw)
    return address.ipv4_mapped or address
