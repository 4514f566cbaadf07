"""``svcagent/<service>/cname/<record>/<node>``: a CNAME that a host wants but cannot have. Only that host writes it.

The zone has another record of the same generation. Its publishers learn of the conflict by this claim.
"""

from datetime import datetime

from agent.consul import Consul, KvPair
from agent.data import dataclass
from agent.fleet.document import Fields, Unreadable, encode, key, quoted, unquoted

ROOM = "cname"


@dataclass(frozen=True)
class Claim:
    """What a host wants, in the marker's format, and when it last repeated the claim."""

    node: str
    wants: str
    at: datetime


def write(consul: Consul, service: str, record: str, claim: Claim) -> None:
    """Publish a claim. ``record`` is the record's fully qualified name."""
    consul.kv_put(key(service, ROOM, part_of(record), quoted(claim.node)), encode(wants=claim.wants, at=claim.at))


def clear(consul: Consul, service: str, record: str, node: str) -> None:
    consul.kv_delete(key(service, ROOM, part_of(record), quoted(node)))


def read_all(consul: Consul, service: str, record: str) -> tuple[Claim, ...]:
    """Return every host's claim, sorted by node, read from the leader. Unreadable claims are left out."""
    pairs = consul.kv_tree(key(service, ROOM, part_of(record), ""), consistent=True)[1]
    return tuple(claim for pair in pairs if (claim := parse(pair)) is not None)


def parse(pair: KvPair) -> Claim | None:
    """Return the claim in a key; None if it is unreadable."""
    try:
        fields = Fields.of(pair)
        return Claim(unquoted(pair.key.rpartition("/")[2]), _wants(fields), fields.moment("at"))
    except Unreadable:
        return None


def _wants(fields: Fields) -> str:
    if not (found := fields.prose("wants")):
        raise Unreadable("it has no wants")
    return found


def part_of(record: str) -> str:
    """Return a record's name as a part of a key."""
    return record.replace("*", "_wildcard").rstrip(".")
