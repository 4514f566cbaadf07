"""A lock for commands that do not take part in it: its holders and waiters, and what a crashed process left of it."""

from contextlib import suppress
from enum import StrEnum

from agent.consul.client import Consul
from agent.consul.lock.forms import LOCK_FLAGS, Single, consul_lock, lock_key, read_keys, read_list
from agent.consul.lock.holder import Holder, named, parse, session_name
from agent.consul.lock.queue import Queue, order, queue_for, turn_of
from agent.data import dataclass
from agent.errors import Conflict


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


def own_sessions(consul: Consul, node: str, prefix: str, command: str) -> tuple[str, ...]:
    """Return the living sessions that ``command`` created on this node for that lock, including this process's."""
    return tuple(one.id for one in consul.node_sessions(node) if one.name == session_name(command, prefix))


def release_dead_session(
    consul: Consul, prefix: str, session: str, *, limit: int = 1, queue: str | None = None
) -> None:
    """Release what that session holds or waits for, and end it. Its process must be known to have ended.

    A lock that is released before its session ends can be taken immediately; the lock-delay protects from holders that
    may be alive. Nothing happens if nothing is left of it or others hold it. ``limit`` and ``queue`` must be those that
    the crashed process passed to `Lock`.
    """
    folder = queue or queue_for(prefix)
    lock = consul_lock(consul, prefix, limit)
    with suppress(Conflict):  # the lock has another form by now, so that session does not hold it
        lock.release(session)
    Single(consul, turn_of(folder)).release(session)
    Queue(consul, folder, prefix).leave(session)
    consul.destroy_session(session)
    with suppress(Conflict):
        lock.remove_unheld()


def remove_unheld_lock(consul: Consul, prefix: str, *, limit: int = 1) -> None:
    """Delete the lock's key if no session holds it, as `consul lock` does. Other keys are kept."""
    with suppress(Conflict):
        consul_lock(consul, prefix, limit).remove_unheld()
