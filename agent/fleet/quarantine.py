"""``svcagent/<service>/quarantine/sha256-<hex>``: an image that failed on one host. No host takes it until cleared.

If two hosts find the same image broken at the same time, the first entry stays. An unreadable entry counts. Earlier
releases wrote ``quarantine/sha256:<hex>``, which some Consul releases refuse; those entries still count.
"""

from collections.abc import Iterator
from dataclasses import field
from datetime import datetime

from agent.consul import Consul, KvOperation, KvPair
from agent.data import dataclass
from agent.fleet.document import (
    LOG,
    MOMENT,
    NAME,
    OPTIONAL_NAME,
    Document,
    Unreadable,
    is_digest,
    key,
    readable_keys,
    unquoted,
)

FOLDER = "quarantine"


@dataclass(frozen=True)
class Quarantine(Document):
    """Which digest failed where, when and why, its image, and the last lines of its container's log.

    For an unreadable document, ``node`` is empty, ``since`` is None, and ``why`` is the reason.
    """

    digest: str
    node: str = field(metadata=NAME)
    since: datetime | None = field(metadata=MOMENT)
    why: str = field(metadata=LOG)
    image: str = field(default="", metadata=OPTIONAL_NAME)
    log: str = field(default="", metadata=LOG)


def place(service: str, digest: str) -> str:
    return key(service, FOLDER, digest.replace(":", "-"))


def find(consul: Consul, service: str, digest: str) -> Quarantine | None:
    """Return the entry of one digest, read from the leader; None if it is not quarantined."""
    return read_all(consul, service).get(digest)


def put(consul: Consul, service: str, entry: Quarantine) -> Quarantine:
    """Write an entry unless the digest has one. Return the resulting entry."""
    text = entry.encode(digest=entry.digest)
    while (there := find(consul, service, entry.digest)) is None:
        if consul.kv_put(place(service, entry.digest), text, cas=0):
            return entry
    return there


def read_all(consul: Consul, service: str) -> dict[str, Quarantine]:
    """Return every entry of a service by digest, read from the leader."""
    return parse_all(tuple(_pairs(consul, service)))


def clear(consul: Consul, service: str, digest: str) -> Quarantine | None:
    """Remove a digest's entry and return it; None if there was none.

    A transaction is used because Consul 1.21.5 refuses to DELETE an earlier release's key.
    """
    removed: Quarantine | None = None
    while pairs := [pair for pair in _pairs(consul, service) if parse(pair).digest == digest]:
        for pair in pairs:
            if consul.kv_transaction(KvOperation("delete-cas", pair.key, index=pair.modify_index)):
                removed = removed or parse(pair)
    return removed


def parse_all(pairs: tuple[KvPair, ...]) -> dict[str, Quarantine]:
    return {entry.digest: entry for entry in map(parse, pairs)}


def parse(pair: KvPair) -> Quarantine:
    """Return the entry in a key. The digest is taken from the key alone."""
    name = unquoted(pair.key.rpartition("/")[2])
    digest = name.replace("sha256-", "sha256:", 1)
    try:
        if not is_digest(digest):
            raise Unreadable("its key does not end in sha256- and 64 hexadecimal digits")  # noqa: TRY301 - one handler
        return Quarantine.decode(pair.value, digest=digest)
    except Unreadable as error:
        return Quarantine(digest, "", None, f"the entry {pair.key} cannot be read: {error}")


def _pairs(consul: Consul, service: str) -> Iterator[KvPair]:
    # Reversed, so that of two entries for one digest the one under the current key is kept.
    for prefix in reversed(readable_keys(service, FOLDER, "")):
        yield from consul.kv_tree(prefix, consistent=True)[1]
