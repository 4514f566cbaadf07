"""Rolling a replacement back from wherever it stopped, and from wherever the roll-back stopped."""

from dataclasses import replace

import pytest

from agent.engine import swap
from agent.engine.replace import LONGEST_STOP_SECONDS, stop_seconds
from agent.engine.swap import (
    NEW_SUFFIX,
    OLD_SUFFIX,
    ObservedContainer,
    ReplacementContainers,
    ReplacementState,
    ReplacementStatus,
    SwapStep,
    discard,
    remove_leftovers,
    replacement_status,
    roll_back,
)
from agent.errors import Conflict, NotFound
from tests.support.kinds import raises_kind

RUNNING = ObservedContainer("old", is_running=True, restart_policy="no")
STOPPED = ObservedContainer("old", is_running=False, restart_policy="no")
CREATED = ObservedContainer("new", is_running=False, restart_policy="always", replaces="old", digest="sha256:2")
STARTED = replace(CREATED, is_running=True)
FOREIGN = ObservedContainer("hand", is_running=True, restart_policy="always")

PUT_BACK = ReplacementContainers("app", ObservedContainer("old", is_running=True, restart_policy="always"), None, None)
PREPARED = replace(PUT_BACK, new=CREATED)
REPLACED = ReplacementContainers("app", STARTED, None, STOPPED)


def carried_out(world: ReplacementContainers, steps: tuple[SwapStep, ...]) -> ReplacementContainers:
    """The world after the steps, each as the Engine would do it."""
    slots = {"": world.current, NEW_SUFFIX: world.new, OLD_SUFFIX: world.old}
    for step in steps:
        slot = next(suffix for suffix, seen in slots.items() if seen is not None and seen.id == step.id)
        seen = slots[slot]
        assert seen is not None
        if step.verb == "rename":
            target = step.argument.removeprefix("app")
            assert slots[target] is None, f"{step} meets a name that is taken"
            slots[slot], slots[target] = None, seen
        elif step.verb == "remove":
            slots[slot] = None
        elif step.verb == "policy":
            slots[slot] = replace(seen, restart_policy=step.argument)
        else:
            slots[slot] = replace(seen, is_running=step.verb == "start")
    return ReplacementContainers("app", slots[""], slots[NEW_SUFFIX], slots[OLD_SUFFIX])


def prefixes(world: ReplacementContainers, steps: tuple[SwapStep, ...]) -> list[ReplacementContainers]:
    """The worlds that an interruption after each of the steps leaves, and that of none."""
    return [carried_out(world, steps[:done]) for done in range(len(steps) + 1)]


def replaced_up_to(steps: int) -> ReplacementContainers:
    return prefixes(PREPARED, swap.replace(PREPARED, "sha256:2", 10))[steps]


HALF_WAY = {
    "created, policy still there": replaced_up_to(0),
    "policy taken": replaced_up_to(1),
    "old stopped": replaced_up_to(2),
    "old renamed": replaced_up_to(3),
    "both renamed": replaced_up_to(4),
    "new started": replaced_up_to(5),
    "new failed": ReplacementContainers("app", replace(STARTED, is_running=False), None, STOPPED),
    "old started by somebody": ReplacementContainers("app", STARTED, None, RUNNING),
    "a second replacement was begun": ReplacementContainers("app", CREATED, replace(CREATED, id="newer"), STOPPED),
}


def test_a_replacement_ends_with_the_new_container_running_and_the_old_one_stopped() -> None:
    """The old one keeps no restart policy, so that an engine that restarts leaves it stopped."""
    steps = swap.replace(PREPARED, "sha256:2", 10)

    assert carried_out(PREPARED, steps) == REPLACED
    assert [step.seconds for step in steps if step.verb == "stop"] == [10]


@pytest.mark.parametrize("world", HALF_WAY.values(), ids=HALF_WAY.keys())
def test_from_every_half_way_point_the_old_one_runs_with_its_name_and_policy(world: ReplacementContainers) -> None:
    assert carried_out(world, roll_back(world)) == PUT_BACK


@pytest.mark.parametrize(
    ("world", "steps"),
    [(PREPARED, swap.replace(PREPARED, "sha256:2", 10)), *((world, roll_back(world)) for world in HALF_WAY.values())],
    ids=["replacement", *(f"roll-back, {where}" for where in HALF_WAY)],
)
def test_the_next_run_rolls_any_interruption_back(world: ReplacementContainers, steps: tuple[SwapStep, ...]) -> None:
    for interrupted in prefixes(world, steps):
        assert carried_out(interrupted, roll_back(interrupted)) == PUT_BACK


@pytest.mark.parametrize("current", [None, FOREIGN, STARTED, STOPPED])
def test_where_nothing_was_begun_there_is_nothing_to_roll_back(current: ObservedContainer | None) -> None:
    assert roll_back(ReplacementContainers("app", current, None, None)) == ()


def test_the_failed_container_is_removed_last_because_it_holds_the_restart_policy() -> None:
    assert roll_back(HALF_WAY["new started"])[-1] == SwapStep("remove", "new")


def test_without_the_new_container_the_policy_is_the_one_that_the_caller_remembers() -> None:
    world = ReplacementContainers("app", None, None, STOPPED)

    assert carried_out(world, roll_back(world, "always")) == PUT_BACK
    assert carried_out(world, roll_back(world)) == ReplacementContainers("app", RUNNING, None, None)


@pytest.mark.parametrize(
    "world",
    [
        ReplacementContainers("app", FOREIGN, None, STOPPED),
        ReplacementContainers("app", FOREIGN, CREATED, STOPPED),
        ReplacementContainers("app", FOREIGN, STARTED, None),
        ReplacementContainers("app", None, FOREIGN, STOPPED),
    ],
)
def test_a_container_that_svcagent_did_not_make_is_not_changed(world: ReplacementContainers) -> None:
    with raises_kind(Conflict, "not-created-by-svcagent"):
        roll_back(world)


def test_when_the_old_container_is_gone_the_way_out_is_named() -> None:
    with raises_kind(NotFound, "old-container-gone"):
        roll_back(ReplacementContainers("app", None, CREATED, None))


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        (ReplacementContainers("app", RUNNING, None, None), ()),
        (ReplacementContainers("app", None, None, None), ()),
        (ReplacementContainers("app", STARTED, None, STOPPED), (SwapStep("remove", "old"),)),
        (ReplacementContainers("app", FOREIGN, None, STOPPED), (SwapStep("remove", "old"),)),
        (
            ReplacementContainers("app", RUNNING, CREATED, None),
            (SwapStep("policy", "old", "always"), SwapStep("remove", "new")),
        ),
        (
            ReplacementContainers("app", STOPPED, CREATED, None),
            (SwapStep("policy", "old", "always"), SwapStep("remove", "new")),
        ),
    ],
)
def test_harmless_leftovers_are_removed_first(world: ReplacementContainers, expected: tuple[SwapStep, ...]) -> None:
    assert remove_leftovers(world) == expected


@pytest.mark.parametrize(
    "world",
    [
        ReplacementContainers("app", None, None, STOPPED),
        ReplacementContainers("app", None, CREATED, STOPPED),
        ReplacementContainers("app", None, CREATED, None),
        ReplacementContainers("app", CREATED, None, STOPPED),
        ReplacementContainers("app", STARTED, CREATED, STOPPED),
        ReplacementContainers("app", STARTED, None, RUNNING),
        ReplacementContainers("app", RUNNING, STARTED, None),
        ReplacementContainers("app", FOREIGN, CREATED, None),
    ],
)
def test_leftovers_that_may_be_needed_stop_a_replacement(world: ReplacementContainers) -> None:
    with pytest.raises(Conflict):
        remove_leftovers(world)


@pytest.mark.parametrize(
    ("current", "expected"),
    [(RUNNING, (SwapStep("remove", "new"),)), (FOREIGN, (SwapStep("remove", "new"),)), (None, ())],
)
def test_a_new_container_that_never_ran_is_removed_and_nothing_else_changes(
    current: ObservedContainer | None, expected: tuple[SwapStep, ...]
) -> None:
    """Unless it is all that is left of the settings: somebody removed the old one."""
    assert discard(ReplacementContainers("app", current, CREATED, None)) == expected


@pytest.mark.parametrize(
    "world",
    [ReplacementContainers("app", RUNNING, STARTED, None), ReplacementContainers("app", RUNNING, FOREIGN, None)],
)
def test_what_runs_or_was_made_by_others_is_never_discarded(world: ReplacementContainers) -> None:
    assert discard(world) == ()


def test_a_container_that_was_made_again_by_hand_meanwhile_stays_as_it_is() -> None:
    """Only what svcagent had prepared for the earlier one goes."""
    assert roll_back(ReplacementContainers("app", FOREIGN, CREATED, None)) == (SwapStep("remove", "new"),)


@pytest.mark.parametrize(
    "world",
    [
        ReplacementContainers("app", FOREIGN, CREATED, None),
        ReplacementContainers("app", RUNNING, None, None),
        ReplacementContainers("app", None, CREATED, None),
        ReplacementContainers("app", RUNNING, replace(CREATED, digest="sha256:3"), None),
        ReplacementContainers("app", RUNNING, STARTED, None),
        REPLACED,
    ],
)
def test_the_prepared_container_is_used_only_where_both_are_as_they_were(world: ReplacementContainers) -> None:
    with pytest.raises(Conflict):
        swap.replace(world, "sha256:2", 10)


STANDING = {
    "created, policy still there": ReplacementStatus(ReplacementState.PREPARED, "old", True, "", "always"),
    "policy taken": ReplacementStatus(ReplacementState.PREPARED, "old", True, "", "always"),
    "old stopped": ReplacementStatus(ReplacementState.PREPARED, "old", False, "", "always"),
    "old renamed": ReplacementStatus(ReplacementState.MIXED, "", False, "", "always"),
    "both renamed": ReplacementStatus(ReplacementState.NEW, "new", False, "sha256:2", "always"),
    "new started": ReplacementStatus(ReplacementState.NEW, "new", True, "sha256:2", "always"),
    "new failed": ReplacementStatus(ReplacementState.NEW, "new", False, "sha256:2", "always"),
    "old started by somebody": ReplacementStatus(ReplacementState.NEW, "new", True, "sha256:2", "always"),
    "a second replacement was begun": ReplacementStatus(ReplacementState.MIXED, "new", False, "sha256:2", "always"),
}


@pytest.mark.parametrize("where", HALF_WAY)
def test_every_half_way_point_is_recognised_with_the_policy_that_belongs_there(where: str) -> None:
    """With what is there alone: a journal may be lost."""
    assert replacement_status(HALF_WAY[where]) == STANDING[where]


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        (ReplacementContainers("app", None, None, None), ReplacementStatus(ReplacementState.ABSENT)),
        (
            ReplacementContainers("app", FOREIGN, None, None),
            ReplacementStatus(ReplacementState.OLD, "hand", True, "", "always"),
        ),
        (
            ReplacementContainers("app", STOPPED, None, None),
            ReplacementStatus(ReplacementState.OLD, "old", False, "", "no"),
        ),
        # A finished replacement: what svcagent made last time is the old one of the next time.
        (
            ReplacementContainers("app", STARTED, None, None),
            ReplacementStatus(ReplacementState.OLD, "new", True, "sha256:2", "always"),
        ),
        # Nobody knows the old one's policy any more.
        (ReplacementContainers("app", None, None, STOPPED), ReplacementStatus(ReplacementState.MIXED)),
        (ReplacementContainers("app", FOREIGN, None, STOPPED), ReplacementStatus(ReplacementState.MIXED, "hand", True)),
        (
            ReplacementContainers("app", None, CREATED, None),
            ReplacementStatus(ReplacementState.MIXED, restart_policy="always"),
        ),
    ],
)
def test_where_nothing_is_half_way_or_others_acted(world: ReplacementContainers, expected: ReplacementStatus) -> None:
    """Absent, old, or in need of a roll-back, which says what is wrong."""
    assert replacement_status(world) == expected


@pytest.mark.parametrize("world", HALF_WAY.values(), ids=HALF_WAY.keys())
def test_a_roll_back_ends_with_what_the_status_said_belongs_there(world: ReplacementContainers) -> None:
    """The policy that is told is the one that is restored."""
    assert replacement_status(carried_out(world, roll_back(world))).state is ReplacementState.OLD
    assert (
        replacement_status(world).restart_policy
        == replacement_status(carried_out(world, roll_back(world))).restart_policy
    )


@pytest.mark.parametrize(
    ("given", "own", "expected"),
    [
        (None, None, 10),
        (None, 30, 30),
        (None, 0, 0),
        (None, -1, LONGEST_STOP_SECONDS),
        (None, 10**9, LONGEST_STOP_SECONDS),
        (0.5, 30, 1),
        (1800.0, 10**9, 1800),
    ],
)
def test_a_containers_own_stop_timeout_is_limited(given: float | None, own: int | None, expected: int) -> None:
    assert stop_seconds(given, {"Config": {"StopTimeout": own}}) == expected
