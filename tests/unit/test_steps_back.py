"""The way back, step by step: after a failure, and in the recovery of a reload that crashed."""

from dataclasses import replace

import pytest

from agent.engine.swap import ReplacementState
from agent.reload.steps import Blame, State, Step, failed, next_step, recovered, succeeded


def _walk(state: State, **ends: bool) -> list[Step]:
    taken: list[Step] = []
    while (step := next_step(state)) is not Step.END:
        taken.append(step)
        state = succeeded(state, step, is_out=state.is_out, **ends)
    return taken


@pytest.mark.parametrize("step", [Step.PREPARE, Step.DRAIN])
def test_a_failure_before_the_drain_only_removes_the_successor(step: Step) -> None:
    confirmed = State(is_newer=True, is_pulled=True, is_clear=True, is_locked=True, is_confirmed=True)
    state = confirmed if step is Step.PREPARE else succeeded(confirmed, Step.PREPARE)

    state = failed(state, step, is_out=False)

    assert _walk(state) == [Step.DISCARD, Step.RELEASE]


PREPARED = State(is_locked=True, container=ReplacementState.PREPARED)
SETTLING = State(is_locked=True, container=ReplacementState.NEW, is_ready=True)
BACK = [Step.ROLL_BACK, Step.READY, Step.RETURN]


@pytest.mark.parametrize(
    ("state", "step", "ended", "expected"),
    [
        # The instance is returned before its successor is removed.
        (PREPARED, Step.DRAIN, {"is_out": True}, [Step.READY, Step.RETURN, Step.DISCARD, Step.RELEASE]),
        # The container stays for a look at it.
        (
            replace(SETTLING, may_roll_back=False),
            Step.SETTLE,
            {"is_out": False, "is_versions": True},
            [Step.DRAIN_AGAIN, Step.QUARANTINE, Step.RELEASE],
        ),
        # No version is to blame, right before the return.
        (replace(SETTLING, is_out=True), Step.RETURN, {"is_out": True, "is_unfit": True}, [*BACK, Step.RELEASE]),
    ],
)
def test_the_way_after_a_failure(state: State, step: Step, ended: dict[str, bool], expected: list[Step]) -> None:
    assert _walk(failed(state, step, **ended)) == expected


@pytest.mark.parametrize(
    ("state", "step"),
    [(replace(PREPARED, has_failed=True), Step.DISCARD), (replace(SETTLING, is_settled=True), Step.CLEAN)],
)
def test_what_cannot_be_removed_is_left_to_the_next_process(state: State, step: Step) -> None:
    state = failed(state, step, is_out=False)

    assert state.has_leftovers
    assert _walk(state) == [Step.RELEASE]


@pytest.mark.parametrize(
    ("state", "step", "is_versions"),
    [
        (SETTLING, Step.SETTLE, True),
        (SETTLING, Step.SETTLE, False),
        (replace(SETTLING, is_settled=False), Step.CLEAN, False),
    ],
)
def test_a_container_that_fails_in_service_is_drained_again_and_rolled_back(
    state: State, step: Step, *, is_versions: bool
) -> None:
    """``--force`` with the digest that ran before, or a restart command: no version is to blame and quarantined."""
    state = failed(state, step, is_out=False, is_versions=is_versions, is_unfit=not is_versions)

    assert next_step(state) is Step.DRAIN_AGAIN
    quarantine = [Step.QUARANTINE] if is_versions else []
    assert _walk(succeeded(state, Step.DRAIN_AGAIN)) == [*BACK, *quarantine, Step.RELEASE]


@pytest.mark.parametrize("may_roll_back", [True, False])
def test_a_container_that_does_not_become_ready_is_rolled_back_if_allowed(*, may_roll_back: bool) -> None:
    """A failed new container goes, unless the definition says rollback: false; then it stays out, and stranded."""
    state = State(
        is_newer=True,
        is_locked=True,
        is_out=True,
        container=ReplacementState.NEW,
        is_ready=False,
        may_roll_back=may_roll_back,
    )

    after = failed(state, Step.READY, is_out=True)

    assert next_step(after) is (Step.ROLL_BACK if may_roll_back else Step.RELEASE)
    assert after.is_stranded is not may_roll_back


def test_an_interruption_rolls_back_even_where_failures_do_not() -> None:
    """Ctrl-C puts the old container back whatever ``rollback`` says: nothing is wrong with the image."""
    state = State(is_locked=True, is_out=True, container=ReplacementState.NEW, is_ready=False, may_roll_back=False)

    after = failed(state, Step.READY, is_out=True, is_interrupted=True)

    assert next_step(after) is Step.ROLL_BACK


FAILED_READY = failed(
    State(is_locked=True, is_out=True, container=ReplacementState.NEW, is_ready=False),
    Step.READY,
    is_out=True,
    is_versions=True,
)


@pytest.mark.parametrize("is_environment", [False, True])
def test_a_version_is_quarantined_when_the_old_one_is_ready(*, is_environment: bool) -> None:
    """The lock is still held, so the next host finds the entry. Not if the old one fails like it."""
    quarantine = [] if is_environment else [Step.QUARANTINE]
    assert _walk(FAILED_READY, is_environment=is_environment) == [*BACK, *quarantine, Step.RELEASE]


def test_a_version_is_not_quarantined_when_the_old_one_does_not_become_ready() -> None:
    """The instance is stranded, and nothing is known about the version."""
    state = failed(succeeded(FAILED_READY, Step.ROLL_BACK), Step.READY, is_out=True)

    assert (state.is_stranded, state.blame) == (True, Blame.ENVIRONMENT)
    assert _walk(state) == [Step.RELEASE]


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_a_settle_step_that_ends_without_a_verdict_leaves_the_new_version_in_service(*, is_interrupted: bool) -> None:
    """A signal, or a Consul that does not answer: it only tidies up and releases."""
    settling = State(is_locked=True, container=ReplacementState.NEW, is_ready=True)

    state = failed(settling, Step.SETTLE, is_out=False, is_interrupted=is_interrupted)

    assert state.is_settled is False
    assert _walk(state) == [Step.CLEAN, Step.RELEASE]


@pytest.mark.parametrize(
    ("container", "blame", "expected"),
    [
        (ReplacementState.NEW, Blame.NONE, [Step.READY, Step.RETURN, Step.SETTLE, Step.CLEAN, Step.RELEASE]),
        (ReplacementState.NEW, Blame.OPEN, [*BACK, Step.QUARANTINE, Step.RELEASE]),
        (ReplacementState.MIXED, Blame.NONE, [*BACK, Step.RELEASE]),
        (ReplacementState.OLD, Blame.NONE, [*BACK, Step.RELEASE]),
        (ReplacementState.OLD, Blame.DUE, [*BACK, Step.QUARANTINE, Step.RELEASE]),
        (ReplacementState.PREPARED, Blame.NONE, [*BACK, Step.RELEASE]),
    ],
)
def test_recovery_prefers_a_new_container(container: ReplacementState, blame: Blame, expected: list[Step]) -> None:
    """The new one that runs and is ready, else the old one, whose stop is finished before it is judged."""
    state = recovered(container, is_out=True, blame=blame, was_replacing=True, is_locked=True, may_roll_back=True)

    assert _walk(state) == expected


@pytest.mark.parametrize("is_out", [False, True])
def test_recovery_of_a_reload_that_had_only_prepared_leaves_the_container_alone(*, is_out: bool) -> None:
    """Killed between the steps prepare and restart: the old container serves, or answers, all the time."""
    state = recovered(
        ReplacementState.PREPARED,
        is_out=is_out,
        blame=Blame.NONE,
        was_replacing=False,
        is_locked=True,
        may_roll_back=True,
    )

    assert _walk(state) == [*([Step.READY, Step.RETURN] if is_out else []), Step.DISCARD, Step.RELEASE]


def test_recovery_of_a_new_container_in_service_judges_it_again() -> None:
    """The crash came in settle: what serves now is looked at, and drained again if it is not ready."""
    state = recovered(
        ReplacementState.NEW, is_out=False, blame=Blame.NONE, was_replacing=True, is_locked=False, may_roll_back=True
    )
    assert _walk(state) == [Step.READY, Step.SETTLE, Step.CLEAN]

    state = failed(state, Step.READY, is_out=False, is_versions=True)

    assert _walk(state) == [Step.DRAIN_AGAIN, Step.ROLL_BACK, Step.READY, Step.QUARANTINE]


def test_recovery_falls_back_to_the_old_container_when_the_new_one_does_not_become_ready() -> None:
    state = recovered(
        ReplacementState.NEW, is_out=True, blame=Blame.NONE, was_replacing=True, is_locked=False, may_roll_back=True
    )
    state = failed(state, Step.READY, is_out=True)
    assert next_step(state) is Step.ROLL_BACK

    state = failed(succeeded(state, Step.ROLL_BACK), Step.READY, is_out=True)

    assert next_step(state) is Step.END
    assert state.is_stranded


def test_an_operators_maintenance_is_not_disabled() -> None:
    """With --in-maintenance the new container is made ready and kept, and RETURN is never reached."""
    state, taken = State(), []
    while (step := next_step(state)) is not Step.END:
        taken.append(step)
        state = succeeded(state, step, is_out=False)

    assert Step.RETURN not in taken
    assert taken[-5:] == [Step.RESTART, Step.READY, Step.SETTLE, Step.CLEAN, Step.RELEASE]


def test_where_rolling_back_is_forbidden_recovery_leaves_the_failed_container() -> None:
    """Somebody wants to look at it; it gets one more chance to become ready, and then stays out."""
    state = recovered(
        ReplacementState.NEW, is_out=True, blame=Blame.DUE, was_replacing=True, is_locked=False, may_roll_back=False
    )
    assert next_step(state) is Step.READY

    state = failed(state, Step.READY, is_out=True)

    assert _walk(state) == [Step.QUARANTINE]
    assert state.is_stranded


def test_a_quarantine_that_could_not_be_published_is_owed() -> None:
    """The journal is kept for it (see the procedure), and the lock is released."""
    state = State(is_locked=True, container=ReplacementState.OLD, has_failed=True, blame=Blame.DUE)

    state = failed(state, Step.QUARANTINE, is_out=False)

    assert state.blame is Blame.OWED
    assert next_step(state) is Step.RELEASE


def test_a_version_is_not_quarantined_when_the_old_one_cannot_return_for_the_same_reason() -> None:
    state = succeeded(succeeded(FAILED_READY, Step.ROLL_BACK), Step.READY)
    assert state.blame is Blame.DUE

    state = failed(state, Step.RETURN, is_out=False, is_environment=True)

    assert (state.blame, state.is_stranded) == (Blame.ENVIRONMENT, True)
    assert _walk(state) == [Step.RELEASE]
