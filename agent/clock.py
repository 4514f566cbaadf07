"""Time as an argument: the clock, deadlines, waiting for a condition, and what may cut a wait short.

Nothing here knows what is waited for. Rooms take a `Clock`; tests hand in their own.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Protocol

from agent.data import dataclass
from agent.errors import Interrupted


class Clock(Protocol):
    """What waits and deadlines are measured with."""

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps."""

    def now(self) -> datetime:
        """The time of day, with a time zone."""

    def sleep(self, seconds: float) -> None:
        """Wait; not at all when ``seconds`` is zero or less."""


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    def now(self) -> datetime:
        """The time of day in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Block this thread: the only place where svcagent sleeps, so that tests can replace it.

        Callers look at a condition before and after it; no one takes the time that passed for the condition.
        """
        if seconds > 0:
            time.sleep(seconds)


@dataclass(frozen=True)
class Deadline:
    """A moment on a clock, ``at`` in its monotonic seconds."""

    clock: Clock
    at: float

    @classmethod
    def after(cls, clock: Clock, seconds: float) -> "Deadline":
        """The moment that many seconds from now."""
        return cls(clock, clock.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds left; never negative."""
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def is_over(self) -> bool:
        """Has the moment passed?"""
        return self.remaining == 0.0


def poll(condition: Callable[[], bool], deadline: Deadline, every: float) -> bool:
    """Ask until the condition holds (True) or the deadline is over (False); it is asked at least once.

    ``every``: seconds between two questions.
    """
    while not condition():
        if deadline.is_over:
            return False
        deadline.clock.sleep(min(every, deadline.remaining))
    return True


def nothing_ends_it() -> None:
    """The ``still`` of a wait that only its deadline ends."""


LOOK_SECONDS = 0.25


def linger(deadline: Deadline, still: Callable[[], None]) -> None:
    """Wait until the deadline is over; ``still`` is called time and again meanwhile, and ends the wait by raising."""
    while not deadline.is_over:
        still()
        deadline.clock.sleep(min(LOOK_SECONDS, deadline.remaining))
    still()


RAISE_AGAIN_SECONDS = 1.0


class Interrupts:
    """Turns SIGINT, SIGTERM and SIGHUP into `Interrupted`, but only where the code says that it may stop.

    Outside `allowed` a signal is kept and raised at the next place that allows it: a step that changes the world is
    never torn in the middle, and what puts the world back is not interrupted at all.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._is_allowed = False

    @contextmanager
    def caught(self) -> Iterator["Interrupts"]:
        """Own these signals inside the block; SIGHUP unless it is ignored, as under nohup. Main thread only."""
        signals = [signal.SIGINT, signal.SIGTERM, signal.SIGALRM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signals.append(signal.SIGHUP)
        before = {signum: signal.signal(signum, self._receive) for signum in signals}
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let a signal, also one that came before, raise `Interrupted` inside the block."""
        self._is_allowed = True
        try:
            if self._signum is not None:
                raise Interrupted(self._signum)
            yield
        finally:
            self._is_allowed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    @property
    def pending(self) -> int | None:
        """The number of the first signal received, if any."""
        return self._signum

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        if self._signum is None:
            self._signum = signum
        if self._is_allowed:
            # Python swallows what is raised inside a finalizer: ask again until the block is left.
            signal.setitimer(signal.ITIMER_REAL, RAISE_AGAIN_SECONDS)
            raise Interrupted(self._signum)
