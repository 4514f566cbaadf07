"""The queue for a lock: one key per waiter, held by the waiter's session.

Waiters are ordered by the CreateIndex of their keys, so hosts' clocks are never compared. Each waiter watches only the
one before it: N waiters cost N writes and N wake-ups. Only the first one contends for the lock, with clients that do
not queue (`consul lock`). An entry without a session belongs to a crashed waiter.
"""

from collections.abc import Callable, Sequence
from typing import Any

from agent.consul.base import LONGEST_WAIT
from agent.consul.client import Consul
from agent.consul.lock.forms import LockHolders
from agent.consul.lock.holder import Holder, decode, encode, holder_of, named
from agent.consul.model import KvPair
from agent.data import dataclass
from agent.definitions.reload import OWN_PREFIX
from agent.errors import LockBusy


def queue_of(service: str) -> str:
    """Return the prefix of a service's queue. It is in lower case because Consul ignores the case of service names."""
    return f"{OWN_PREFIX}/{service.lower()}/queue"


def queue_for(prefix: str) -> str:
    """Return the prefix of the queue for a lock of which only the prefix is known."""
    return queue_of(prefix.removeprefix(f"{OWN_PREFIX}/").removesuffix("/lock"))


def turn_of(queue: str) -> str:
    """Return the key, next to the queue, that gives one of several holders the turn."""
    folder, _slash, _name = queue.rpartition("/")
    return f"{folder}/turn"


@dataclass(frozen=True)
class Entry:
    key: str
    session: str | None
    create_index: int
    modify_index: int
    holder: Holder


@dataclass(frozen=True)
class QueuePlace:
    """A position in the queue; ``number`` 1 is next.

    ``dead`` are the entries of crashed waiters between this waiter and the living one before it. This waiter alone
    deletes them, so no two waiters delete the same entry.
    """

    number: int
    before: Entry | None
    dead: tuple[Entry, ...]


def order(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the living waiters in order of arrival."""
    return tuple(sorted((one for one in entries if one.session is not None), key=lambda one: one.create_index))


def find_place(entries: Sequence[Entry], session: str | None) -> QueuePlace | None:
    living = order(entries)
    number = next((at for at, one in enumerate(living) if session is not None and one.session == session), None)
    if number is None:
        return None
    before = living[number - 1] if number else None
    return QueuePlace(number + 1, before, _dead(entries, before, living[number].create_index))


def find_dead_end(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the entries of crashed waiters after the last living one. The next host to come deletes them."""
    living = order(entries)
    return _dead(entries, living[-1] if living else None, None)


def _dead(entries: Sequence[Entry], after: Entry | None, end: int | None) -> tuple[Entry, ...]:
    start = after.create_index if after is not None else 0
    dead = (one for one in entries if one.session is None and one.create_index > start)
    return tuple(one for one in dead if end is None or one.create_index < end)


class Queue:
    def __init__(self, consul: Consul, folder: str, prefix: str) -> None:
        """``folder`` is the prefix of the entries. It may also have entries for locks other than ``prefix``."""
        self._consul = consul
        self._folder = folder
        self._prefix = prefix

    def key(self, session: str) -> str:
        return f"{self._folder}/{session}"

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries for this lock, including those of crashed waiters.

        The read is consistent, because a new leader may not have loaded all of them yet.
        """
        _index, pairs = self._consul.kv_tree(f"{self._folder}/", consistent=True)
        found = [(pair, decode(pair.value)) for pair in pairs]
        return tuple(_entry(pair, details) for pair, details in found if details.get("lock") == self._prefix)

    def enter(self, session: str, details: dict[str, Any]) -> bool:
        """Join the queue. False if the session cannot hold a key."""
        return self._consul.kv_put(self.key(session), encode({**details, "lock": self._prefix}), acquire=session)

    def leave(self, session: str) -> None:
        """Delete the session's entry. A missing entry is no error."""
        self._consul.kv_delete(self.key(session))

    def clear(self, entry: Entry) -> None:
        """Delete a crashed waiter's entry unless it has changed since."""
        self._consul.kv_delete(entry.key, cas=entry.modify_index)

    def await_change(self, entry: Entry, wait: float) -> bool:
        """Wait up to ``wait`` seconds until that waiter gets the lock, gives up or crashes; False on timeout."""
        while True:
            _index, pair = self._consul.kv_get(entry.key, entry.modify_index, wait)
            if pair is None or pair.session != entry.session:
                return True
            wait -= LONGEST_WAIT
            if wait <= 0:
                return False


def _entry(pair: KvPair, details: dict[str, Any]) -> Entry:
    holder = holder_of(pair.session or "", details)
    return Entry(pair.key, pair.session, pair.create_index, pair.modify_index, holder)


class QueueMessages:
    """Reports on one lock. Sessions without details are looked up once."""

    def __init__(self, consul: Consul, prefix: str, report_place: Callable[[int, str], None] | None) -> None:
        self._consul = consul
        self._prefix = prefix
        self._report_place = report_place
        self._reported: tuple[int, str] | None = None
        self._known: dict[str, Holder] = {}

    def place(self, number: int, found: LockHolders) -> None:
        """Report the queue position and the holders if either changed since the last report."""
        if self._report_place is None:
            return
        report = (number, self.holders(found))
        if report != self._reported:
            self._reported = report
            self._report_place(*report)

    def holders(self, found: LockHolders) -> str:
        return ", ".join(self._described(holder) for holder in found.holders) or "no session"

    def busy(self, found: LockHolders, number: int) -> LockBusy:
        if found.holders:
            why = f"is held by {self.holders(found)}"
        elif number > 1:
            why = "is free, but others came before"
        else:
            why = "is free, but Consul refuses it for up to 15 s after its holder crashed"
        return LockBusy(
            f"the lock {self._prefix} {why}; this is place {number} in the line for it. Try again later, or wait "
            "longer with --lock-timeout"
        )

    def _described(self, holder: Holder) -> str:
        if holder.is_described:
            return str(holder)
        if holder.session not in self._known:
            self._known[holder.session] = named(self._consul, holder)
        return str(self._known[holder.session])
