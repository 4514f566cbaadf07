"""The step function, over every state that success and failure can reach."""

import itertools
from collections.abc import Iterator

from agent.engine.swap import ReplacementState
from agent.reload.steps import STEPS, Blame, State, Step, failed, next_step, recovered, succeeded


def _outcomes(state: State, step: Step) -> Iterator[State]:
    """Every way in which a step can end."""
    if step in (Step.CHECK, Step.PLAN_AGAIN, Step.SETTLE):
        yield succeeded(state, step, finding=False, is_out=state.is_out)
    if step in (Step.DRAIN, Step.DRAIN_AGAIN):
        yield succeeded(state, step, is_out=False)  # an operator's maintenance is on, and may stay
    if step is Step.READY:
        yield succeeded(state, step, is_out=state.is_out, is_environment=True)
    yield succeeded(state, step)
    may_be_out = [state.is_out, True] if step in (Step.DRAIN, Step.DRAIN_AGAIN) else [state.is_out]
    if step is Step.RETURN:
        may_be_out = [True, False]  # disabled, but not seen as served
    may_judge = step is Step.RESTART or (STEPS[step].judges and state.container is ReplacementState.NEW)
    for is_out in may_be_out:
        for is_interrupted, is_versions in ((False, False), (True, False), *(((False, True),) if may_judge else ())):
            yield failed(state, step, is_out=is_out, is_interrupted=is_interrupted, is_versions=is_versions)
        if may_judge:
            yield failed(state, step, is_out=is_out, is_unfit=True)
        if step is Step.RETURN:
            yield failed(state, step, is_out=is_out, is_environment=True)


def _recoveries() -> list[State]:
    """Every state that a crash may leave."""
    return [
        recovered(container, is_out=is_out, blame=blame, was_replacing=replacing, is_locked=locked, may_roll_back=may)
        for container in ReplacementState
        for blame in (Blame.NONE, Blame.OPEN, Blame.DUE, Blame.ENVIRONMENT)
        for is_out, replacing, locked, may in itertools.product((False, True), repeat=4)
    ]


def _transitions() -> Iterator[tuple[State, Step, State]]:
    seen: set[State] = set()
    waiting = [State(), State(may_roll_back=False), *_recoveries()]
    while waiting:
        state = waiting.pop()
        if state in seen:
            continue
        seen.add(state)
        step = next_step(state)
        if step is Step.END:
            continue
        for after in _outcomes(state, step):
            yield state, step, after
            waiting.append(after)


TRANSITIONS = list(_transitions())


def test_the_way_forward_is_the_step_table() -> None:
    """Without failure the steps come in the documented order, each once."""
    state, taken = State(), []
    while (step := next_step(state)) is not Step.END:
        taken.append(step)
        state = succeeded(state, step)

    assert taken == [
        Step.CHECK,
        Step.PULL,
        Step.GUARD,
        Step.ACQUIRE,
        Step.PLAN_AGAIN,
        Step.PREPARE,
        Step.DRAIN,
        Step.RESTART,
        Step.READY,
        Step.RETURN,
        Step.SETTLE,
        Step.CLEAN,
        Step.RELEASE,
    ]


def test_nothing_newer_ends_after_the_check() -> None:
    """No pull, no guard, no lock when the running image is the newest."""
    state = succeeded(State(), Step.CHECK, finding=False)

    assert next_step(state) is Step.END


def test_found_done_by_another_under_the_lock_only_releases() -> None:
    """What another process has done meanwhile is not done again."""
    state = State(is_newer=True, is_pulled=True, is_clear=True, is_locked=True)

    after = succeeded(state, Step.PLAN_AGAIN, finding=False)

    assert next_step(after) is Step.RELEASE


def test_steps_that_need_the_lock_have_it_and_disruptive_ones_are_never_taken_on_the_way_back() -> None:
    """DRAIN and RESTART also need what PLAN_AGAIN confirms under the lock."""
    for state, step, _after in TRANSITIONS:
        if STEPS[step].needs_lock:
            assert state.is_locked
            assert not state.has_failed
        if STEPS[step].disruptive:
            assert STEPS[step].needs_lock
            assert state.is_confirmed


def test_a_successor_is_made_under_the_lock_and_is_there_before_anything_is_drained() -> None:
    """PREPARE comes between the second guard and DRAIN; RESTART uses what it made."""
    for state, step, _after in TRANSITIONS:
        if step is Step.PREPARE:
            assert state.is_locked
            assert state.is_confirmed
            assert not state.is_out
            assert not state.has_failed
        if step in (Step.DRAIN, Step.RESTART):
            assert state.container is ReplacementState.PREPARED


def test_a_successor_that_was_not_used_is_removed_before_the_end() -> None:
    """On the way back, once the instance is in service; nothing is stopped, rolled back or judged for it."""
    for _state, _step, after in TRANSITIONS:
        if next_step(after) is Step.END:
            assert after.container is not ReplacementState.PREPARED


def test_maintenance_is_disabled_on_a_ready_instance_only() -> None:
    """RETURN is reached only when the container that stands there is known to be ready."""
    for state, step, _after in TRANSITIONS:
        if step is Step.RETURN:
            assert state.is_ready
            assert state.container is not ReplacementState.MIXED


def test_the_old_container_is_given_up_only_for_a_ready_one_in_service() -> None:
    """CLEAN removes the old container: never before the new one serves."""
    for state, step, _after in TRANSITIONS:
        if step is Step.CLEAN:
            assert state.is_ready
            assert state.container is ReplacementState.NEW
            assert not state.is_out
            assert state.is_settled is not None


def test_a_version_that_fails_in_service_is_drained_before_the_old_one_is_started() -> None:
    """ROLL_BACK stops the new container: clients have been sent away before."""
    for state, step, _after in TRANSITIONS:
        if step is Step.ROLL_BACK and state.container is ReplacementState.NEW:
            assert state.is_out or state.is_drained_again


def test_every_outcome_releases_what_was_acquired() -> None:
    """At the end the lock is released, and maintenance is lifted unless the instance is stranded."""
    ends = [after for _state, _step, after in TRANSITIONS if next_step(after) is Step.END]

    assert ends
    for end in ends:
        assert not end.is_locked
        assert not end.is_out or end.is_stranded
        assert end.blame not in (Blame.OPEN, Blame.DUE)


def test_no_failure_loops() -> None:
    """From every state the end is near, even if every further step fails."""
    for _state, _step, after in TRANSITIONS:
        state, taken = after, 0
        while (step := next_step(state)) is not Step.END:
            state = failed(state, step, is_out=state.is_out)
            taken += 1
            assert taken < 10


def test_the_lock_is_never_released_before_a_bad_digest_was_quarantined_or_that_failed() -> None:
    for state, step, _after in TRANSITIONS:
        if step is Step.RELEASE:
            assert state.blame in (Blame.NONE, Blame.OWED, Blame.ENVIRONMENT)


def test_recovery_takes_no_disruptive_step() -> None:
    for state in _recoveries():
        current = state
        while (step := next_step(current)) is not Step.END:
            assert not STEPS[step].disruptive
            current = succeeded(current, step)
