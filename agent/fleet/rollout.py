"""``svcagent/<service>/rollout``: the pin, the digest that the fleet takes even if its tag moves meanwhile.

The first host that finds a newer digest pins it by check-and-set. `agree` decides which digest a host takes.
"""

import shlex
from contextlib import suppress
from dataclasses import field
from datetime import datetime

from agent.consul import Consul, KvPair
from agent.data import dataclass
from agent.errors import Conflict
from agent.fleet.document import DIGEST, MOMENT, NAME, Document, Unreadable, fields_of, key

FOLDER = "rollout"


@dataclass(frozen=True)
class Pin(Document):
    """Image (name and tag), the digest that it stood for, the host that found it, and when.

    The pin can be derived from the tag again. So an unreadable pin, or one with an invalid digest, is never followed
    and may be replaced: ``problem`` is the reason, ``digest`` is empty, and ``node`` is the writer if readable.
    """

    image: str = field(metadata=NAME)
    digest: str = field(metadata=DIGEST)
    node: str = field(metadata=NAME)
    since: datetime | None = field(metadata=MOMENT)
    problem: str = ""


def find(consul: Consul, service: str) -> tuple[Pin | None, int]:
    """Return the pin, read from the leader, and the index for check-and-set: 0 if there is none."""
    _index, pair = consul.kv_get(key(service, FOLDER), consistent=True)
    return (None, 0) if pair is None else (parse(pair), pair.modify_index)


def pin(consul: Consul, service: str, wanted: Pin, index: int) -> Pin:
    """Write the pin if it is unchanged since ``index`` (of `find`). Return the pin that results.

    :raises Conflict: another process removed it at the same moment.
    """
    if consul.kv_put(key(service, FOLDER), wanted.encode(), cas=index):
        return wanted
    there, _index = find(consul, service)
    if there is None:
        raise Conflict(
            f"another process removed {key(service, FOLDER)} from Consul KV at the same moment; try again",
            kind="document-changed",
        )
    return there


def parse(pair: KvPair) -> Pin:
    try:
        return Pin.decode(pair.value)
    except Unreadable as error:
        node = ""
        with suppress(Unreadable):
            node = NAME["kind"].find(fields_of(pair.value), "node")
        writer = f"; {node} wrote it" if node else ""
        return Pin("", "", node, None, f"the document {pair.key} cannot be read: {error}{writer}")


def untrusted(service: str, image: str, pinned: Pin, node: str) -> str:
    """Return why this host does not follow a pin, who wrote it, and what an operator can do."""
    where = key(service, FOLDER)
    since = f" at {pinned.since:%Y-%m-%dT%H:%M:%SZ}" if pinned.since else ""
    return (
        f"{where} in Consul KV, written by {pinned.node}{since}, pins {pinned.digest}, but {image} does not point to "
        f"that digest now, and {node} has never seen it under that tag or run it. {node} does not take it. To remove "
        f"a wrong pin: {shlex.join(['consul', 'kv', 'delete', where])}. To take what the tag points to now: "
        f"{shlex.join(['svcagent', 'reload', service, '--force'])}. To let everyone with write access to Consul KV "
        "deploy, set trust_pins = true under [fleet] in svcagent.toml"
    )
