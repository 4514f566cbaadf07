"""Waiting until the connections to an instance that was just taken out have ended.

Nothing here changes anything: maintenance is on already, in the catalog, and its owner is known.
"""

from collections.abc import Callable

from agent.clock import Clock, Deadline
from agent.definitions import Drain

POLL_SECONDS = 0.02
# A client may have been given the address a moment before it vanished: no connection may be seen for this long.
QUIET_SECONDS = 0.25


def await_quiet(count: Callable[[], int], drain: Drain, clock: Clock, started: Deadline) -> int:
    """Wait for ``drain.min`` to pass and connections to end, until ``drain.max``; returns how many are left open.

    ``started`` is the moment at which ``drain.max`` is over. Keep-alive connections end when their clients end them,
    so the limit is what bounds a drain; what is left is cut by the restart.
    """
    least = Deadline(clock, started.at - drain.max + drain.min)
    clock.sleep(least.remaining)
    if not drain.connections:
        return 0
    quiet_since: float | None = None
    while True:
        left = count()
        now = clock.monotonic()
        quiet_since = None if left else (now if quiet_since is None else quiet_since)
        if quiet_since is not None and now - quiet_since >= QUIET_SECONDS:
            return 0
        if started.is_over:
            return left
        clock.sleep(POLL_SECONDS)
