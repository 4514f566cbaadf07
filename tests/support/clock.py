"""A clock for tests."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class FakeClock:
    """Stands still until something sleeps or a test moves it. ``plan``: what to call at which of its `seconds`."""

    def __init__(self, now: datetime = NOON) -> None:
        self.seconds = 0.0
        self.plan: list[tuple[float, Callable[[], None]]] = []
        self._now = now

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        # A timedelta rounds what is less than a microsecond to nothing, and a wait for it would never end.
        self.seconds += max(0.0, seconds)
        self._now += timedelta(seconds=max(0.0, seconds))
        due = [one for one in self.plan if one[0] <= self.seconds]
        self.plan = [one for one in self.plan if one not in due]
        for _at, action in due:
            action()

    def advance(self, span: timedelta) -> None:
        self.sleep(span.total_seconds())

    def set(self, span: timedelta) -> None:
        """Change the time of day alone, as an operator or a suspended machine does."""
        self._now += span
