"""Both forms of Consul's lock: one key held by one session, and a list of holders.

Sources: Consul's ``api/lock.go``, ``api/semaphore.go`` and ``command/lock`` (1.8). svcagent may set the value of a
session's key: Consul's own holders and contenders leave it empty and ignore it.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from agent.consul.client import Consul
from agent.consul.lock.holder import Holder, decode, parse
from agent.consul.model import KvOperation, KvPair
from agent.data import dataclass
from agent.errors import Conflict

LOCK_FLAGS = 0x2DDCCBC058A50C18
SEMAPHORE_FLAGS = 0xE0F69A2BAA414DE0
# A holder's death deletes its key but not its list entry, and waiters watch only the list.
READ_AGAIN_SECONDS = 2.0
LARGEST_LIMIT = 1 << 31
MOST_HOLDERS = 1000
"""More than any fleet reloads at a time. A longer list is not a lock's, and its holders are not queried."""
_SESSION = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class LockHolders:
    """The holders of a lock at one moment. ``index`` is for waiting for the next change."""

    index: int
    holders: tuple[Holder, ...]
    is_free: bool

    def is_held_by(self, session: str | None) -> bool:
        return any(holder.session == session for holder in self.holders)


class ConsulLock(ABC):
    """One form of lock on one connection. Each holder has a key that its session holds."""

    behaviour: ClassVar[str]
    """What happens to that key when the session ends: ``release`` or ``delete``."""
    flags: ClassVar[int]

    def __init__(self, consul: Consul, key: str) -> None:
        self._consul = consul
        self._key = key

    @abstractmethod
    def read(self, index: int | None = None, wait: float = 0.0) -> LockHolders:
        """Return the holders. With ``index`` (of an earlier read), wait up to ``wait`` seconds for a change.

        :raises Conflict: the key has another form or limit, or is foreign.
        """

    @abstractmethod
    def release(self, session: str) -> None:
        """Release the session's hold in one write, without the lock-delay of a session's end. No hold is no error."""

    @abstractmethod
    def remove_unheld(self) -> None:
        """Delete the key if no session holds it."""

    @abstractmethod
    def _held_key(self, session: str) -> str:
        """Return the key that a holder's session holds."""

    def _joined(self, _session: str) -> list[KvOperation]:
        """Return what else a session writes to acquire the lock."""
        return []

    def _is_listed(self, _session: str) -> bool:
        return True

    def acquire(self, session: str, value: str, queue_key: str | None = None) -> bool:
        """Acquire the lock and delete the session's ``queue_key`` in one write. False if held or in lock-delay."""
        return self._consul.kv_transaction(
            KvOperation("lock", self._held_key(session), value, self.flags, session=session),
            *self._joined(session),
            *([KvOperation("delete", queue_key)] if queue_key else []),
        )

    def watch(self, session: str, index: int | None = None, wait: float = 0.0) -> tuple[int, bool]:
        """Return the index, and whether the session holds the lock. With ``index``, wait for a change.

        The leader answers, confirmed by its peers.
        """
        new, own = self._consul.kv_get(self._held_key(session), index, wait, consistent=True)
        return new, own is not None and own.session == session and self._is_listed(session)

    def rewrite(self, session: str, value: str) -> bool:
        """Change the holder's details. False if the session no longer holds the lock."""
        key = self._held_key(session)
        return self._consul.kv_transaction(
            KvOperation("check-session", key, session=session),
            KvOperation("lock", key, value, self.flags, session=session),
        )


class Single(ConsulLock):
    """The form of ``consul lock -n 1``: the key ``<prefix>/.lock``, held by the holder's session."""

    behaviour = "release"
    flags = LOCK_FLAGS

    def read(self, index: int | None = None, wait: float = 0.0) -> LockHolders:
        new, pair = self._consul.kv_get(self._key, index, wait)
        if pair is not None and pair.flags != LOCK_FLAGS:
            raise Conflict(
                f"the key {self._key} is in use as something other than a lock of one holder (`consul lock -n N` "
                "with N above 1?). Use the same -n (reload.max_parallel) everywhere, or give this definition a "
                "separate reload.lock. If a crash left it and svcagent lock status shows no holder: consul kv "
                f"delete {self._key}",
                kind="lock-key-in-use",
            )
        holders = () if pair is None or pair.session is None else (parse(pair.session, pair.value),)
        return LockHolders(new, holders, is_free=not holders)

    def release(self, session: str) -> None:
        held = KvOperation("check-session", self._key, session=session)
        if not self._consul.kv_transaction(held, KvOperation("delete", self._key)):
            self.remove_unheld()

    def remove_unheld(self) -> None:
        _index, pair = self._consul.kv_get(self._key)
        if pair is not None and pair.session is None and pair.flags == LOCK_FLAGS:
            self._consul.kv_delete(self._key, cas=pair.modify_index)

    def _held_key(self, _session: str) -> str:
        return self._key


@dataclass(frozen=True)
class SemaphoreEntry:
    """The list of living holders. ``index`` is the key's index for check-and-set, 0 if there is no key."""

    index: int
    limit: int
    living: tuple[Holder, ...]
    is_any_dead: bool
    contenders: frozenset[str]
    """The queried sessions, and holders, that have their key."""


class Semaphore(ConsulLock):
    """The form of ``consul lock -n N``: a list of holders, changed by check-and-set.

    Each contender has a key ``<prefix>/<session>``, held by its session. ``<prefix>/.lock`` belongs to no session and
    holds ``{"Limit":N,"Holders":{"<session>":true}}``. A holder without its key has crashed; the next contender
    removes it from the list.
    """

    behaviour = "delete"
    flags = SEMAPHORE_FLAGS

    def __init__(self, consul: Consul, prefix: str, limit: int) -> None:
        super().__init__(consul, lock_key(prefix))
        self._prefix = prefix
        self._limit = limit
        self._listed = SemaphoreEntry(0, limit, (), is_any_dead=False, contenders=frozenset())
        """What `read` found, which `acquire` builds on."""

    def read(self, index: int | None = None, wait: float = 0.0) -> LockHolders:
        if index:
            self._consul.kv_get(self._key, index, min(wait, READ_AGAIN_SECONDS))
        self._listed = listed = self._list()
        return LockHolders(listed.index, listed.living, is_free=len(listed.living) < self._limit)

    def release(self, session: str) -> None:
        while True:
            listed = self._list(session)
            living = tuple(holder.session for holder in listed.living)
            changes = [KvOperation("delete", self._held_key(session))] if session in listed.contenders else []
            if session in living or listed.is_any_dead:
                changes.append(self._changed(listed, [one for one in living if one != session]))
            # If another host changed the list in between, the write is refused; read the list again.
            if not changes or self._consul.kv_transaction(*changes):
                return

    def remove_unheld(self) -> None:
        listed = self._list()
        if listed.index and not listed.living:
            self._consul.kv_delete(self._key, cas=listed.index)

    def _held_key(self, session: str) -> str:
        return f"{self._prefix}/{session}"

    def _joined(self, session: str) -> list[KvOperation]:
        return [self._changed(self._listed, [*(holder.session for holder in self._listed.living), session])]

    def _is_listed(self, session: str) -> bool:
        return session in _holders(_read(self._consul, self._key))

    def _changed(self, listed: SemaphoreEntry, holders: Sequence[str]) -> KvOperation:
        if not holders:
            return KvOperation("delete-cas", self._key, index=listed.index)
        value = json.dumps({"Limit": listed.limit, "Holders": dict.fromkeys(holders, True)}, separators=(",", ":"))
        return KvOperation("cas", self._key, value, SEMAPHORE_FLAGS, index=listed.index)

    def _list(self, *contenders: str) -> SemaphoreEntry:
        found = read_list(self._prefix, read_keys(self._consul, self._prefix, contenders), self._limit)
        if found.limit != self._limit:
            raise Conflict(
                f"the lock {self._prefix} is in use with {found.limit} holders at a time, not {self._limit}. Use the "
                "same -n (reload.max_parallel) everywhere; after a change, wait until all that hold it are done",
                kind="lock-limit-differs",
            )
        return found


def lock_key(prefix: str) -> str:
    """Return the key that `consul lock` uses below a prefix."""
    return f"{prefix}/.lock"


def consul_lock(consul: Consul, prefix: str, limit: int) -> ConsulLock:
    return Single(consul, lock_key(prefix)) if limit == 1 else Semaphore(consul, prefix, limit)


def read_keys(consul: Consul, prefix: str, contenders: Sequence[str] = ()) -> tuple[KvPair, ...]:
    """Return the list and the keys of its holders and of ``contenders``, as far as they exist. No other key is read.

    The default prefix contains all documents of the service. The list is read first: a holder creates its key before it
    joins the list, so a holder without a key has crashed or released the lock. A release changes the list, and a write
    based on this one is then refused by its index.
    """
    pair = _read(consul, lock_key(prefix))
    sessions = dict.fromkeys((*_holders(pair), *contenders))
    # Others may have written anything into the list. Query only what can be a session id.
    keys = [_read(consul, f"{prefix}/{session}") for session in sessions if _SESSION.fullmatch(session)]
    return tuple(one for one in (pair, *keys) if one is not None)


def _read(consul: Consul, key: str) -> KvPair | None:
    """Read a key consistently. A stale read could make a living holder look crashed."""
    _index, pair = consul.kv_get(key, consistent=True)
    return pair


def read_list(prefix: str, pairs: Sequence[KvPair], limit: int) -> SemaphoreEntry:
    """Parse a semaphore's keys. ``limit`` is used if there is no list. Raise `Conflict` if it is no semaphore."""
    contenders = {one.session: one for one in pairs if one.session is not None and one.key == f"{prefix}/{one.session}"}
    pair = next((one for one in pairs if one.key == lock_key(prefix)), None)
    if pair is None:
        return SemaphoreEntry(0, limit, (), is_any_dead=False, contenders=frozenset(contenders))
    found = _limit(pair)
    if pair.flags != SEMAPHORE_FLAGS or found is None or not _has_holders(pair):
        raise Conflict(
            f"the key {pair.key} is in use as something other than a lock of several holders (`consul lock -n 1`?). "
            "Use the same -n (reload.max_parallel) everywhere, or give this definition a separate reload.lock. If a "
            f"crash left it and svcagent lock status shows no holder: consul kv delete {pair.key}",
            kind="lock-key-in-use",
        )
    # Like Consul: any key below the prefix that the session holds proves that it is alive.
    alive = {one.session for one in pairs if one.session is not None}
    holders = _holders(pair)
    living = tuple(
        parse(session, contenders[session].value if session in contenders else b"")
        for session in holders
        if session in alive
    )
    is_any_dead = len(living) < len(holders)
    return SemaphoreEntry(pair.modify_index, found, living, is_any_dead, frozenset(contenders))


def _limit(pair: KvPair) -> int | None:
    found = decode(pair.value).get("Limit")
    if not isinstance(found, int) or isinstance(found, bool):
        return None
    return found if 1 <= found <= LARGEST_LIMIT else None


def _has_holders(pair: KvPair) -> bool:
    """True if the holders can be read. An unreadable list is not ours and may mean that the lock is held."""
    found = decode(pair.value).get("Holders")
    return found is None or (
        isinstance(found, dict) and len(found) <= MOST_HOLDERS and all(isinstance(one, bool) for one in found.values())
    )


def _holders(pair: KvPair | None) -> dict[str, bool]:
    found = decode(pair.value).get("Holders") if pair is not None and _has_holders(pair) else None
    return found if isinstance(found, dict) else {}
