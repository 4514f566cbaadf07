"""How many clients are connected to a port of this machine, for services in its own network namespace.

For connections from the machine itself, the other end is visible too. Two sorts of them are not clients: those of the
Consul agent, which keeps checking an instance during its drain, and those that no process holds any more, such as a
check's that timed out while the instance did not answer.
"""

from collections.abc import Collection
from pathlib import Path

from agent.engine.sockets import CLOSE_WAIT, SocketEnd, client_ends, count, server_ends
from agent.errors import ConnectionsUnknown

CONSUL = "consul"
"""The name of the Consul agent's process."""


def host_connections(port: int, address: str | None = None, proc: Path = Path("/proc")) -> int:
    """Return how many clients are connected.

    ``address``: the local address to count; None or an unspecified one counts all. ``proc``: where this machine's
    process table is mounted. Raise `ConnectionsUnknown` if the kernel or the process table cannot be read.
    """
    clients = _clients(port, proc)
    if any(_is_from_here(end) for end in clients):
        # A check may begin or end between two answers of the kernel, but does not look like a client twice.
        again = {(end.local, end.remote) for end in _clients(port, proc)}
        clients = [end for end in clients if (end.local, end.remote) in again]
    return count((end.local[0] for end in clients), address)


def _clients(port: int, proc: Path) -> list[SocketEnd]:
    ends = server_ends(port)
    if not any(_is_from_here(end) for end in ends):
        return ends
    peers = {(end.local, end.remote): end for end in client_ends(port)}
    checking = sockets_of(CONSUL, proc)
    return [end for end in ends if is_client(end, peers.get((end.remote, end.local)), checking)]


def is_client(end: SocketEnd, peer: SocketEnd | None, checking: Collection[int]) -> bool:
    """True if a client waits for an answer there. ``peer``: the other end, if seen; ``checking``: Consul's inodes."""
    if peer is not None:
        return peer.inode != 0 and peer.inode not in checking
    return not (_is_from_here(end) and end.state == CLOSE_WAIT)


def _is_from_here(end: SocketEnd) -> bool:
    return end.remote[0].is_loopback or end.remote[0] == end.local[0]


def sockets_of(name: str, proc: Path) -> frozenset[int]:
    """Return the inodes of all sockets of the processes of that name, as far as they may be read."""
    found: set[int] = set()
    try:
        processes = list(proc.iterdir())
    except OSError as error:
        raise ConnectionsUnknown(
            f"cannot distinguish clients from the Consul agent: {proc} cannot be read ({error}). "
            "Set drain.connections to false"
        ) from error
    for process in processes:
        if not process.name.isdigit():
            continue
        try:
            if (process / "comm").read_bytes().rstrip(b"\n") != name.encode():
                continue
            links = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:  # it has ended meanwhile, or belongs to another user
            continue
        found.update(int(link[8:-1]) for link in links if link.startswith("socket:["))
    return frozenset(found)
