"""Keeps a lock's session alive, and watches that the lock is still held by it.

The session ends at the servers no sooner than its time to live after they last heard of it. So the lock counts as
lost, without anybody having to say so, once that long has passed since a renewal was sent that was then confirmed:
whether Consul is silent, this thread got no time, or the whole process was stopped.
"""

import threading
from collections.abc import Callable

from agent.clock import Clock
from agent.consul.client import Consul
from agent.errors import SvcagentError
from agent.logs import log_bug

SESSION_TTL = 15
"""Seconds, as `consul lock` has it."""
# Three renewals may fail before the session can end.
RENEW_SECONDS = SESSION_TTL / 4
RETRY_SECONDS = 1.0

Watch = Callable[[int | None, float], tuple[int | None, bool]]
"""Is it held? Answered at once without an index, else when it changes, or after so many seconds."""


class Keeper(threading.Thread):
    """Renews a session, and once told to `watch`, blocks on the lock to learn of its loss."""

    def __init__(self, consul: Consul, session: str, created: float, clock: Clock) -> None:
        """``consul``: a connection of its own, closed at the end. ``created``: when making the session began."""
        super().__init__(name="lock-keeper", daemon=True)
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
        """Is it known to be lost, or could it be, for all that is known?"""
        return self._is_lost or self._clock.monotonic() >= self._confirmed + SESSION_TTL

    @property
    def is_known_lost(self) -> bool:
        """Did Consul say so?"""
        return self._is_lost

    def confirm(self, sent: float) -> None:
        """A renewal that was sent then has been answered, on another connection."""
        self._confirmed = max(self._confirmed, sent)

    def watch(self, make: Callable[[Consul], Watch]) -> None:
        """From now on, watch the lock as well; ``make`` is given this thread's own connection to ask on."""
        self._held = make(self._consul)
        self._wake.set()

    def stop(self) -> None:
        """Ask the thread to end; it does so within one renewal."""
        self._is_stopping = True
        self._wake.set()

    def run(self) -> None:
        """Until stopped, or until Consul says that it is lost."""
        try:
            while not self._is_stopping and not self._is_lost:
                try:
                    self._keep()
                except SvcagentError:
                    # A token that is being replaced is refused for a moment. Time decides when the session is lost.
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
