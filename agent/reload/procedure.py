"""Taking step after step until none is left: what a reload and its recovery have in common.

Which step comes next is decided in `steps`; what a step does, in `execute`, `recover` and `restore`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from agent.errors import Interrupted, NotReady, SvcagentError
from agent.fleet import Quarantine, quarantine
from agent.reload.conclude import Trouble
from agent.reload.edges import Edges
from agent.reload.journal import Record
from agent.reload.record import Event, Phase, Result
from agent.reload.report import Report
from agent.reload.restore import Restoration
from agent.reload.steps import DISRUPTIVE, Container, State, Step, failed, next_step, succeeded
from agent.reload.steps import Quarantine as Quarantined

Conclusion: TypeAlias = Callable[[Result, State, Sequence[Trouble], str, int | None], Result]

# Nothing is to be put back after them, so a crash in them needs no journal.
UNJOURNALLED = frozenset({Step.CHECK, Step.PULL, Step.GUARD, Step.PLAN_AGAIN, Step.READY})

TAKING = DISRUPTIVE | {Step.ACQUIRE}
"""What they take must be given back after a crash: no journal, no taking."""


class Procedure:
    """The loop, its journal and its report; what is done in it comes from those who inherit."""

    def __init__(self, edges: Edges, restoration: Restoration, state: State, record: Record, result: Result) -> None:
        self._edges = edges
        self._restoration = restoration
        self._state = state
        self._record = record
        self._step = Step.END
        self._step_began = 0.0
        self._failed_step: Step | None = None
        self._troubles: list[Trouble] = []
        _repository, _, tag = record.image.rpartition(":")
        self._report = Report(edges, record.service, tag, self._tell_note)
        self.result = result

    def _walk(
        self, carry_out: Mapping[Step, Callable[[], bool | None]], stops_at: tuple[type[BaseException], ...] = ()
    ) -> None:
        """Every step until the end. What fails is kept as trouble and the way goes on; ``stops_at`` is raised."""
        while (step := next_step(self._state)) is not Step.END:
            try:
                self._state = self._take(step, carry_out[step])
            except stops_at:
                raise
            except (SvcagentError, Interrupted) as error:
                self._troubles.append(error)
                self._failed_step = self._failed_step or step
                self._tell(Phase.FAILED, str(error))
                self._state = self._after(step, error)

    def _concluded(self, conclude: Conclusion) -> Result:
        """The result filled in; the journal stays only where there is something left to put back."""
        # What is left out is known to the restoration better than to the state: it may have failed after lifting.
        state = replace(self._state, is_out=self._restoration.is_out)
        words = self._restoration.last_words
        result = conclude(self.result, state, self._troubles, words, self._edges.interrupts.pending)
        running = self._record.digest if state.is_newer is False else self._restoration.running()
        result.running = running or None
        self._report.ended(result, self._record, running)
        if not state.is_stranded and state.quarantine is not Quarantined.OWED:
            try:
                self._edges.journal.remove()
            except SvcagentError as error:
                self._tell_note(str(error))
        return result

    def _take(self, step: Step, action: Callable[[], bool | None]) -> State:
        self._step, self._step_began = step, self._edges.clock.monotonic()
        self._tell(Phase.BEGIN)
        try:
            self._may_begin(step)
            if step not in UNJOURNALLED:
                is_required = not self._state.has_failed and step in TAKING
                self._note_down(step=str(step), is_required=is_required)
            finding = action()
        finally:
            seconds = self._edges.clock.monotonic() - self._step_began
            self.result.steps.append({"step": str(step), "seconds": round(seconds, 4)})
        self._tell(Phase.END)
        return succeeded(self._state, step, is_newer=finding is not False, is_out=self._restoration.is_out)

    def _may_begin(self, step: Step) -> None:
        """Raise what keeps a step from beginning."""

    def _after(self, step: Step, error: Trouble) -> State:
        is_bad = self._blames(step, error)
        if is_bad:
            self._note_down(is_bad=True, why=str(error))
        return failed(
            self._state,
            step,
            is_out=self._restoration.is_out,
            is_interrupted=isinstance(error, Interrupted),
            is_bad_image=is_bad,
        )

    def _blames(self, step: Step, error: Trouble) -> bool:
        """Did the container of a new digest not start, or not become ready?"""
        is_new = step is Step.RESTART or (step is Step.READY and self._state.container is Container.NEW)
        is_new = is_new and self._record.digest not in ("", self._record.digest_before)
        return is_new and isinstance(error, NotReady)

    def _note_down(self, *, is_required: bool = False, **changes: object) -> None:
        """Bring the journal up to date.

        :raises SvcagentError: it cannot be written, and what comes must not begin without. What restores goes on.
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
            self._tell_note(f"going on without a journal: {error}")

    def _quarantine(self) -> None:
        """Tell the fleet that the digest is bad; its container's last words go with it."""
        self._restoration.remember_last_words()
        entry = Quarantine(
            digest=self._record.digest,
            node=self._edges.agent.node,
            since=self._edges.clock.now(),
            why=self._record.why,
            image=self._record.image,
            log=self._restoration.last_words,
        )
        quarantine.put(self._edges.consul, self._record.service, entry)
        self._tell_note(
            f"{self._record.digest} is quarantined: no host takes it. To allow it again: "
            f"svcagent quarantine clear {self._record.service} {self._record.digest}"
        )

    def _tell(self, phase: Phase, text: str = "", place: int | None = None) -> None:
        seconds = self._edges.clock.monotonic() - self._step_began
        self._edges.tell(Event(self._step, phase, seconds, text, self.result.id, place))

    def _tell_note(self, text: str) -> None:
        self._tell(Phase.NOTE, text)


def command_of(service_id: str) -> str:
    """What a reload's session is named for, so that its host knows it again."""
    return f"svcagent reload {service_id}"
