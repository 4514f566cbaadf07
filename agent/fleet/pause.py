"""``svcagent/<service>/pause``: an operator's stop for all hosts' reloads of a service, until lifted or until its end.

One that cannot be read counts as set: nobody knows who wanted the fleet to stand still, and why.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from agent.consul import Consul, KvPair
from agent.errors import Conflict
from agent.fleet.document import ERROR_BYTES, Fields, Unreadable, bounded, encode, key

ROOM = "pause"


@dataclass(frozen=True)
class Pause:
    """Who stopped it, on which host, why, since when and until when.

    ``by`` is empty and ``since`` None where the document cannot be read; ``why`` says so then.
    """

    by: str
    host: str
    why: str
    since: datetime | None
    until: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        """Has its end come? Then it counts as not set."""
        return self.until is not None and self.until <= now

    def has_same_cause(self, other: "Pause") -> bool:
        """Did the same person stop it for the same reason?"""
        return bool(self.by) and (self.by, self.host, self.why) == (other.by, other.host, other.why)

    def describe(self, show: Callable[[datetime], str] = lambda moment: moment.isoformat(timespec="seconds")) -> str:
        """Whose it is, in words for a message; ``show`` writes its times."""
        who = f"{self.by} on {self.host}" if self.by else "someone unknown"
        since = f" since {show(self.since)}" if self.since else ""
        until = f" until {show(self.until)}" if self.until else ""
        return f"by {who}{since}{until} ({self.why})"


def find(consul: Consul, service: str, now: datetime) -> Pause | None:
    """The pause that counts now, read from the leader."""
    _index, pair = consul.kv_get(key(service, ROOM), consistent=True)
    return counting(pair, now)


def put(consul: Consul, service: str, wanted: Pause, now: datetime, *, is_replacing: bool = False) -> Pause | None:
    """Set it, or move its end; the pause that counted before, if any.

    Asking twice is harmless, so a command whose outcome was unknown may be repeated.

    :raises Conflict: somebody else's counts, or one for another reason, and it is not to be replaced.
    """
    where = key(service, ROOM)
    while True:
        _index, pair = consul.kv_get(where, consistent=True)
        held = counting(pair, now)
        new = replace(wanted, since=held.since) if held is not None and held.has_same_cause(wanted) else wanted
        if held == new:
            return held
        if held is not None and not held.has_same_cause(wanted) and not is_replacing:
            raise Conflict(
                f"{service} is paused already {held.describe()}; it stays as it is. To put yours in its place, add: "
                "--replace"
            )
        text = encode(by=new.by, host=new.host, why=bounded(new.why, ERROR_BYTES), since=new.since, until=new.until)
        if consul.kv_put(where, text, cas=0 if pair is None else pair.modify_index):
            return held


def clear(consul: Consul, service: str) -> Pause | None:
    """Let reloads go on; what stood there, over or not, None when nothing did."""
    where = key(service, ROOM)
    while True:
        _index, pair = consul.kv_get(where, consistent=True)
        if pair is None:
            return None
        if consul.kv_delete(where, cas=pair.modify_index):
            return parse(pair)


def counting(pair: KvPair | None, now: datetime) -> Pause | None:
    """The pause that a key holds, unless it is over."""
    held = None if pair is None else parse(pair)
    return None if held is None or held.is_over(now) else held


def parse(pair: KvPair) -> Pause:
    """The pause that a key holds."""
    try:
        fields = Fields.of(pair)
        return Pause(
            fields.text("by"),
            fields.text("host"),
            fields.text_or_empty("why"),
            fields.moment("since"),
            fields.moment_or_none("until"),
        )
    except Unreadable as error:
        return Pause("", "", f"the document {pair.key} cannot be read: {error}", None)
