"""The loop that a reload and its recovery have in common: take the next step until none is left.

Which step comes next is decided in `steps`; what a step does, in `execute`, `recover` and `restore`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

from agent.errors import Interrupted, NotReady, SvcagentError, Unforeseen
from agent.fleet import Quarantine, quarantine
from agent.logs import log_bug
from agent.reload.conclude import Trouble, summary_of, with_mishaps
from agent.reload.edges import Edges
from agent.reload.journal import Record
from agent.reload.probe import Status
from agent.reload.ready import is_of_startup
from agent.reload.record import Event, Phase, Result
from agent.reload.report import Report
from agent.reload.restore import Restoration
from agent.reload.steps import STEPS, Blame, Container, State, Step, failed, next_step, succeeded

Conclusion: TypeAlias = Callable[[Result, State, Sequence[Trouble], str, int | None], Result]


class Procedure:
    """The loop with its journal and its report. Subclasses say what each step does."""

    def __init__(self, edges: Edges, restoration: Restoration, state: State, record: Record, result: Result) -> None:
        self._edges = edges
        self._restoration = restoration
        self._state = state
        self._record = record
        self._step = Step.END
        self._step_began = 0.0
        self._failed_step: Step | None = None
        self._troubles: list[Trouble] = []
        self._mishaps: list[SvcagentError] = []
        _repository, _, tag = record.image.rpartition(":")
        self._report = Report(edges, record, tag, self._tell_note)
        self.result = result

    def _walk(
        self, carry_out: Mapping[Step, Callable[[], bool | None]], stops_at: tuple[type[BaseException], ...] = ()
    ) -> None:
        """Take every step until the end. A step that raises is undone on the way back; ``stops_at`` is raised.

        `Exception` is caught here, because the instance may be in maintenance: whatever ends a step, and of whatever
        type it is, the instance has to return.
        """
        while (step := next_step(self._state)) is not Step.END:
            try:
                self._state = self._take(step, carry_out[step])
            except stops_at:
                raise
            except (SvcagentError, Interrupted) as error:
                self._fail(step, error)
            except Exception as error:  # noqa: BLE001 - the instance may be in maintenance and has to return
                self._fail(step, self._unforeseen(error, f"the step {step}"))

    def _fail(self, step: Step, error: Trouble) -> None:
        self._troubles.append(error)
        self._failed_step = self._failed_step or step
        self._tell(Phase.FAILED, str(error))
        self._state = self._after(step, error)

    def _unforeseen(self, error: Exception, what: str) -> Unforeseen:
        """Log an unexpected exception with its trace, and return it as an `Unforeseen` error."""
        found = Unforeseen.of(error, what)
        with self._survived("log an error"):
            log_bug(str(found), error, service=self._record.service, reload=self._record.reload_id)
        return found

    @contextmanager
    def _survived(self, what: str) -> Iterator[None]:
        """Go on after any failure in the block, which concerns only what is reported about the reload.

        `Exception` is caught, because a full disk, a closed terminal or a bug in a message must not keep an instance
        in maintenance.
        """
        try:
            yield
        except SvcagentError as error:
            self._mishaps.append(error)
        except Exception as error:  # noqa: BLE001 - a report that fails must not keep the instance in maintenance
            self._mishaps.append(Unforeseen.of(error, f"the attempt to {what}"))

    def _concluded(self, conclude: Conclusion) -> Result:
        """Fill in the result. The journal is removed unless something is left to restore, to report or to remove."""
        # The restoration knows better than the state whether own maintenance is on: a step may have failed after it.
        state = replace(self._state, is_out=self._restoration.is_out)
        tail = self._restoration.log_tail
        running = ""
        with self._survived("read the running version"):
            running = self._record.digest if state.is_newer is False else self._restoration.running()
        result = conclude(self.result, state, self._troubles, tail, self._edges.interrupts.pending)
        result.running = running or None
        with self._survived("report the reload"):
            self._report.ended(result, state, self._record, running)
        if not (state.is_stranded or state.has_leftovers or state.blame is Blame.OWED):
            with self._survived("remove the journal"):
                self._edges.journal.remove()
        return with_mishaps(result, self._mishaps)

    def _publish(self, conclude: Conclusion) -> None:
        """Publish how the reload ends, before its lock is released: the next host reads it when it has the lock."""
        with self._survived("publish the result"):
            state = replace(self._state, is_out=self._restoration.is_out)
            ended = conclude(replace(self.result), state, self._troubles, "", self._edges.interrupts.pending)
            running = self._record.digest if state.is_newer is False else self._restoration.running()
            self._report.publish(ended, state, self._record, running)

    def _take(self, step: Step, action: Callable[[], bool | None]) -> State:
        self._step, self._step_began = step, self._edges.clock.monotonic()
        properties = STEPS[step]
        self._tell(Phase.BEGIN)
        try:
            self._may_begin(step)
            if properties.journalled:
                self._note_down(step=str(step), is_required=properties.needs_journal and not self._state.has_failed)
            finding = action()
        finally:
            seconds = self._edges.clock.monotonic() - self._step_began
            self.result.steps.append({"step": str(step), "seconds": round(seconds, 4)})
        self._tell(Phase.END)
        after = succeeded(
            self._state,
            step,
            finding=finding is not False,
            is_out=self._restoration.is_out,
            is_environment=step is Step.READY and self._state.blame is Blame.OPEN and self._is_environment(),
        )
        if after.blame is not self._state.blame:
            self._note_down(blame=str(after.blame))
        return after

    def _may_begin(self, step: Step) -> None:
        """Raise what keeps a step from beginning."""

    def _after(self, step: Step, error: Trouble) -> State:
        is_unfit = self._is_unfit(step, error)
        is_versions = is_unfit and self._record.digest not in ("", self._record.digest_before)
        after = failed(
            self._state,
            step,
            is_out=self._restoration.is_out,
            is_interrupted=isinstance(error, Interrupted),
            is_unfit=is_unfit,
            is_versions=is_versions,
            is_environment=step is Step.RETURN and self._is_seen_again(),
        )
        if is_versions:
            signature = error.signature if isinstance(error, NotReady) else ""
            self._note_down(blame=str(after.blame), why=summary_of(error), signature=signature)
        elif after.blame is not self._state.blame:
            self._note_down(blame=str(after.blame))
        return after

    def _is_unfit(self, step: Step, error: Trouble) -> bool:
        """True if the new container did not start or become ready, failed in service, or crashed a check.

        The type of the error says whose fault it may be: only a container that is not ready, and a judgement that ends
        with an unexpected exception, count against the container, and, if it is of a new digest, against the version.
        """
        if not STEPS[step].judges:
            return False
        if step is Step.RESTART:
            return isinstance(error, NotReady)
        if self._state.container is not Container.NEW:
            return False
        # An unexpected exception of the step clean may have come after the old container was removed.
        return isinstance(error, NotReady) or (isinstance(error, Unforeseen) and step is not Step.CLEAN)

    def _is_environment(self) -> bool:
        """True if the old version failed in the same way, or is in service although it fails a check.

        Then the new one is not shown to be at fault. Where the old one has become ready after all, that counts only
        once: a version that fails like this twice within an hour, on any host, is quarantined.
        """
        if Status.CRITICAL in self._restoration.readiness.last_statuses.values():
            return True
        if not self._is_seen_again():
            return False
        with self._survived("read earlier verdicts"):
            return not self._report.had_environment_verdict(self._record.digest)
        return True

    def _is_seen_again(self) -> bool:
        """True if the old version has failed like the new one."""
        signature = self._record.signature
        return signature in self._restoration.signatures and not is_of_startup(signature)

    def _note_down(self, *, is_required: bool = False, **changes: object) -> None:
        """Update the journal.

        A step that restores the instance goes on without a journal, whatever keeps it from being written.

        :raises SvcagentError: it cannot be written, and ``is_required``.
        """
        record = replace(self._record, **changes)  # type: ignore[arg-type]  # the keys are its own fields
        if record == self._record:
            return
        self._record = record
        try:
            self._edges.journal.write(record)
        except SvcagentError as error:
            if is_required:
                raise
            self._tell_note(f"continuing without a journal: {error}")
        except Exception as error:
            if is_required:
                raise
            self._tell_note(f"continuing without a journal: {self._unforeseen(error, 'writing it')}")

    def _quarantine(self) -> None:
        """Publish that the digest failed here, so that no host takes it."""
        self._restoration.remember_log_tail()
        entry = Quarantine(
            digest=self._record.digest,
            node=self._edges.agent.node,
            since=self._edges.clock.now(),
            why=self._record.why,
            image=self._record.image,
            log=self._restoration.log_tail if self._edges.shares_log_tails else "",
        )
        self._restoration.insist(lambda: quarantine.put(self._edges.consul, self._record.service, entry))
        self._tell_note(
            f"{self._record.digest} is quarantined: no host takes it. To allow it again: "
            f"svcagent quarantine clear {self._record.service} {self._record.digest}"
        )

    def _tell(self, phase: Phase, text: str = "", place: int | None = None) -> None:
        """Report an event of the current step. A failure to print or log it is ignored here."""
        with self._survived("report an event"):
            seconds = self._edges.clock.monotonic() - self._step_began
            self._edges.tell(Event(self._step, phase, seconds, text, self.result.id, place))

    def _tell_note(self, text: str) -> None:
        self._tell(Phase.NOTE, text)


def command_of(service_id: str) -> str:
    """Return the command in the name of a reload's session, by which its host recognises the session."""
    return f"svcagent reload {service_id}"
