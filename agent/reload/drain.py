"""Waiting until the connections to an instance in maintenance have ended. Nothing here changes anything."""

from collections.abc import Callable

from agent.clock import Clock, Deadline, linger, nothing_ends_it
from agent.definitions import Drain

POLL_SECONDS = 0.02
# A client may have been given the address just before it was removed: no connection may be seen for this long.
QUIET_SECONDS = 0.25


def await_quiet(
    count: Callable[[], int],
    drain: Drain,
    clock: Clock,
    started: Deadline,
    still: Callable[[], None] = nothing_ends_it,
) -> int:
    """Wait for ``drain.min`` to pass and connections to end, until ``drain.max``; return how many are left open.

    ``started`` is the moment at which ``drain.max`` is over. Keep-alive connections end when their clients end them,
    so the limit bounds a drain; the restart cuts what is left. ``still`` is called in every round and ends the
    wait by raising, for example when the lock is lost.
    """
    linger(Deadline(clock, started.at - drain.max + drain.min), still)
    if not drain.connections:
        return 0
    quiet_since: float | None = None
    while True:
        still()
        left = count()
        now = clock.monotonic()
        quiet_since = None if left else (now if quiet_since is None else quiet_since)
        if quiet_since is not None and now - quiet_since >= QUIET_SECONDS:
            return 0
        if started.is_over:
            return left
        clock.sleep(POLL_SECONDS)
