"""Tells when the local Consul agent lost its state, is gone, or is back: by waiting for it, not by asking often.

One service of ours is the canary: a query that the agent holds until that service is defined otherwise, or gone. No
server is asked for it. With no service of ours on the agent, a connection is kept on which nothing is asked, and whose
end is the agent's. While the agent is away, it is tried some times a second, which costs next to nothing.

In use::

    agent_watch = AgentWatch(Consul(settings.consul), clock, wake)   # wake is called in the watch's own thread
    agent_watch.start()
    agent_watch.follow(result.canary)                                # after every convergence
    agent_watch.stop()                                               # within a second, whatever it waits for
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
"""Between two tries to reach an agent that is away. What it forgot is to be there again within a second of its being
back, and a hundred services take most of that."""
REFUSED_SECONDS = 10.0
"""Between two questions to an agent that refuses the token."""
FOLLOW_SECONDS = 10.0
"""How long, after waking a convergence, its end is waited for."""
IDLE_SECONDS = 0.5
"""How often, with no canary to watch, it is looked whether there is one now."""
ANY_SERVICE = "svcagent"
"""Asked for where there is no canary: that it is not there is a sign of life too."""
STOP_SECONDS = 1.0
"""While it looks up a name, or connects with a host that says nothing, nothing can cut it off."""
MOST_WAKES = 20
WITHIN_SECONDS = 60.0
"""Whatever changes the canary as often as it is put right must not keep this host busy."""


@dataclass(frozen=True)
class Seen:
    """What is known of the agent. ``known``: the canary's hash; empty before it was asked, None if there is none."""

    canary: str = ""
    known: str | None = ""
    is_away: bool = False

    def about(self, canary: str) -> "Seen":
        """The same agent, watched by this canary."""
        return self if canary == self.canary else replace(self, canary=canary, known="")


def heard(seen: Seen, answer: str | None) -> tuple[Seen, bool]:
    """What is known after an answer (None: not there), and whether a convergence is to be woken.

    It is when the agent was away, and when the canary is no longer what it was. What it becomes then is for the
    convergence to say, so it is asked for anew; only that it is gone is remembered, and told once.
    """
    if not seen.canary:
        return Seen(known=None), seen.is_away
    is_waking = seen.is_away or (answer != seen.known and (answer is None or bool(seen.known)))
    return Seen(seen.canary, "" if answer and is_waking else answer), is_waking


class AgentWatch:
    """A thread from `start` to `stop`, with a connection of its own."""

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
        """Begin."""
        self._thread.start()

    def follow(self, canary: str, *, is_new: bool = False) -> None:
        """Watch this service of ours from now on, as a convergence has ended; empty: there is none.

        ``is_new``: the convergence registered it. If it is gone already, it was lost once more since then.
        """
        with self._news:
            self._canary = canary
            self._is_new = self._is_new or is_new
            self._followed += 1
            self._news.notify()

    def stop(self) -> None:
        """End it, and cut off what it waits for."""
        with self._news:
            self._is_stopping = True
            self._news.notify()
        deadline = Deadline.after(self._clock, STOP_SECONDS)
        while self._thread.is_alive() and not deadline.is_over:
            # Again and again: it may have been just about to ask.
            self._consul.hang_up()
            self._thread.join(0.05)
        if not self._thread.is_alive():
            self._consul.close()

    def _watch(self) -> None:
        seen = Seen()
        while not self._is_stopping:
            followed = self._followed
            seen = seen.about(self._canary)
            if self._is_new:
                self._is_new = False
                seen = replace(seen, known=seen.known or "")
            try:
                answer = self._ask(seen)
            except SvcagentError as error:
                if not seen.is_away:
                    self._wake_up()
                seen = replace(seen, is_away=True)
                self._pause(AWAY_SECONDS if isinstance(error, Unreachable) else REFUSED_SECONDS)
                continue
            except Exception as error:  # noqa: BLE001 - a thread that ends would notice no lost state any more
                if not seen.is_away:
                    log_bug("watching the Consul agent met a bug in svcagent; please report it", error)
                    self._wake_up()
                seen = replace(seen, is_away=True)
                self._pause(REFUSED_SECONDS)
                continue
            seen, is_waking = heard(seen, answer)
            if is_waking:
                self._wake_up()
            if seen.canary and (is_waking or seen.known is None):
                self._pause(FOLLOW_SECONDS, followed)

    def _ask(self, seen: Seen) -> str | None:
        if not seen.canary and seen.known is None and not seen.is_away:
            self._consul.stay_connected(IDLE_SECONDS)
            return None
        known = "" if seen.is_away else seen.known or ""
        return self._consul.service_hash(seen.canary or ANY_SERVICE, known, WAIT_SECONDS)

    def _wake_up(self) -> None:
        now = self._clock.monotonic()
        if len(self._wakes) == MOST_WAKES and now - self._wakes[0] < WITHIN_SECONDS:
            self._pause(REFUSED_SECONDS)
        self._wakes.append(self._clock.monotonic())
        if not self._is_stopping:
            self._wake()

    def _pause(self, seconds: float, followed: int | None = None) -> None:
        """Wait until the end; with ``followed``, until a later convergence is over."""

        def is_over() -> bool:
            return self._is_stopping or (followed is not None and self._followed != followed)

        with self._news:
            self._news.wait_for(is_over, seconds)
