"""The step function, over every state that success and failure can reach."""

import itertools
from collections.abc import Iterator

import pytest

from agent.reload.steps import DISRUPTIVE, Container, Quarantine, State, Step, failed, next_step, recovered, succeeded


def _outcomes(state: State, step: Step) -> Iterator[State]:
    """Every way in which a step can end."""
    if step in (Step.CHECK, Step.PLAN_AGAIN):
        yield succeeded(state, step, is_newer=False)
    if step is Step.DRAIN:
        yield succeeded(state, step, is_out=False)  # an operator's maintenance is on, and may stay
    yield succeeded(state, step)
    may_be_out = [state.is_out, True] if step is Step.DRAIN else [state.is_out]
    if step is Step.RETURN:
        may_be_out = [True, False]  # lifted, but not seen as passing
    for is_out in may_be_out:
        for is_interrupted, is_bad in ((False, False), (True, False), (False, step in (Step.RESTART, Step.READY))):
            is_bad = is_bad and state.container is not Container.OLD
            yield failed(state, step, is_out=is_out, is_interrupted=is_interrupted, is_bad_image=is_bad)


def _recoveries() -> list[State]:
    """Every state that a crash may leave."""
    return [
        recovered(
            container,
            is_out=is_out,
            is_bad=is_bad,
            was_replacing=replacing,
            is_locked=locked,
            may_roll_back=may,
            is_settled=settled and not is_out and container is not Container.MIXED,
        )
        for container in Container
        for is_out, is_bad, replacing, locked, may, settled in itertools.product((False, True), repeat=6)
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
    """Without trouble the steps come in the documented order, each once."""
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
        Step.DRAIN,
        Step.RESTART,
        Step.READY,
        Step.RETURN,
        Step.CLEAN,
        Step.RELEASE,
    ]


def test_nothing_newer_ends_after_the_check() -> None:
    """No pull, no guard, no lock when the running image is the newest."""
    state = succeeded(State(), Step.CHECK, is_newer=False)

    assert next_step(state) is Step.END


def test_found_done_by_another_under_the_lock_only_releases() -> None:
    """What another process has done meanwhile is not done again."""
    state = State(is_newer=True, is_pulled=True, is_clear=True, is_locked=True)

    after = succeeded(state, Step.PLAN_AGAIN, is_newer=False)

    assert next_step(after) is Step.RELEASE


def test_disruptive_steps_need_the_lock_and_no_trouble() -> None:
    """DRAIN and RESTART are reached with the lock held, confirmed under it, and never on the way back."""
    for state, step, _after in TRANSITIONS:
        if step in DISRUPTIVE:
            assert state.is_locked
            assert state.is_confirmed
            assert not state.has_failed


def test_maintenance_is_lifted_on_a_ready_instance_only() -> None:
    """RETURN is reached only when the container that stands there is known to be ready."""
    for state, step, _after in TRANSITIONS:
        if step is Step.RETURN:
            assert state.is_ready
            assert state.container is not Container.MIXED


def test_the_old_container_is_given_up_only_for_a_ready_one_in_service() -> None:
    """CLEAN removes the old container: never before the new one serves."""
    for state, step, _after in TRANSITIONS:
        if step is Step.CLEAN:
            assert state.is_ready
            assert state.container is Container.NEW
            assert not state.is_out


def test_every_end_has_given_back_what_was_taken() -> None:
    """At the end the lock is released, and maintenance is lifted unless the instance is stranded."""
    ends = [after for _state, _step, after in TRANSITIONS if next_step(after) is Step.END]

    assert ends
    for end in ends:
        assert not end.is_locked
        assert not end.is_out or end.is_stranded


def test_no_failure_loops() -> None:
    """From every state the end is near, even if every further step fails."""
    for _state, _step, after in TRANSITIONS:
        state, taken = after, 0
        while (step := next_step(state)) is not Step.END:
            state = failed(state, step, is_out=state.is_out)
            taken += 1
            assert taken < 10


@pytest.mark.parametrize("may_roll_back", [True, False])
def test_a_container_that_does_not_become_ready_is_rolled_back_if_allowed(*, may_roll_back: bool) -> None:
    """A failed new container goes, unless the definition says rollback: false; then it stays out, and stranded."""
    state = State(
        is_newer=True,
        is_locked=True,
        is_out=True,
        container=Container.NEW,
        is_ready=False,
        may_roll_back=may_roll_back,
    )

    after = failed(state, Step.READY, is_out=True)

    assert next_step(after) is (Step.ROLL_BACK if may_roll_back else Step.RELEASE)
    assert after.is_stranded is not may_roll_back


def test_an_interruption_rolls_back_even_where_failures_do_not() -> None:
    """Ctrl-C puts the old container back whatever ``rollback`` says: nothing is wrong with the image."""
    state = State(is_locked=True, is_out=True, container=Container.NEW, is_ready=False, may_roll_back=False)

    after = failed(state, Step.READY, is_out=True, is_interrupted=True)

    assert next_step(after) is Step.ROLL_BACK


def test_a_bad_digest_is_quarantined_before_the_roll_back_and_again_after_it_if_that_failed() -> None:
    """The fleet hears of it while the lock is held; a Consul that does not answer does not keep the old one out."""
    state = State(is_locked=True, is_out=True, container=Container.NEW, is_ready=False)
    bad = failed(state, Step.READY, is_out=True, is_bad_image=True)
    assert next_step(bad) is Step.QUARANTINE
    assert next_step(succeeded(bad, Step.QUARANTINE)) is Step.ROLL_BACK

    state = failed(bad, Step.QUARANTINE, is_out=True)
    taken = []
    while (step := next_step(state)) is not Step.END:
        taken.append(step)
        state = succeeded(state, step)

    assert taken == [Step.ROLL_BACK, Step.READY, Step.RETURN, Step.QUARANTINE, Step.RELEASE]


def test_the_lock_is_never_given_back_before_a_bad_digest_was_quarantined_or_that_was_tried_twice() -> None:
    """Otherwise the next host would try it."""
    for state, step, _after in TRANSITIONS:
        if step is Step.RELEASE:
            assert state.quarantine in (Quarantine.NO, Quarantine.OWED)


def test_recovery_takes_no_disruptive_step() -> None:
    """Whatever was left: it only restores."""
    for state in _recoveries():
        current = state
        while (step := next_step(current)) is not Step.END:
            assert step not in DISRUPTIVE
            current = succeeded(current, step)


@pytest.mark.parametrize(
    ("container", "is_bad", "expected"),
    [
        (Container.NEW, False, [Step.READY, Step.RETURN, Step.CLEAN, Step.RELEASE]),
        (Container.NEW, True, [Step.QUARANTINE, Step.ROLL_BACK, Step.READY, Step.RETURN, Step.RELEASE]),
        (Container.MIXED, False, [Step.ROLL_BACK, Step.READY, Step.RETURN, Step.RELEASE]),
        (Container.OLD, False, [Step.READY, Step.RETURN, Step.RELEASE]),
    ],
)
def test_recovery_prefers_the_new_container_unless_it_is_known_to_be_bad(
    container: Container, is_bad: bool, expected: list[Step]
) -> None:
    """The new one that runs and is ready, else the old one."""
    state = recovered(container, is_out=True, is_bad=is_bad, was_replacing=True, is_locked=True, may_roll_back=True)
    taken = []
    while (step := next_step(state)) is not Step.END:
        taken.append(step)
        state = succeeded(state, step)

    assert taken == expected


def test_recovery_falls_back_to_the_old_container_when_the_new_one_does_not_become_ready() -> None:
    """Once only; then the instance is stranded."""
    state = recovered(Container.NEW, is_out=True, is_bad=False, was_replacing=True, is_locked=False, may_roll_back=True)
    state = failed(state, Step.READY, is_out=True)
    assert next_step(state) is Step.ROLL_BACK

    state = failed(succeeded(state, Step.ROLL_BACK), Step.READY, is_out=True)

    assert next_step(state) is Step.END
    assert state.is_stranded


def test_under_an_operators_maintenance_nothing_is_lifted() -> None:
    """With --in-maintenance the new container is made ready and kept, and RETURN is never reached."""
    state, taken = State(), []
    while (step := next_step(state)) is not Step.END:
        taken.append(step)
        state = succeeded(state, step, is_out=False)

    assert Step.RETURN not in taken
    assert taken[-4:] == [Step.RESTART, Step.READY, Step.CLEAN, Step.RELEASE]


def test_a_new_container_that_was_in_service_again_is_only_tidied_after() -> None:
    """It is not judged a second time: its checks may fail for reasons that are not the image's."""
    state = recovered(
        Container.NEW,
        is_out=False,
        is_bad=False,
        was_replacing=True,
        is_locked=False,
        may_roll_back=True,
        is_settled=True,
    )

    assert next_step(state) is Step.CLEAN
    assert next_step(succeeded(state, Step.CLEAN)) is Step.END


def test_where_rolling_back_is_forbidden_recovery_leaves_the_failed_container_standing() -> None:
    """Somebody wants to look at it; it gets one more chance to become ready, and then stays out."""
    state = recovered(Container.NEW, is_out=True, is_bad=True, was_replacing=True, is_locked=False, may_roll_back=False)
    state = succeeded(state, Step.QUARANTINE)
    assert next_step(state) is Step.READY

    state = failed(state, Step.READY, is_out=True)

    assert next_step(state) is Step.END
    assert state.is_stranded


def test_a_quarantine_that_could_not_be_told_twice_is_owed() -> None:
    """The journal is kept for it (see the procedure), and the lock is given back."""
    state = State(is_locked=True, container=Container.OLD, has_failed=True, quarantine=Quarantine.LATER)

    state = failed(state, Step.QUARANTINE, is_out=False)

    assert state.quarantine is Quarantine.OWED
    assert next_step(state) is Step.RELEASE
