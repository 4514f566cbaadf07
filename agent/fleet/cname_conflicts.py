"""``svcagent/<service>/cname/<record>/<node>``: a CNAME that a host wants but cannot have. Only that host writes it.

The zone has another record of the same generation. Its publishers learn of the conflict by this claim.
"""

from dataclasses import field
from datetime import datetime

from agent.consul import Consul, KvPair
from agent.data import dataclass
from agent.fleet.document import MOMENT, REQUIRED_PROSE, Document, Unreadable, key, quoted, unquoted

FOLDER = "cname"


@dataclass(frozen=True)
class ConflictClaim(Document):
    """What a host wants, in the marker's format, and when it last repeated the claim."""

    node: str
    wants: str = field(metadata=REQUIRED_PROSE)
    at: datetime = field(metadata=MOMENT)


def write(consul: Consul, service: str, record: str, claim: ConflictClaim) -> None:
    """Publish a claim. ``record`` is the record's fully qualified name."""
    consul.kv_put(key(service, FOLDER, part_of(record), quoted(claim.node)), claim.encode())


def clear(consul: Consul, service: str, record: str, node: str) -> None:
    consul.kv_delete(key(service, FOLDER, part_of(record), quoted(node)))


def read_all(consul: Consul, service: str, record: str) -> tuple[ConflictClaim, ...]:
    """Return every host's claim, sorted by node, read from the leader. Unreadable claims are left out."""
    pairs = consul.kv_tree(key(service, FOLDER, part_of(record), ""), consistent=True)[1]
    return tuple(claim for pair in pairs if (claim := parse(pair)) is not None)


def parse(pair: KvPair) -> ConflictClaim | None:
    """Return the claim in a key; None if it is unreadable."""
    try:
        return ConflictClaim.decode(pair.value, node=unquoted(pair.key.rpartition("/")[2]))
    except Unreadable:
        return None


def part_of(record: str) -> str:
    """Return a record's name as a part of a key."""
    return record.replace("*", "_wildcard").rstrip(".")
