"""Find and release what a crashed process of this host left of a lock."""

from contextlib import suppress

from agent.consul.client import Consul
from agent.consul.lock.forms import Single, consul_lock
from agent.consul.lock.holder import session_name
from agent.consul.lock.queue import Queue, queue_for, turn_of
from agent.errors import Conflict


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
