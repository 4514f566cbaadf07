"""This machine's TCP connections, read from the kernel by sock_diag(7), as ``ss`` does.

``/proc/net/tcp`` has the same data, but on a busy host also tens of thousands of rows in TIME_WAIT, which take a tenth
of a second to read. With sock_diag, the kernel omits them.
"""

import ipaddress
import socket
import struct
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from agent.data import dataclass
from agent.errors import ConnectionsUnknown

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CLOSE_WAIT = 8
LISTEN = 10
COUNTED_STATES = (1, 3, CLOSE_WAIT)
"""ESTABLISHED, SYN_RECV and CLOSE_WAIT (include/net/tcp_states.h): a client that still expects an answer."""
CLIENT_STATES = (1, 2, 4, 5)
"""The states of such a client's own end: ESTABLISHED, SYN_SENT, FIN_WAIT1 and FIN_WAIT2."""

_TABLES = Path("/proc/net")
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_DONE, _ERROR = 3, 2
_HEADER = struct.Struct("=IHHII")
_BUFFER = 1 << 16


def count(ends: Iterable[Address], address: str | None = None) -> int:
    """Return how many of these local ends are on ``address``; None or an unspecified address counts all."""
    only = ipaddress.ip_address(address) if address else None
    if only is None or only.is_unspecified:
        return sum(1 for _ in ends)
    return sum(end == only for end in ends)


@dataclass(frozen=True)
class SocketEnd:
    """One end of a connection. ``inode`` identifies its socket; 0 if no process holds it any more."""

    state: int
    local: tuple[Address, int]
    remote: tuple[Address, int]
    inode: int


def server_ends(port: int) -> list[SocketEnd]:
    """Return the servers' ends of the connections to a local TCP port. Raise `ConnectionsUnknown`."""
    return _dump(COUNTED_STATES, struct.pack("!HH", port, 0))


def client_ends(port: int) -> list[SocketEnd]:
    """Return the clients' ends, on this machine, of connections to that port anywhere. Raise `ConnectionsUnknown`."""
    return _dump(CLIENT_STATES, struct.pack("!HH", 0, port))


def _dump(states: Collection[int], ports: bytes) -> list[SocketEnd]:
    try:
        return _ask_kernel(states, ports)
    except OSError as refused:  # seccomp (RestrictAddressFamilies), a missing kernel module, …
        try:
            return _read_tables(states, *struct.unpack("!HH", ports))
        except OSError as error:
            raise ConnectionsUnknown(
                f"cannot count connections: the kernel refuses sock_diag ({refused}), and {_TABLES} cannot be read "
                f"({error}). Allow AF_NETLINK (systemd: RestrictAddressFamilies=), or set drain.connections to false"
            ) from error


def _ask_kernel(states: Collection[int], ports: bytes) -> list[SocketEnd]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(5)
        return [end for family in (socket.AF_INET, socket.AF_INET6) for end in _answers(netlink, family, states, ports)]


def _read_tables(states: Collection[int], local: int, remote: int) -> list[SocketEnd]:
    """Read ``/proc/net/tcp`` and ``tcp6`` (Documentation/networking/proc_net_tcp.rst); port 0 means any."""
    found = []
    for table in ("tcp", "tcp6"):
        try:
            rows = (_TABLES / table).read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:
            if table == "tcp":
                raise
            continue  # a machine without IPv6
        ends = (_row(row.split()) for row in rows)
        found += [
            end for end in ends if end.state in states and local in (0, end.local[1]) and remote in (0, end.remote[1])
        ]
    return found


def _row(fields: list[str]) -> SocketEnd:
    return SocketEnd(int(fields[3], 16), _table_end(fields[1]), _table_end(fields[2]), int(fields[9]))


def _table_end(text: str) -> tuple[Address, int]:
    address, _, port = text.partition(":")
    return table_address(address), int(port, 16)


def table_address(text: str) -> Address:
    """Parse an address of ``/proc/net/tcp``: 32-bit words in the machine's byte order."""
    words = [bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8)]
    raw = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return _address(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def _answers(netlink: socket.socket, family: int, states: Collection[int], ports: bytes) -> Iterator[SocketEnd]:
    mask = sum(1 << state for state in states)
    # struct inet_diag_req_v2; its sockid has only the ports, source and destination, in network order.
    body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, mask) + ports + bytes(44)
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
            yield _end(messages[_HEADER.size : length])
            messages = messages[(length + 3) & ~3 :]


def _end(message: memoryview) -> SocketEnd:
    """Parse a ``struct inet_diag_msg``."""
    source, destination = struct.unpack_from("!HH", message, 4)
    return SocketEnd(
        state=message[1],
        local=(_address(message[0], bytes(message[8:24])), source),
        remote=(_address(message[0], bytes(message[24:40])), destination),
        inode=struct.unpack_from("=I", message, 68)[0],
    )


def _address(family: int, raw: bytes) -> Address:
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(raw[:4])
    address = ipaddress.IPv6Address(raw)
    return address.ipv4_mapped or address
