"""The form of ``consul lock -n N``: a list of holders, changed by check-and-set.

Source: Consul's ``api/semaphore.go`` and ``command/lock`` (1.8). Each contender has a key ``<prefix>/<session>``, held
by its session, whose behaviour is ``delete``. ``<prefix>/.lock`` belongs to no session and holds
``{"Limit":N,"Holders":{"<session>":true}}``. A holder without its key is dead; the next contender removes it from the
list. svcagent may set the contender's value: Consul's own contenders leave it empty.
"""

import json
import re
from collections.abc import Sequence

from agent.consul.client import Consul
from agent.consul.lock.form import Look
from agent.consul.lock.holder import Holder, decode, parse
from agent.consul.model import KvOperation, KvPair
from agent.data import dataclass
from agent.errors import Conflict

SEMAPHORE_FLAGS = 0xE0F69A2BAA414DE0
# A holder's death deletes its key but not its list entry, and waiters watch only the list.
LOOK_AGAIN_SECONDS = 2.0
LARGEST_LIMIT = 1 << 31
MOST_HOLDERS = 1000
"""More than any fleet reloads at a time. A longer list is not a lock's, and its holders are not queried."""
_SESSION = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class SemaphoreEntry:
    """The list of living holders. ``index`` is the key's index for check-and-set, 0 if there is no key."""

    index: int
    limit: int
    living: tuple[Holder, ...]
    is_any_dead: bool
    contenders: frozenset[str]
    """The queried sessions, and holders, that have their key."""


class Semaphore:
    behaviour = "delete"

    def __init__(self, consul: Consul, prefix: str, limit: int) -> None:
        self._consul = consul
        self._prefix = prefix
        self._key = f"{prefix}/.lock"
        self._limit = limit
        self._listed = SemaphoreEntry(0, limit, (), is_any_dead=False, contenders=frozenset())

    def look(self, index: int | None = None, wait: float = 0.0) -> Look:
        if index:
            self._consul.kv_get(self._key, index, min(wait, LOOK_AGAIN_SECONDS))
        self._listed = listed = self._list()
        return Look(listed.index, listed.living, is_free=len(listed.living) < self._limit)

    def take(self, session: str, value: str, spent: str | None) -> bool:
        """Build on the list that the last `look` found."""
        holders = (*(holder.session for holder in self._listed.living), session)
        return self._consul.kv_transaction(
            KvOperation("lock", self._contender(session), value, SEMAPHORE_FLAGS, session=session),
            self._changed(self._listed, holders),
            *([KvOperation("delete", spent)] if spent else []),
        )

    def is_held(self, session: str) -> bool:
        _index, own = self._consul.kv_get(self._contender(session), consistent=True)
        _index, pair = self._consul.kv_get(self._key, consistent=True)
        return own is not None and own.session == session and session in _holders(pair)

    def watch(self, session: str, index: int | None, wait: float) -> tuple[int | None, bool]:
        index, own = self._consul.kv_get(self._contender(session), index, wait, consistent=True)
        _index, pair = self._consul.kv_get(self._key, consistent=True)
        return index, own is not None and own.session == session and session in _holders(pair)

    def rewrite(self, session: str, value: str) -> bool:
        key = self._contender(session)
        return self._consul.kv_transaction(
            KvOperation("check-session", key, session=session),
            KvOperation("lock", key, value, SEMAPHORE_FLAGS, session=session),
        )

    def give_back(self, session: str) -> None:
        while True:
            listed = self._list(session)
            living = tuple(holder.session for holder in listed.living)
            changes = [KvOperation("delete", self._contender(session))] if session in listed.contenders else []
            if session in living or listed.is_any_dead:
                changes.append(self._changed(listed, [one for one in living if one != session]))
            # If another host changed the list in between, the write is refused; read the list again.
            if not changes or self._consul.kv_transaction(*changes):
                return

    def clear(self) -> None:
        listed = self._list()
        if listed.index and not listed.living:
            self._consul.kv_delete(self._key, cas=listed.index)

    def _contender(self, session: str) -> str:
        return f"{self._prefix}/{session}"

    def _changed(self, listed: SemaphoreEntry, holders: Sequence[str]) -> KvOperation:
        if not holders:
            return KvOperation("delete-cas", self._key, index=listed.index)
        value = json.dumps({"Limit": listed.limit, "Holders": dict.fromkeys(holders, True)}, separators=(",", ":"))
        return KvOperation("cas", self._key, value, SEMAPHORE_FLAGS, index=listed.index)

    def _list(self, *contenders: str) -> SemaphoreEntry:
        """Return the list, and which of its holders and of these contenders are alive."""
        found = read_list(self._prefix, read_keys(self._consul, self._prefix, contenders), self._limit)
        if found.limit != self._limit:
            raise Conflict(
                f"the lock {self._prefix} is in use with {found.limit} holders at a time, not {self._limit}. Use the "
                "same -n (reload.max_parallel) everywhere; after a change, wait until all that hold it are done",
                kind="lock-limit-differs",
            )
        return found


def read_keys(consul: Consul, prefix: str, contenders: Sequence[str] = ()) -> tuple[KvPair, ...]:
    """Return the list and the keys of its holders and of ``contenders``, as far as they exist. No other key is read.

    The default prefix contains all documents of the service. The list is read first: a holder creates its key before it
    joins the list, so a holder without a key has died or released the lock. A release changes the list, and a write
    based on this one is then refused by its index.
    """
    pair = _read(consul, f"{prefix}/.lock")
    sessions = dict.fromkeys((*_holders(pair), *contenders))
    # Others may have written anything into the list. Query only what can be a session id.
    keys = [_read(consul, f"{prefix}/{session}") for session in sessions if _SESSION.fullmatch(session)]
    return tuple(one for one in (pair, *keys) if one is not None)


def _read(consul: Consul, key: str) -> KvPair | None:
    """Read a key consistently. A stale read could make a living holder look dead."""
    _index, pair = consul.kv_get(key, consistent=True)
    return pair


def read_list(prefix: str, pairs: Sequence[KvPair], limit: int) -> SemaphoreEntry:
    """Parse a semaphore's keys. ``limit`` is used if there is no list. Raise `Conflict` if it is no semaphore."""
    contenders = {one.session: one for one in pairs if one.session is not None and one.key == f"{prefix}/{one.session}"}
    pair = next((one for one in pairs if one.key == f"{prefix}/.lock"), None)
    if pair is None:
        return SemaphoreEntry(0, limit, (), is_any_dead=False, contenders=frozenset(contenders))
    found = _limit(pair)
    if pair.flags != SEMAPHORE_FLAGS or found is None or not _has_holders(pair):
        raise Conflict(
            f"the key {pair.key} is in use as something other than a lock of several holders (`consul lock -n 1`?). "
            "Use the same -n (reload.max_parallel) everywhere, or give this definition a reload.lock of its own. If a "
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
    """Return the list's limit; None if it is invalid."""
    found = decode(pair.value).get("Limit")
    if not isinstance(found, int) or isinstance(found, bool):
        return None
    return found if 1 <= found <= LARGEST_LIMIT else None


def _has_holders(pair: KvPair) -> bool:
    """True if the holders can be read. An unreadable list is not ours and may mean that the lock is held."""
    found = decode(pair.value).get("Holders")
    return found is None or (isinstance(found, dict) and len(found) <= MOST_HOLDERS)


def _holders(pair: KvPair | None) -> dict[str, bool]:
    found = decode(pair.value).get("Holders") if pair is not None and _has_holders(pair) else None
    return found if isinstance(found, dict) else {}
