"""Detect, without polling, that the local Consul agent lost its state, is unreachable, or is back.

One service of ours is the canary: the agent holds a blocking query until that service changes or is gone, and asks no
server for it. If the agent has no service of ours, an idle connection is kept, which ends with the agent. While the
agent is unreachable, it is tried a few times a second, which costs almost nothing. Call `AgentWatch.follow` after every
convergence.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.clock import Clock, Deadline
from agent.consul import LONGEST_WAIT, Consul
from agent.errors import SvcagentError, Unreachable
from agent.logs import log_bug

WAIT_SECONDS = LONGEST_WAIT
AWAY_SECONDS = 0.2
"""Between attempts to reach an agent. What it forgot must be registered within a second of its return, and a hundred
services take most of that.
"""
REFUSED_SECONDS = 10.0
"""Between queries to an agent that refuses the token."""
FOLLOW_SECONDS = 10.0
"""How long to wait for a convergence to end after requesting it."""
IDLE_SECONDS = 0.5
"""How often, without a canary, to check whether there is one now."""
ANY_SERVICE = "svcagent"
"""Queried without a canary: the response that it is absent also proves that the agent is alive."""
STOP_SECONDS = 1.0
"""Name resolution and connecting to a silent host cannot be interrupted."""
MOST_WAKES = 20
WITHIN_SECONDS = 60.0
"""Limits the load if something changes the canary as often as it is repaired."""


@dataclass(frozen=True)
class SeenRegistrations:
    """The known state of the agent. ``known`` is the canary's hash: empty before the first query, None if absent."""

    canary: str = ""
    known: str | None = ""
    is_away: bool = False

    def with_canary(self, canary: str) -> "SeenRegistrations":
        """Return the same state with this canary."""
        return self if canary == self.canary else replace(self, canary=canary, known="")


def after_answer(seen: SeenRegistrations, answer: str | None) -> tuple[SeenRegistrations, bool]:
    """Return the state after an answer (None: absent), and whether to request a convergence.

    A convergence is needed if the agent was away or the canary has changed. The convergence decides the canary's new
    state, so its hash is queried again; only its absence is remembered, and reported once.
    """
    if not seen.canary:
        return SeenRegistrations(known=None), seen.is_away
    is_waking = seen.is_away or (answer != seen.known and (answer is None or bool(seen.known)))
    return SeenRegistrations(seen.canary, "" if answer and is_waking else answer), is_waking


class AgentWatch:
    """A thread from `start` to `stop`, with its own connection. It runs ``wake``, too."""

    def __init__(self, consul: Consul, clock: Clock, wake: Callable[[], None]) -> None:
        self._consul = consul
        self._clock = clock
        self._wake = wake
        self._wakes: deque[float] = deque(maxlen=MOST_WAKES)
        self._news = threading.Condition()
        self._canary = ""
        self._followed = 0
        self._is_new = False
        self._is_stopping = False
        self._thread = threading.Thread(target=self._watch, name="agent-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def follow(self, canary: str, *, is_new: bool = False) -> None:
        """Watch this service of ours after a convergence; empty if there is none.

        ``is_new`` is True if the convergence registered it. If it is absent already, it was lost again since then.
        """
        with self._news:
            self._canary = canary
            self._is_new = self._is_new or is_new
            self._followed += 1
            self._news.notify()

    def stop(self) -> None:
        """Stop within a second, and abort a pending request."""
        with self._news:
            self._is_stopping = True
            self._news.notify()
        deadline = Deadline.after(self._clock, STOP_SECONDS)
        while self._thread.is_alive() and not deadline.is_over:
            # Repeatedly, because the thread may have been about to send a request.
            self._consul.hang_up()
            self._thread.join(0.05)
        if not self._thread.is_alive():
            self._consul.close()

    def _watch(self) -> None:
        seen = SeenRegistrations()
        while not self._is_stopping:
            followed = self._followed
            seen = seen.with_canary(self._canary)
            if self._is_new:
                self._is_new = False
                seen = replace(seen, known=seen.known or "")
            try:
                answer = self._ask(seen)
            except Exception as error:  # noqa: BLE001 - without this thread, lost state would not be noticed
                if not seen.is_away:
                    if not isinstance(error, SvcagentError):
                        log_bug("watching the Consul agent: a bug in svcagent; please report it", error)
                    self._request_convergence()
                seen = replace(seen, is_away=True)
                self._pause(AWAY_SECONDS if isinstance(error, Unreachable) else REFUSED_SECONDS)
                continue
            seen, is_waking = after_answer(seen, answer)
            if is_waking:
                self._request_convergence()
            if seen.canary and (is_waking or seen.known is None):
                self._pause(FOLLOW_SECONDS, followed)

    def _ask(self, seen: SeenRegistrations) -> str | None:
        if not seen.canary and seen.known is None and not seen.is_away:
            self._consul.stay_connected(IDLE_SECONDS)
            return None
        known = "" if seen.is_away else seen.known or ""
        return self._consul.service_hash(seen.canary or ANY_SERVICE, known, WAIT_SECONDS)

    def _request_convergence(self) -> None:
        now = self._clock.monotonic()
        if len(self._wakes) == MOST_WAKES and now - self._wakes[0] < WITHIN_SECONDS:
            self._pause(REFUSED_SECONDS)
        self._wakes.append(self._clock.monotonic())
        if not self._is_stopping:
            self._wake()

    def _pause(self, seconds: float, followed: int | None = None) -> None:
        """Wait until `stop`; with ``followed``, until a later convergence has ended."""

        def is_over() -> bool:
            return self._is_stopping or (followed is not None and self._followed != followed)

        with self._news:
            self._news.wait_for(is_over, seconds)
