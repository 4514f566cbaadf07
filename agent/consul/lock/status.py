"""The holders and waiters of a lock, for commands that do not take part in it."""

from enum import StrEnum

from agent.consul.client import Consul
from agent.consul.lock.forms import LOCK_FLAGS, lock_key, read_keys, read_list
from agent.consul.lock.holder import Holder, named, parse
from agent.consul.lock.queue import Queue, order
from agent.data import dataclass


class LockForm(StrEnum):
    NONE = "none"
    """The key does not exist: the lock is free."""
    SINGLE = "single"
    SEMAPHORE = "semaphore"


@dataclass(frozen=True)
class LockStatus:
    """One lock at one moment. ``limit`` is 0 if the key does not exist.

    ``waiters`` are svcagent's, in order. `consul lock` does not queue, so its waiters are invisible.
    """

    prefix: str
    form: LockForm
    limit: int
    holders: tuple[Holder, ...]
    waiters: tuple[Holder, ...]


def lock_status(consul: Consul, prefix: str, queue: str) -> LockStatus:
    """Return the holders and waiters of a lock of either form. Raise `Conflict` if the key is neither."""
    form, limit, holders = _read(consul, prefix)
    return LockStatus(
        prefix,
        form,
        limit,
        tuple(named(consul, holder) for holder in holders),
        tuple(named(consul, entry.holder) for entry in order(Queue(consul, queue, prefix).entries())),
    )


def lock_sessions(consul: Consul, prefix: str) -> frozenset[str]:
    """Return the sessions that hold a lock of either form, read from the leader. Raise `Conflict` if it is neither."""
    return frozenset(holder.session for holder in _read(consul, prefix)[2])


def _read(consul: Consul, prefix: str) -> tuple[LockForm, int, tuple[Holder, ...]]:
    _index, pair = consul.kv_get(lock_key(prefix), consistent=True)
    if pair is None:
        return LockForm.NONE, 0, ()
    if pair.flags == LOCK_FLAGS:
        return LockForm.SINGLE, 1, (parse(pair.session, pair.value),) if pair.session is not None else ()
    listed = read_list(prefix, read_keys(consul, prefix), 0)
    return LockForm.SEMAPHORE, listed.limit, listed.living
