"""Reports about a reload while it runs. A report that fails is kept for the result and stops nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.clock import Clock
from agent.errors import SvcagentError, UnexpectedError
from agent.logs import log_bug
from agent.reload.record import Phase, StepEvent
from agent.reload.steps import Step


class Progress:
    def __init__(self, report_event: Callable[[StepEvent], None], clock: Clock, service: str, reload_id: str) -> None:
        self._report_event = report_event
        self._clock = clock
        self._service = service
        self._reload_id = reload_id
        self._began = 0.0
        self.step = Step.END
        """The step that was begun last."""
        self.failed_step: Step | None = None
        """The first step that failed."""
        self.report_failures: list[SvcagentError] = []
        """Failures outside the steps, which stopped nothing."""

    @property
    def seconds(self) -> float:
        return self._clock.monotonic() - self._began

    def begin(self, step: Step) -> None:
        self.step, self._began = step, self._clock.monotonic()
        self._report(Phase.BEGIN)

    def end(self) -> None:
        self._report(Phase.END)

    def fail(self, step: Step, text: str) -> None:
        self.failed_step = self.failed_step or step
        self._report(Phase.FAILED, text)

    def note(self, text: str, place: int | None = None) -> None:
        """Report something that is not a failure. ``place``: the new position in the queue for the lock."""
        self._report(Phase.NOTE, text, place)

    def unexpected(self, error: Exception, what: str) -> UnexpectedError:
        """Log an unexpected exception with its traceback, and return it as an `UnexpectedError` error."""
        found = UnexpectedError.of(error, what)
        with self.tolerated("log an error"):
            log_bug(str(found), error, service=self._service, reload=self._reload_id)
        return found

    @contextmanager
    def tolerated(self, what: str) -> Iterator[None]:
        """Continue after any failure in the block, which only reports about the reload.

        `Exception` is caught because a full disk, a closed terminal or a bug in a message must not keep an instance in
        maintenance.
        """
        try:
            yield
        except SvcagentError as error:
            self.report_failures.append(error)
        except Exception as error:  # noqa: BLE001 - a report that fails must not keep the instance in maintenance
            self.report_failures.append(UnexpectedError.of(error, f"the attempt to {what}"))

    def _report(self, phase: Phase, text: str = "", place: int | None = None) -> None:
        with self.tolerated("report an event"):
            self._report_event(StepEvent(self.step, phase, self.seconds, text, self._reload_id, place))
