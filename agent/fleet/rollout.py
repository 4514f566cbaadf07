"""``svcagent/<service>/rollout``: the pin, the digest that the fleet takes though its tag moves meanwhile.

The first host that finds a newer digest pins it by check-and-set. What a host takes is decided in `agree`.
"""

from dataclasses import dataclass
from datetime import datetime

from agent.consul import Consul, KvPair
from agent.errors import Conflict
from agent.fleet.document import Fields, Unreadable, encode, key

ROOM = "rollout"


@dataclass(frozen=True)
class Pin:
    """Image (name and tag), the digest that it stood for, which host found it, and when.

    A pin is a hint by which hosts agree, so one that cannot be read may be replaced: ``problem`` says why then, and
    there is no digest. A newer svcagent reads the pin of an older one.
    """

    image: str
    digest: str
    node: str
    since: datetime | None
    problem: str = ""


def find(consul: Consul, service: str) -> tuple[Pin | None, int]:
    """The pin, read from the leader, and the index to replace it by: 0 when there is none."""
    _index, pair = consul.kv_get(key(service, ROOM), consistent=True)
    return (None, 0) if pair is None else (parse(pair), pair.modify_index)


def pin(consul: Consul, service: str, wanted: Pin, index: int) -> Pin:
    """Write it, if nobody has since ``index`` (of `find`); what stands there afterwards: another's if it was first.

    :raises Conflict: somebody took it away at the same moment.
    """
    text = encode(image=wanted.image, digest=wanted.digest, node=wanted.node, since=wanted.since)
    if consul.kv_put(key(service, ROOM), text, cas=index):
        return wanted
    there, _index = find(consul, service)
    if there is None:
        raise Conflict(f"somebody removed {key(service, ROOM)} from Consul KV at the same moment; try again")
    return there


def parse(pair: KvPair) -> Pin:
    """The pin that a key holds."""
    try:
        fields = Fields.of(pair)
        return Pin(fields.text("image"), fields.text("digest"), fields.text("node"), fields.moment("since"))
    except Unreadable as error:
        return Pin("", "", "", None, f"the document {pair.key} cannot be read: {error}")
