"""Retry reloads that were killed or failed for a temporary reason: their schedule may be a day away."""

import asyncio
from collections.abc import Callable, Sequence

RETRY_SECONDS = (30.0, 60.0, 120.0, 300.0, 600.0)
"""Pauses between attempts; the last one repeats."""


class Retries:
    """One timer per service. ``begin`` is called with the service's ID on the event loop.

    ``jitter`` returns the factor by which pauses differ between hosts.
    """

    def __init__(
        self,
        begin: Callable[[str], None],
        pauses: Sequence[float] = RETRY_SECONDS,
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._jitter = jitter
        self._begin = begin
        self._pauses = pauses
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def failed(self, service_id: str, at_least: float = 0.0) -> float:
        """Count a failure. Return the seconds until the next attempt, at least ``at_least``."""
        self._cancel(service_id)
        count = self._failures.get(service_id, 0)
        self._failures[service_id] = count + 1
        factor = self._jitter()
        # A server's own minimum is spread upwards, so that no host retries too early.
        pause = max(self._pauses[min(count, len(self._pauses) - 1)] * factor, at_least * (2 - factor))
        self._timers[service_id] = asyncio.get_running_loop().call_later(pause, self._try, service_id)
        return pause

    def is_pending(self, service_id: str) -> bool:
        """True if a retry is scheduled."""
        return service_id in self._timers

    def over(self, service_id: str) -> None:
        """Forget a service: its reload ended in a way that a retry does not change."""
        self._cancel(service_id)
        self._failures.pop(service_id, None)

    def stop(self) -> None:
        for service_id in list(self._timers):
            self._cancel(service_id)

    def _try(self, service_id: str) -> None:
        del self._timers[service_id]
        self._begin(service_id)

    def _cancel(self, service_id: str) -> None:
        if service_id in self._timers:
            self._timers.pop(service_id).cancel()
