"""The loop that takes the next step of a reload or recovery until none is left.

`steps` decides which step comes next; the actions are in `reload`, `recover` and `restore`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from agent.engine.swap import ReplacementState
from agent.errors import Interrupted, NotReady, SvcagentError, UnexpectedError
from agent.reload.dependencies import ReloadContext
from agent.reload.outcome import Failure, summary_of, with_report_failures
from agent.reload.probe import ProbeStatus
from agent.reload.ready import is_of_startup
from agent.reload.record import ReloadResult
from agent.reload.report import HostStateReport
from agent.reload.restore import Restoration
from agent.reload.steps import STEPS, Blame, State, Step, failed, next_step, succeeded

Action: TypeAlias = Callable[[], bool | None]
"""The action of a step. It returns False if CHECK, PLAN_AGAIN or SETTLE did not find what it looks for."""

Conclusion: TypeAlias = Callable[[ReloadResult, State, Sequence[Failure], str, int | None], ReloadResult]


class StepRunner:
    """Takes steps, records them in the journal, and turns to the way back if one fails.

    ``conclude`` fills in the result from the last state and the failures.
    """

    def __init__(
        self,
        context: ReloadContext,
        restoration: Restoration,
        state: State,
        result: ReloadResult,
        conclude: Conclusion,
    ) -> None:
        self._progress = context.progress
        self._entry = context.entry
        self._interrupts = context.deps.interrupts
        self._restoration = restoration
        self._conclude = conclude
        self.report = HostStateReport(context)
        self.state = state
        self.result = result
        self.failures: list[Failure] = []
        """The failures of steps, in order."""

    @property
    def is_returning(self) -> bool:
        """True if the old container returns to service: it must only be no worse than it was."""
        return self.state.container is not ReplacementState.NEW

    def run(
        self,
        actions: Mapping[Step, Action],
        *,
        announce: Callable[[Step], None] | None = None,
        stops_at: tuple[type[BaseException], ...] = (),
    ) -> None:
        """Take every step until the end. The way back undoes a step that raises; ``stops_at`` is raised.

        ``announce`` is called before a published step of the way forward. `Exception` is caught because the instance
        may be in maintenance: it has to return after any type of exception.
        """
        while (step := next_step(self.state)) is not Step.END:
            try:
                self.state = self._take(step, actions[step], announce)
            except stops_at:
                raise
            except (SvcagentError, Interrupted) as error:
                self._fail(step, error)
            except Exception as error:  # noqa: BLE001 - the instance may be in maintenance and has to return
                self._fail(step, self._progress.unexpected(error, f"the step {step}"))

    def publish(self) -> None:
        """Publish how the reload ends, before its lock is released: the next host reads it when it has the lock."""
        with self._progress.tolerated("publish the result"):
            ended = self._concluded(replace(self.result), "")
            self.report.publish(ended, self.state, self._running())

    def conclude(self) -> ReloadResult:
        """Fill in the result. The journal is removed unless something is left to restore, to report or to remove."""
        progress, state = self._progress, self.state
        running = ""
        with progress.tolerated("read the running version"):
            running = self._running()
        result = self._concluded(self.result, self._restoration.log_tail)
        result.running = running or None
        result.quarantined = self._restoration.quarantined
        with progress.tolerated("report the reload"):
            self.report.ended(result, state, running)
        if not (state.is_stranded or state.has_leftovers or state.blame is Blame.OWED):
            with progress.tolerated("remove the journal"):
                self._entry.remove()
        return with_report_failures(result, progress.report_failures)

    def _concluded(self, result: ReloadResult, log_tail: str) -> ReloadResult:
        return self._conclude(result, self.state, self.failures, log_tail, self._interrupts.pending)

    def _running(self) -> str:
        return self._entry.record.digest if self.state.is_newer is False else self._restoration.running()

    # ------------------------------------------------------------ one step

    def _take(self, step: Step, action: Action, announce: Callable[[Step], None] | None) -> State:
        progress, row = self._progress, STEPS[step]
        progress.begin(step)
        try:
            if not self.state.has_failed:
                if row.interruptible:
                    with self._interrupts.allowed():
                        pass
                if row.published and announce is not None:
                    announce(step)
            if row.journalled:
                self._entry.save(step=str(step), required=row.needs_journal and not self.state.has_failed)
            finding = action()
        finally:
            self.result.steps.append({"step": str(step), "seconds": round(progress.seconds, 4)})
        progress.end()
        after = succeeded(
            self.state,
            step,
            finding=finding is not False,
            is_out=self._restoration.drainer.is_out,
            is_environment=step is Step.READY and self.state.blame is Blame.OPEN and self._is_environment(),
        )
        if after.blame is not self.state.blame:
            self._entry.save(blame=str(after.blame))
        return after

    def _fail(self, step: Step, error: Failure) -> None:
        self.failures.append(error)
        self._progress.fail(step, str(error))
        is_unfit = self._is_unfit(step, error)
        record = self._entry.record
        is_versions = is_unfit and record.digest not in ("", record.digest_before)
        after = failed(
            self.state,
            step,
            is_out=self._restoration.drainer.is_out,
            is_interrupted=isinstance(error, Interrupted),
            is_unfit=is_unfit,
            is_versions=is_versions,
            is_environment=step is Step.RETURN and self._is_seen_again(),
        )
        if is_versions:
            signature = error.signature if isinstance(error, NotReady) else ""
            self._entry.save(blame=str(after.blame), why=summary_of(error), signature=signature)
        elif after.blame is not self.state.blame:
            self._entry.save(blame=str(after.blame))
        self.state = after

    # ------------------------------------------------------------ whose fault it is

    def _is_unfit(self, step: Step, error: Failure) -> bool:
        """True if the new container did not start or become ready, failed in service, or crashed a check.

        The error's type shows whose fault it may be. Only a container that is not ready, and a judgement that ends with
        an unexpected exception, count against the container and, if its digest is new, against the version.
        """
        if not STEPS[step].judges:
            return False
        if step is Step.RESTART:
            return isinstance(error, NotReady)
        if self.state.container is not ReplacementState.NEW:
            return False
        # An unexpected exception of the step clean may have come after the old container was removed.
        return isinstance(error, NotReady) or (isinstance(error, UnexpectedError) and step is not Step.CLEAN)

    def _is_environment(self) -> bool:
        """True if the old version failed in the same way, or is in service although it fails a check.

        Then the new one is not shown to be at fault. If the old one has become ready after all, that counts only once:
        a version that fails like this twice within an hour, on any host, is quarantined.
        """
        if ProbeStatus.CRITICAL in self._restoration.readiness.last_statuses.values():
            return True
        if not self._is_seen_again():
            return False
        with self._progress.tolerated("read earlier verdicts"):
            return not self.report.had_environment_verdict()
        return True

    def _is_seen_again(self) -> bool:
        signature = self._entry.record.signature
        return signature in self._restoration.signatures and not is_of_startup(signature)


def command_of(service_id: str) -> str:
    """Return the command in the name of a reload's session, by which its host recognizes the session."""
    return f"svcagent reload {service_id}"
