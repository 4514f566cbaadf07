"""The loop under a reload: what a journal that cannot be written stops, and what it does not."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.clock import Interrupts, SystemClock
from agent.definitions import ReloadSection, Service
from agent.engine.swap import ReplacementState
from agent.errors import NotReady, SvcagentError, UnexpectedError
from agent.reload.dependencies import ReloadContext
from agent.reload.journal import Journal, JournalEntry, JournalRecord
from agent.reload.outcome import conclude
from agent.reload.progress import Progress
from agent.reload.record import Phase, ReloadResult, StepEvent
from agent.reload.restore import Restoration
from agent.reload.runner import StepRunner
from agent.reload.steps import State, Step

HELD = State(is_newer=True, is_pulled=True, is_clear=True, is_locked=True, is_confirmed=True)


class FullDisk:
    """A journal on a disk with room for so many more writes."""

    def __init__(self, room: int) -> None:
        self._room = room

    def write(self, _record: JournalRecord) -> None:
        self._room -= 1
        if self._room < 0:
            raise SvcagentError("cannot write it: no space left on device")


class Taken:
    """A runner whose steps only note that they were taken; those named in ``failing`` fail."""

    def __init__(
        self,
        state: State,
        failing: dict[Step, Exception],
        report_event: Callable[[StepEvent], None],
        room: int = 0,
        *,
        heals: bool = False,
        before: str = "",
    ) -> None:
        deps = SimpleNamespace(clock=SystemClock(), interrupts=Interrupts())
        record = JournalRecord(
            "r", "web", "web", "web", "web", 1, "web:latest", "", digest="sha256:2", digest_before=before
        )
        progress = Progress(report_event, deps.clock, "web", "r")
        self.drainer = SimpleNamespace(is_out=state.is_out)
        context = SimpleNamespace(
            service=Service(name="web"),
            section=ReloadSection(image="web:latest", container="web"),
            deps=deps,
            progress=progress,
            entry=JournalEntry(cast("Journal", FullDisk(room)), record, progress),
        )
        restoration = SimpleNamespace(
            drainer=self.drainer, signatures=frozenset(), readiness=SimpleNamespace(last_statuses={})
        )
        self.runner = StepRunner(
            cast("ReloadContext", context),
            cast("Restoration", restoration),
            state,
            ReloadResult("web", "host1", "web:latest"),
            conclude,
        )
        self.taken: list[Step] = []
        self._failing = failing
        self._heals = heals

    @property
    def first_failure(self) -> BaseException:
        return self.runner.failures[0]

    def walk(self) -> State:
        self.runner.run({step: self._taking(step) for step in Step})
        return self.runner.state

    def _taking(self, step: Step) -> Callable[[], Any]:
        def take() -> None:
            if step in self._failing:
                raise self._failing.pop(step) if self._heals else self._failing[step]
            self.drainer.is_out = {Step.DRAIN: True, Step.DRAIN_AGAIN: True, Step.RETURN: False}.get(
                step, self.drainer.is_out
            )
            self.taken.append(step)

        return take


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State(is_newer=True, is_pulled=True, is_clear=True), []),
        (HELD, [Step.DISCARD, Step.RELEASE]),
        (replace(HELD, container=ReplacementState.PREPARED), [Step.DISCARD, Step.RELEASE]),
        (
            replace(HELD, container=ReplacementState.PREPARED, is_out=True, is_drained=True, is_ready=False),
            [Step.ROLL_BACK, Step.READY, Step.RETURN, Step.RELEASE],
        ),
    ],
)
def test_without_a_journal_nothing_is_acquired_and_everything_is_released(state: State, expected: list[Step]) -> None:
    """Acquire, prepare, drain and restart need their entry; what restores goes on, and says that it does."""
    events: list[StepEvent] = []
    reload = Taken(state, {}, events.append)

    end = reload.walk()

    assert reload.taken == expected
    assert not end.is_out
    assert bool(expected) == any(event.phase is Phase.NOTE and "without a journal" in event.text for event in events)


def test_a_bad_image_is_rolled_back_also_where_that_cannot_be_noted_down() -> None:
    """The disk is full from the moment at which its container did not start: quarantined, and the old one is back."""
    state = replace(HELD, container=ReplacementState.PREPARED, is_out=True, is_drained=True, is_ready=False)
    reload = Taken(state, {Step.RESTART: NotReady("it does not start")}, lambda _event: None, room=1)

    reload.walk()

    assert reload.taken == [Step.ROLL_BACK, Step.READY, Step.RETURN, Step.QUARANTINE, Step.RELEASE]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a"), OSError("b"), ValueError("c"), UnicodeError("d"), RecursionError("e"), MemoryError("f")],
)
@pytest.mark.parametrize(
    "step", [Step.PREPARE, Step.DRAIN, Step.RESTART, Step.READY, Step.RETURN, Step.SETTLE, Step.CLEAN]
)
def test_an_exception_of_any_type_is_that_steps_failure(step: Step, error: Exception) -> None:
    """The lock is released and the instance is returned to service, or stranded where returning it is what fails."""
    reload = Taken(HELD, {step: error}, lambda _event: None, room=100)

    end = reload.walk()

    assert not end.is_locked
    assert not end.is_out or end.is_stranded
    assert isinstance(reload.first_failure, UnexpectedError)
    assert reload.first_failure.__cause__ is error


@pytest.mark.parametrize("step", [Step.READY, Step.RETURN, Step.SETTLE])
def test_a_version_that_cannot_be_judged_is_quarantined(step: Step) -> None:
    """The old container is judged by the same code, and passes."""
    reload = Taken(HELD, {step: RuntimeError("odd")}, lambda _event: None, room=100, heals=True)

    reload.walk()

    assert Step.QUARANTINE in reload.taken


@pytest.mark.parametrize("step", [Step.READY, Step.RETURN, Step.SETTLE, Step.CLEAN])
def test_a_container_of_the_version_that_ran_before_is_rolled_back_and_not_quarantined(step: Step) -> None:
    """``reload --force`` of the same version; the container that served is kept."""
    reload = Taken(HELD, {step: NotReady("exited")}, lambda _event: None, room=100, heals=True, before="sha256:2")

    end = reload.walk()

    assert reload.taken[-4:] == [Step.ROLL_BACK, Step.READY, Step.RETURN, Step.RELEASE]
    assert Step.CLEAN not in reload.taken
    assert end.container is ReplacementState.OLD


def test_a_bug_while_the_old_container_is_removed_rolls_nothing_back() -> None:
    """It may be gone already."""
    reload = Taken(HELD, {Step.CLEAN: RuntimeError("odd")}, lambda _event: None, room=100)

    end = reload.walk()

    assert Step.ROLL_BACK not in reload.taken
    assert end.container is ReplacementState.NEW


def test_a_bug_in_a_message_stops_nothing() -> None:
    def report_event(_event: StepEvent) -> None:
        raise RuntimeError("a bug in a message")

    reload = Taken(HELD, {}, report_event, room=100)

    reload.walk()

    assert reload.taken == [
        Step.PREPARE,
        Step.DRAIN,
        Step.RESTART,
        Step.READY,
        Step.RETURN,
        Step.SETTLE,
        Step.CLEAN,
        Step.RELEASE,
    ]
