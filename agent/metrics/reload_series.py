"""The metrics of reloads."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent.clock import Clock
from agent.errors import TemporaryRefusal
from agent.metrics.series import SeriesGroup
from agent.outcomes import NEWEST_RUNS, Outcome

if TYPE_CHECKING:
    from agent.reload.host_lock import HostReload

STEP_SECONDS = (0.1, 1, 5, 30, 120, 600)
WAIT_SECONDS = (0.1, 1, 10, 60, 300, 1800, 3600)


class ReloadSeries(SeriesGroup):
    """The series of every service that is reloaded here."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._ended = self._series(
            "svcagent_reloads_total", "Reloads that ended, and recoveries, by how.", "service", "result"
        )
        self._steps = self._histogram(
            "svcagent_reload_step_seconds", "How long the steps of reloads took.", ("service", "step"), STEP_SECONDS
        )
        self._waits = self._histogram(
            "svcagent_lock_wait_seconds", "How long reloads waited for the fleet's lock.", ("service",), WAIT_SECONDS
        )
        self._last_run = self._series(
            "svcagent_last_run_timestamp_seconds", "When a reload last ended, however.", "service"
        )
        self._last_success = self._series(
            "svcagent_last_success_timestamp_seconds",
            "When a reload last ended with what is wanted running.",
            "service",
        )
        self._stranded = self._series(
            "svcagent_stranded", "1 if a reload left the instance out of service and could not put it back.", "service"
        )
        self._image = self._series(
            "svcagent_image_info", "The digest that runs, as the last reload saw it.", "service", "image", "digest"
        )
        self._queue = self._series(
            "svcagent_lock_queue_length",
            "The place in the line for the lock of a reload that waits; 1 is next.",
            "service",
            lasting=False,
        )
        self._step_since = self._series(
            "svcagent_reload_step_since_timestamp_seconds",
            "When the step began that a running reload is at.",
            "service",
            "step",
            lasting=False,
        )

    def keep_only(self, services: Iterable[str]) -> None:
        """Restrict the series to these services. New ones begin with zeros."""
        wanted = frozenset(services)
        for service in {labels[0] for labels in self._ended.values} - wanted:
            for family in self.families:
                family.forget(service)
        for service in sorted(wanted):
            self._publish_zeros(service)

    def run(self, running: "Iterable[tuple[str, HostReload]]") -> None:
        self._queue.values, self._step_since.values = {}, {}
        for service, said in running:
            self._step_since.set(datetime.fromisoformat(said.since).timestamp(), service, said.step)
            if said.place is not None:
                self._queue.set(said.place, service)

    def ended(self, result: Mapping[str, Any]) -> None:
        service, outcome = str(result["service"]), _outcome(result)
        self._publish_zeros(service)
        self._ended.add(service, outcome)
        self._last_run.set(self._now(), service)
        if outcome in NEWEST_RUNS:
            self._last_success.set(self._now(), service)
        # A reload with an ID has repaired what the previous one left.
        if outcome in (Outcome.STRANDED, Outcome.RECOVERED) or result.get("id"):
            self._stranded.set(outcome == Outcome.STRANDED, service)
        if result.get("image") and result.get("running"):
            self._image.forget(service)
            self._image.set(1, service, str(result["image"]), str(result["running"]))
        for step in result.get("steps") or ():
            self._steps.observe(step["seconds"], service, step["step"])
            if step["step"] == "acquire":
                self._waits.observe(step["seconds"], service)

    def _publish_zeros(self, service: str) -> None:
        """Publish zeros first: Prometheus sees no increase in a series that begins with 1."""
        for result in Outcome:
            self._ended.add(service, result, by=0)
        self._stranded.add(service, by=0)


def _outcome(result: Mapping[str, Any]) -> str:
    """Return the outcome of the result; for a command that ended before it had one, by exit code."""
    if outcome := result.get("outcome"):
        return str(outcome)
    code = int(result.get("exit_code", 1))
    if code == TemporaryRefusal.exit_code:
        return Outcome.REFUSED
    return Outcome.INTERRUPTED if code >= 128 else Outcome.FAILED
