"""The line of those who wait for a lock: a key per waiter, each held by its waiter's session.

The order is that in which Consul made the keys (its CreateIndex): no two hosts' clocks are compared. A waiter watches
the one before it and no other, so N waiters cost N writes and N wake-ups; only the first of them contends for the
lock, beside whoever does not queue (`consul lock`). An entry without a session is a dead waiter's.
"""

from collections.abc import Sequence
from typing import Any

from agent.consul.client import LONGEST_WAIT, Consul
from agent.consul.lock_holder import Holder, decode, encode, holder_of
from agent.consul.model import KvPair
from agent.data import dataclass


@dataclass(frozen=True)
class Entry:
    """One waiter, dead or alive."""

    key: str
    session: str | None
    create_index: int
    modify_index: int
    holder: Holder


@dataclass(frozen=True)
class Place:
    """Where in the line somebody stands: ``number`` 1 is next.

    ``dead``: the entries between it and the living one before it, which are its own to clear away, so that no two
    waiters clear the same.
    """

    number: int
    before: Entry | None
    dead: tuple[Entry, ...]


def order(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The living, in order of arrival."""
    return tuple(sorted((one for one in entries if one.session is not None), key=lambda one: one.create_index))


def find_place(entries: Sequence[Entry], session: str | None) -> Place | None:
    """Where that session stands; None if it has no entry (any more)."""
    living = order(entries)
    number = next((at for at, one in enumerate(living) if session is not None and one.session == session), None)
    if number is None:
        return None
    before = living[number - 1] if number else None
    return Place(number + 1, before, _dead(entries, before, living[number].create_index))


def find_dead_end(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The dead behind the last of the living: whoever comes next clears them away."""
    living = order(entries)
    return _dead(entries, living[-1] if living else None, None)


def _dead(entries: Sequence[Entry], after: Entry | None, end: int | None) -> tuple[Entry, ...]:
    start = after.create_index if after is not None else 0
    dead = (one for one in entries if one.session is None and one.create_index > start)
    return tuple(one for one in dead if end is None or one.create_index < end)


class Queue:
    """The line for one lock, on one connection."""

    def __init__(self, consul: Consul, folder: str, prefix: str) -> None:
        """``folder``: where the entries are. Those for another lock than ``prefix``'s may be there too."""
        self._consul = consul
        self._folder = folder
        self._prefix = prefix

    def key(self, session: str) -> str:
        """Where that session's entry stands."""
        return f"{self._folder}/{session}"

    def entries(self) -> tuple[Entry, ...]:
        """All that wait for this lock, the dead among them.

        Consistently: a server that has just become leader may not have read of all of them yet.
        """
        _index, pairs = self._consul.kv_tree(f"{self._folder}/", consistent=True)
        found = [(pair, decode(pair.value)) for pair in pairs]
        return tuple(_entry(pair, details) for pair, details in found if details.get("lock") == self._prefix)

    def enter(self, session: str, details: dict[str, Any]) -> bool:
        """Stand at the end of the line; False if the session cannot hold a key."""
        return self._consul.kv_put(self.key(session), encode({**details, "lock": self._prefix}), acquire=session)

    def leave(self, session: str) -> None:
        """Give the place up; not having one is fine."""
        self._consul.kv_delete(self.key(session))

    def clear(self, entry: Entry) -> None:
        """Delete a dead waiter's entry, unless something has happened to it since."""
        self._consul.kv_delete(entry.key, cas=entry.modify_index)

    def await_change(self, entry: Entry, wait: float) -> bool:
        """Wait up to ``wait`` seconds for that waiter to get the lock, give up or die; False if it did not."""
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
