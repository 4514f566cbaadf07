"""``svcagent/<service>/notified``, and ``…/notified/<record>`` for a CNAME: the notifications that any host has sent.

Whoever notes a notice here, by check-and-set, is the one who tells it; so the fleet tells it once. A host that dies
between noting and telling loses it: at most once, never twice.
"""

import shlex
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from agent.consul import Consul
from agent.errors import SvcagentError
from agent.fleet.claim import part_of
from agent.fleet.document import Fields, Unreadable, encode, key

ROOM = "notified"
ATTEMPTS = 10

T = TypeVar("T")

Decide: TypeAlias = Callable[[frozenset[str]], tuple[tuple[T, ...], frozenset[str]]]
"""From the keys of the sent notices: the notices to send now, and the keys of all that are sent then."""


def place(service: str, record: str = "") -> str:
    """Return the key of the document. ``record``: a CNAME's complete name."""
    return key(service, ROOM, part_of(record)) if record else key(service, ROOM)


def find(consul: Consul, where: str) -> tuple[frozenset[str], int]:
    """Return the keys of the sent notices, read from the leader, and the index to replace them by.

    :raises SvcagentError: the document cannot be read. Nothing is told then: two versions of svcagent that replaced
        each other's documents would send everything again and again.
    """
    _index, pair = consul.kv_get(where, consistent=True)
    if pair is None:
        return frozenset(), 0
    try:
        return Fields.of(pair).texts("told"), pair.modify_index
    except Unreadable as error:
        raise SvcagentError(
            f"the list of sent notifications, {where} in Consul KV, cannot be read: {error}. If no svcagent of the "
            f"fleet is newer than this one: {shlex.join(['consul', 'kv', 'delete', where])}"
        ) from error


def take(consul: Consul, where: str, decide: Decide[T]) -> tuple[T, ...]:
    """Decide which notices to send, and note them. Return those that this host sends: none where another was first.

    :raises OutcomeUnknown: it is unknown whether they are noted, so no host sends them.
    """
    for _attempt in range(ATTEMPTS):
        told, index = find(consul, where)
        chosen, after = decide(told)
        if after == told or consul.kv_put(where, encode(told=sorted(after)), cas=index):
            return chosen
    return ()
