"""``svcagent/<service>/cname/<record>/<node>``: a CNAME that a host wants and cannot have. Only that host writes it.

The zone holds another record of the same generation, and the hosts that published it would not know otherwise.
"""

from datetime import datetime

from agent.consul import Consul, KvPair
from agent.data import dataclass
from agent.fleet.document import Fields, Unreadable, encode, key, quoted, unquoted

ROOM = "cname"


@dataclass(frozen=True)
class Claim:
    """What a host wants, in the form of the marker, and when it last said so."""

    node: str
    wants: str
    at: datetime


def write(consul: Consul, service: str, record: str, claim: Claim) -> None:
    """Publish a claim. ``record``: the record's complete name."""
    consul.kv_put(key(service, ROOM, part_of(record), quoted(claim.node)), encode(wants=claim.wants, at=claim.at))


def clear(consul: Consul, service: str, record: str, node: str) -> None:
    """Remove a host's claim, if there is one."""
    consul.kv_delete(key(service, ROOM, part_of(record), quoted(node)))


def read_all(consul: Consul, service: str, record: str) -> tuple[Claim, ...]:
    """Return every host's claim in order of node, read from the leader. Unreadable ones are left out."""
    pairs = consul.kv_tree(key(service, ROOM, part_of(record), ""), consistent=True)[1]
    return tuple(claim for pair in pairs if (claim := parse(pair)) is not None)


def parse(pair: KvPair) -> Claim | None:
    """Return the claim of a key; None if it cannot be read."""
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
