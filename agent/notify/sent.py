"""``svcagent/<service>/notified``, and ``…/notified/<record>`` for a CNAME: the notices that any host has sent.

The host that records a notice here by check-and-set sends it, so the fleet sends it once. If that host crashes in
between, the notice is lost: at most once, never twice.
"""

import importlib.util
import shlex
from collections.abc import Callable
from dataclasses import field
from typing import TypeAlias

from agent.consul import Consul
from agent.data import dataclass
from agent.errors import SvcagentError
from agent.fleet.cname_conflicts import part_of
from agent.fleet.document import TEXTS, Document, Unreadable, key, stored_as
from agent.notify.endpoints import MISSING
from agent.notify.notices import Notice

FOLDER = "notified"
ATTEMPTS = 10

Decide: TypeAlias = Callable[[frozenset[str]], tuple[tuple[Notice, ...], frozenset[str]]]
"""Takes the keys of the sent notices. Returns the notices to send now, and the keys of all that are then sent."""


@dataclass(frozen=True)
class SentNotices(Document):
    keys: frozenset[str] = field(default=frozenset(), metadata=stored_as("told", TEXTS))


def place(service: str, record: str = "") -> str:
    """Return the document's key. ``record`` is a CNAME's fully qualified name."""
    return key(service, FOLDER, part_of(record)) if record else key(service, FOLDER)


def find(consul: Consul, where: str) -> tuple[frozenset[str], int]:
    """Return the keys of the sent notices, read from the leader, and the index for check-and-set.

    :raises SvcagentError: the document is unreadable. Nothing is sent then: two versions of svcagent that replaced each
        other's documents would send everything repeatedly.
    """
    _index, pair = consul.kv_get(where, consistent=True)
    if pair is None:
        return frozenset(), 0
    try:
        return SentNotices.decode(pair.value).keys, pair.modify_index
    except Unreadable as error:
        raise SvcagentError(
            f"the list of sent notifications, {where} in Consul KV, cannot be read: {error}. If no host runs a "
            f"newer svcagent, run: {shlex.join(['consul', 'kv', 'delete', where])}",
            kind="document-unreadable",
        ) from error


def take(consul: Consul, where: str, decide: Decide) -> tuple[Notice, ...]:
    """Decide which notices to send, and record them. Return those that this host sends: none if another was first.

    :raises OutcomeUnknown: it is unknown whether they are recorded, so no host sends them.
    :raises SvcagentError: this host cannot send, because Apprise is not installed; another host may be able to.
    """
    for _attempt in range(ATTEMPTS):
        keys, index = find(consul, where)
        chosen, after = decide(keys)
        if chosen and importlib.util.find_spec("apprise") is None:
            raise SvcagentError(f"{MISSING}. Or remove urls from [notify]", kind="apprise-missing")
        if after == keys or consul.kv_put(where, SentNotices(after).encode(), cas=index):
            return chosen
    return ()
