"""A thread that keeps a lock's session alive and watches that the session still holds the lock.

The servers end a session no sooner than its TTL after its last renewal. So the lock counts as lost when that time has
passed since the last confirmed renewal was sent, whether Consul was silent, or this thread or the process was stopped.
"""

import threading
from collections.abc import Callable

from agent.clock import Clock
from agent.consul.client import Consul
from agent.errors import SvcagentError
from agent.logs import log_bug

SESSION_TTL = 15
"""Seconds, as in `consul lock`."""
# Three renewals may fail before the session can expire.
RENEW_SECONDS = SESSION_TTL / 4
RETRY_SECONDS = 1.0

Watch = Callable[[int | None, float], tuple[int | None, bool]]
"""Returns the index and whether the lock is held: immediately without an index, else on a change or timeout."""


class SessionRenewer(threading.Thread):
    """Renews a session. After `watch`, it also blocks on the lock to detect its loss."""

    def __init__(self, consul: Consul, session: str, created: float, clock: Clock) -> None:
        """``consul`` is the thread's own connection, closed at the end. ``created`` is when session creation began."""
        super().__init__(name="session-renewer", daemon=True)
        self._consul = consul
        self._session = session
        self._clock = clock
        self._confirmed = created
        self._held: Watch | None = None
        self._index: int | None = None
        self._is_stopping = False
        self._is_lost = False
        self._wake = threading.Event()

    @property
    def is_lost(self) -> bool:
        """True if the lock is lost, or may be lost for lack of confirmed renewals."""
        return self._is_lost or self._clock.monotonic() >= self._confirmed + SESSION_TTL

    @property
    def is_known_lost(self) -> bool:
        return self._is_lost

    def confirm(self, sent: float) -> None:
        """Record that a renewal sent at that time was answered on another connection."""
        self._confirmed = max(self._confirmed, sent)

    def watch(self, make: Callable[[Consul], Watch]) -> None:
        """Watch the lock as well. ``make`` receives this thread's own connection."""
        self._held = make(self._consul)
        self._wake.set()

    def stop(self) -> None:
        """Ask the thread to end, which takes at most one renewal."""
        self._is_stopping = True
        self._wake.set()

    def run(self) -> None:
        try:
            while not self._is_stopping and not self._is_lost:
                try:
                    self._keep()
                except SvcagentError:
                    # A token that is being replaced is refused for a moment. Only time decides if the session is lost.
                    self._rest(RETRY_SECONDS)
                except Exception as error:  # noqa: BLE001 - if this thread ended, the session would expire
                    log_bug("the lock's session could not be renewed; trying again", error)
                    self._rest(RETRY_SECONDS)
        finally:
            self._consul.close()

    def _keep(self) -> None:
        sent = self._clock.monotonic()
        if not self._consul.renew_session(self._session):
            self._is_lost = True
            return
        self.confirm(sent)
        if self._held is None:
            self._rest(RENEW_SECONDS)
            return
        self._index, is_held = self._held(self._index, RENEW_SECONDS)
        self._is_lost = not is_held

    def _rest(self, seconds: float) -> None:
        self._wake.wait(seconds)
        if not self._is_stopping:
            self._wake.clear()
