"""``svcagent/<service>/pause``: an operator's stop for all reloads of a service, until it is resumed or expires.

An unreadable document counts as a pause, because an operator may have wanted to stop the fleet.
"""

from collections.abc import Callable, Iterable
from dataclasses import field, replace
from datetime import datetime

from agent.consul import Consul, KvPair
from agent.data import dataclass
from agent.errors import Conflict
from agent.fleet.document import MOMENT, NAME, OPTIONAL_MOMENT, PROSE, Document, Unreadable, key, readable_keys

FOLDER = "pause"


@dataclass(frozen=True)
class Pause(Document):
    """Who paused the reloads, on which host, why, since when and until when.

    For an unreadable document, ``by`` is empty, ``since`` is None, and ``why`` is the reason.
    """

    by: str = field(metadata=NAME)
    host: str = field(metadata=NAME)
    why: str = field(metadata=PROSE)
    since: datetime | None = field(metadata=MOMENT)
    until: datetime | None = field(default=None, metadata=OPTIONAL_MOMENT)

    def is_over(self, now: datetime) -> bool:
        """True if the pause has expired. It then counts as not set."""
        return self.until is not None and self.until <= now

    def has_same_cause(self, other: "Pause") -> bool:
        """True if the same operator set both for the same reason."""
        return bool(self.by) and (self.by, self.host, self.why) == (other.by, other.host, other.why)

    def describe(self, show: Callable[[datetime], str] = lambda moment: moment.isoformat(timespec="seconds")) -> str:
        """Return owner, times and reason for a message. ``show`` formats the times."""
        who = f"{self.by} on {self.host}" if self.by else "an unknown owner"
        since = f" since {show(self.since)}" if self.since else ""
        until = f" until {show(self.until)}" if self.until else ""
        return f"by {who}{since}{until} ({self.why})"


def find(consul: Consul, service: str, now: datetime) -> Pause | None:
    """Return the pause in force, read from the leader."""
    return in_force(_pairs(consul, service), now)


def put(consul: Consul, service: str, wanted: Pause, now: datetime, *, is_replacing: bool = False) -> Pause | None:
    """Set a pause or move its end. Return the pause that was in force before, if any. May be repeated.

    :raises Conflict: a pause by another operator or for another reason is in force, and ``is_replacing`` is False.
    """
    where = key(service, FOLDER)
    while True:
        pairs = _pairs(consul, service)
        held = in_force(pairs, now)
        new = replace(wanted, since=held.since) if held is not None and held.has_same_cause(wanted) else wanted
        if held == new:
            return held
        if held is not None and not held.has_same_cause(wanted) and not is_replacing:
            raise Conflict(
                f"{service} is already paused {held.describe()}. Not changed. To replace that pause, add: --replace",
                kind="paused-already",
            )
        index = next((pair.modify_index for pair in pairs if pair.key == where), 0)
        if consul.kv_put(where, new.encode(), cas=index):
            for pair in pairs:
                if pair.key != where:
                    consul.kv_delete(pair.key, cas=pair.modify_index)
            return held


def clear(consul: Consul, service: str) -> Pause | None:
    """Remove a service's pause. Return it, expired or not; None if there was none."""
    removed: Pause | None = None
    while pairs := _pairs(consul, service):
        for pair in pairs:
            if consul.kv_delete(pair.key, cas=pair.modify_index):
                removed = removed or parse(pair)
    return removed


def _pairs(consul: Consul, service: str) -> list[KvPair]:
    """Return the documents that may have a pause: the current one, and an earlier release's."""
    found = (consul.kv_get(one, consistent=True)[1] for one in readable_keys(service, FOLDER))
    return [pair for pair in found if pair is not None]


def in_force(pairs: Iterable[KvPair], now: datetime) -> Pause | None:
    """Return the first pause in these keys that has not expired."""
    return next((one for one in map(parse, pairs) if not one.is_over(now)), None)


def parse(pair: KvPair) -> Pause:
    try:
        return Pause.decode(pair.value)
    except Unreadable as error:
        return Pause("", "", f"the document {pair.key} cannot be read: {error}", None)
