"""The clock as an argument, deadlines, waiting for a condition, and signals that interrupt a wait.

This module does not know what is waited for. Other packages take a `Clock`; tests pass their own.
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
    """The clock for waits and deadlines."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps."""

    def now(self) -> datetime:
        """Return the time of day, with a time zone."""

    def sleep(self, seconds: float) -> None:
        """Wait. Return immediately if ``seconds`` is zero or less."""


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Block this thread: the only place where svcagent sleeps, so that tests can replace it.

        Callers check a condition before and after; they never treat the elapsed time as the condition.
        """
        if seconds > 0:
            time.sleep(seconds)


@dataclass(frozen=True)
class Deadline:
    """A moment on a clock; ``at`` is in that clock's monotonic seconds."""

    clock: Clock
    at: float

    @classmethod
    def after(cls, clock: Clock, seconds: float) -> "Deadline":
        return cls(clock, clock.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def is_over(self) -> bool:
        return self.remaining == 0.0


def poll(condition: Callable[[], bool], deadline: Deadline, every: float) -> bool:
    """Return True when the condition holds, or False when the deadline passes. The condition is checked at least once.

    ``every`` is the interval between two checks, in seconds.
    """
    while not condition():
        if deadline.is_over:
            return False
        deadline.clock.sleep(min(every, deadline.remaining))
    return True


def never_interrupted() -> None:
    """Do nothing: the ``check`` of a wait that only its deadline ends."""


CHECK_SECONDS = 0.25


def wait_out(deadline: Deadline, check: Callable[[], None] = never_interrupted) -> None:
    """Wait until the deadline passes. Call ``check`` repeatedly meanwhile; it ends the wait early by raising."""
    while not deadline.is_over:
        check()
        deadline.clock.sleep(min(CHECK_SECONDS, deadline.remaining))
    check()


RAISE_AGAIN_SECONDS = 1.0


class Interrupts:
    """Turns SIGINT, SIGTERM and SIGHUP into `Interrupted`, but only where the code says that it may stop.

    A signal outside `allowed` is kept and raised at the next `allowed` block. A step that changes something is
    therefore never interrupted halfway, and what undoes a failure is not interrupted at all.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._is_allowed = False

    @contextmanager
    def caught(self) -> Iterator["Interrupts"]:
        """Handle these signals inside the block; SIGHUP unless it is ignored, as under nohup. Main thread only."""
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
        """Let a signal raise `Interrupted` inside the block, also one that arrived before it."""
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
        return self._signum

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        if self._signum is None:
            self._signum = signum
        if self._is_allowed:
            # Python swallows an exception raised inside a finalizer, so raise it again until the block ends.
            signal.setitimer(signal.ITIMER_REAL, RAISE_AGAIN_SECONDS)
            raise Interrupted(self._signum)
