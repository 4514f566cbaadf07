"""``svcagent/<service>/quarantine/<digest>``: an image that failed on one host. No host takes it until it is cleared.

Two hosts may find the same image broken at once: the first entry stays. One that cannot be read counts as set.
"""

from dataclasses import dataclass
from datetime import datetime

from agent.consul import Consul, KvPair
from agent.fleet.document import LOG_BYTES, Fields, Unreadable, bounded, encode, key

ROOM = "quarantine"


@dataclass(frozen=True)
class Quarantine:
    """Which digest failed where, when, on what, and the last lines that its container printed.

    ``node`` is empty and ``since`` None where the document cannot be read; ``why`` says so then.
    """

    digest: str
    node: str
    since: datetime | None
    why: str
    image: str = ""
    log: str = ""


def find(consul: Consul, service: str, digest: str) -> Quarantine | None:
    """The entry of one digest, read from the leader; None when it is free."""
    _index, pair = consul.kv_get(key(service, ROOM, digest), consistent=True)
    return None if pair is None else parse(pair)


def put(consul: Consul, service: str, entry: Quarantine) -> Quarantine:
    """Set it, unless there is one already; the entry that stands afterwards."""
    where = key(service, ROOM, entry.digest)
    text = encode(
        digest=entry.digest,
        node=entry.node,
        since=entry.since,
        why=bounded(entry.why, LOG_BYTES),
        image=entry.image,
        log=bounded(entry.log, LOG_BYTES),
    )
    while not consul.kv_put(where, text, cas=0):
        if (there := find(consul, service, entry.digest)) is not None:
            return there
    return entry


def read_all(consul: Consul, service: str) -> dict[str, Quarantine]:
    """Every entry of a service by digest."""
    return parse_all(consul.kv_tree(key(service, ROOM, ""), consistent=True)[1])


def clear(consul: Consul, service: str, digest: str) -> Quarantine | None:
    """Let hosts take it again; the entry that was there, None when there was none."""
    where = key(service, ROOM, digest)
    while True:
        _index, pair = consul.kv_get(where, consistent=True)
        if pair is None:
            return None
        if consul.kv_delete(where, cas=pair.modify_index):
            return parse(pair)


def parse_all(pairs: tuple[KvPair, ...]) -> dict[str, Quarantine]:
    """Entries by digest."""
    return {entry.digest: entry for entry in map(parse, pairs)}


def parse(pair: KvPair) -> Quarantine:
    """The entry of a key; the key alone says which digest."""
    digest = pair.key.rpartition("/")[2]
    try:
        fields = Fields.of(pair)
        return Quarantine(
            digest,
            fields.text("node"),
            fields.moment("since"),
            fields.text_or_empty("why"),
            fields.text_or_empty("image"),
            fields.text_or_empty("log"),
        )
    except Unreadable as error:
        return Quarantine(digest, "", None, f"the entry {pair.key} cannot be read: {error}")
