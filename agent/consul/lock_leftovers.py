"""What a dead process of this host has left of a lock: found, and given back."""

from contextlib import suppress

from agent.consul.client import Consul
from agent.consul.lock_names import form_of, queue_for, session_name, turn_of
from agent.consul.lock_queue import Queue
from agent.consul.lock_single import Single
from agent.errors import Conflict


def own_sessions(consul: Consul, node: str, prefix: str, command: str) -> tuple[str, ...]:
    """The ids of living sessions that ``command`` made on this node for that lock, this process's among them."""
    return tuple(one.id for one in consul.node_sessions(node) if one.name == session_name(command, prefix))


def give_back_dead(consul: Consul, prefix: str, session: str, *, limit: int = 1, queue: str | None = None) -> None:
    """Free whatever that session holds or waits for, and end it. Only when its process is known to be dead.

    Freed before its session ends, the lock can be taken at once: lock-delay protects from holders that may be alive.
    Nothing of it there any more, or all of it somebody else's: nothing happens. ``limit`` and ``queue`` as the dead
    process gave them to `Lock`.
    """
    folder = queue or queue_for(prefix)
    form = form_of(consul, prefix, limit)
    with suppress(Conflict):  # the lock is of another form by now, so that session does not hold it
        form.give_back(session)
    Single(consul, turn_of(folder)).give_back(session)
    Queue(consul, folder, prefix).leave(session)
    consul.destroy_session(session)
    with suppress(Conflict):
        form.clear()


def clear_free(consul: Consul, prefix: str, *, limit: int = 1) -> None:
    """Delete the lock's key if nobody holds it, as `consul lock` does; nothing happens to any other."""
    with suppress(Conflict):
        form_of(consul, prefix, limit).clear()
