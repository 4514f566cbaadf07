"""Rolling a replacement back from wherever it stopped, and from wherever the roll-back stopped."""

from dataclasses import replace

import pytest

from agent.engine import swap
from agent.engine.swap import (
    NEW_SUFFIX,
    OLD_SUFFIX,
    EngineWorld,
    ObservedContainers,
    Stand,
    Standing,
    SwapStep,
    discard,
    roll_back,
    standing,
    tidy,
)
from agent.errors import Conflict, NotFound

RUNNING = ObservedContainers("old", is_running=True, restart_policy="no")
STOPPED = ObservedContainers("old", is_running=False, restart_policy="no")
CREATED = ObservedContainers("new", is_running=False, restart_policy="always", replaces="old", digest="sha256:2")
STARTED = replace(CREATED, is_running=True)
FOREIGN = ObservedContainers("hand", is_running=True, restart_policy="always")

PUT_BACK = EngineWorld("app", ObservedContainers("old", is_running=True, restart_policy="always"), None, None)
PREPARED = replace(PUT_BACK, new=CREATED)
REPLACED = EngineWorld("app", STARTED, None, STOPPED)


def carried_out(world: EngineWorld, steps: tuple[SwapStep, ...]) -> EngineWorld:
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
    return EngineWorld("app", slots[""], slots[NEW_SUFFIX], slots[OLD_SUFFIX])


def prefixes(world: EngineWorld, steps: tuple[SwapStep, ...]) -> list[EngineWorld]:
    """The worlds that an interruption after each of the steps leaves, and that of none."""
    return [carried_out(world, steps[:done]) for done in range(len(steps) + 1)]


def replaced_up_to(steps: int) -> EngineWorld:
    return prefixes(PREPARED, swap.replace(PREPARED, "sha256:2", 10))[steps]


HALF_WAY = {
    "created, policy still there": replaced_up_to(0),
    "policy taken": replaced_up_to(1),
    "old stopped": replaced_up_to(2),
    "old renamed": replaced_up_to(3),
    "both renamed": replaced_up_to(4),
    "new started": replaced_up_to(5),
    "new failed": EngineWorld("app", replace(STARTED, is_running=False), None, STOPPED),
    "old started by somebody": EngineWorld("app", STARTED, None, RUNNING),
    "a second replacement was begun": EngineWorld("app", CREATED, replace(CREATED, id="newer"), STOPPED),
}


def test_a_replacement_ends_with_the_new_container_running_beside_the_stopped_old_one() -> None:
    """The old one keeps no restart policy, so that an engine that restarts leaves it stopped."""
    steps = swap.replace(PREPARED, "sha256:2", 10)

    assert carried_out(PREPARED, steps) == REPLACED
    assert [step.seconds for step in steps if step.verb == "stop"] == [10]


@pytest.mark.parametrize("world", HALF_WAY.values(), ids=HALF_WAY.keys())
def test_from_every_half_way_point_the_old_one_runs_under_its_name_with_its_policy(world: EngineWorld) -> None:
    assert carried_out(world, roll_back(world)) == PUT_BACK


@pytest.mark.parametrize(
    ("world", "steps"),
    [(PREPARED, swap.replace(PREPARED, "sha256:2", 10)), *((world, roll_back(world)) for world in HALF_WAY.values())],
    ids=["replacement", *(f"roll-back, {where}" for where in HALF_WAY)],
)
def test_whatever_is_cut_short_after_any_step_is_rolled_back_by_the_next(
    world: EngineWorld, steps: tuple[SwapStep, ...]
) -> None:
    for interrupted in prefixes(world, steps):
        assert carried_out(interrupted, roll_back(interrupted)) == PUT_BACK


@pytest.mark.parametrize("current", [None, FOREIGN, STARTED, STOPPED])
def test_where_nothing_was_begun_there_is_nothing_to_roll_back(current: ObservedContainers | None) -> None:
    assert roll_back(EngineWorld("app", current, None, None)) == ()


def test_the_failed_container_is_removed_last_because_it_holds_the_restart_policy() -> None:
    assert roll_back(HALF_WAY["new started"])[-1] == SwapStep("remove", "new")


def test_without_the_new_container_the_policy_is_the_one_that_the_caller_remembers() -> None:
    world = EngineWorld("app", None, None, STOPPED)

    assert carried_out(world, roll_back(world, "always")) == PUT_BACK
    assert carried_out(world, roll_back(world)) == EngineWorld("app", RUNNING, None, None)


@pytest.mark.parametrize(
    "world",
    [
        EngineWorld("app", FOREIGN, None, STOPPED),
        EngineWorld("app", FOREIGN, CREATED, STOPPED),
        EngineWorld("app", FOREIGN, STARTED, None),
        EngineWorld("app", None, FOREIGN, STOPPED),
    ],
)
def test_a_container_that_svcagent_did_not_make_is_left_alone(world: EngineWorld) -> None:
    with pytest.raises(Conflict, match="by hand"):
        roll_back(world)


def test_when_the_old_container_is_gone_the_way_out_is_named() -> None:
    with pytest.raises(NotFound, match="docker rename"):
        roll_back(EngineWorld("app", None, CREATED, None))


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        (EngineWorld("app", RUNNING, None, None), ()),
        (EngineWorld("app", None, None, None), ()),
        (EngineWorld("app", STARTED, None, STOPPED), (SwapStep("remove", "old"),)),
        (EngineWorld("app", FOREIGN, None, STOPPED), (SwapStep("remove", "old"),)),
        (EngineWorld("app", RUNNING, CREATED, None), (SwapStep("policy", "old", "always"), SwapStep("remove", "new"))),
        (EngineWorld("app", STOPPED, CREATED, None), (SwapStep("policy", "old", "always"), SwapStep("remove", "new"))),
    ],
)
def test_harmless_leftovers_are_cleared_away_before_a_replacement(
    world: EngineWorld, expected: tuple[SwapStep, ...]
) -> None:
    assert tidy(world) == expected


@pytest.mark.parametrize(
    "world",
    [
        EngineWorld("app", None, None, STOPPED),
        EngineWorld("app", None, CREATED, STOPPED),
        EngineWorld("app", None, CREATED, None),
        EngineWorld("app", CREATED, None, STOPPED),
        EngineWorld("app", STARTED, CREATED, STOPPED),
        EngineWorld("app", STARTED, None, RUNNING),
        EngineWorld("app", RUNNING, STARTED, None),
        EngineWorld("app", FOREIGN, CREATED, None),
    ],
)
def test_leftovers_that_may_be_needed_stop_a_replacement(world: EngineWorld) -> None:
    with pytest.raises(Conflict):
        tidy(world)


@pytest.mark.parametrize(
    ("current", "expected"),
    [(RUNNING, (SwapStep("remove", "new"),)), (FOREIGN, (SwapStep("remove", "new"),)), (None, ())],
)
def test_a_new_container_that_never_ran_is_removed_and_nothing_else_changes(
    current: ObservedContainers | None, expected: tuple[SwapStep, ...]
) -> None:
    """Unless it is all that is left of the settings: somebody removed the old one."""
    assert discard(EngineWorld("app", current, CREATED, None)) == expected


@pytest.mark.parametrize(
    "world", [EngineWorld("app", RUNNING, STARTED, None), EngineWorld("app", RUNNING, FOREIGN, None)]
)
def test_what_runs_or_was_made_by_others_is_never_discarded(world: EngineWorld) -> None:
    assert discard(world) == ()


def test_a_container_that_was_made_again_by_hand_meanwhile_stays_as_it_is() -> None:
    """Only what svcagent had prepared for the earlier one goes."""
    assert roll_back(EngineWorld("app", FOREIGN, CREATED, None)) == (SwapStep("remove", "new"),)


@pytest.mark.parametrize(
    "world",
    [
        EngineWorld("app", FOREIGN, CREATED, None),
        EngineWorld("app", RUNNING, None, None),
        EngineWorld("app", None, CREATED, None),
        EngineWorld("app", RUNNING, replace(CREATED, digest="sha256:3"), None),
        EngineWorld("app", RUNNING, STARTED, None),
        REPLACED,
    ],
)
def test_the_prepared_container_is_used_only_where_both_are_as_they_were(world: EngineWorld) -> None:
    with pytest.raises(Conflict):
        swap.replace(world, "sha256:2", 10)


STANDING = {
    "created, policy still there": Standing(Stand.PREPARED, "old", True, "", "always"),
    "policy taken": Standing(Stand.PREPARED, "old", True, "", "always"),
    "old stopped": Standing(Stand.PREPARED, "old", False, "", "always"),
    "old renamed": Standing(Stand.MIXED, "", False, "", "always"),
    "both renamed": Standing(Stand.NEW, "new", False, "sha256:2", "always"),
    "new started": Standing(Stand.NEW, "new", True, "sha256:2", "always"),
    "new failed": Standing(Stand.NEW, "new", False, "sha256:2", "always"),
    "old started by somebody": Standing(Stand.NEW, "new", True, "sha256:2", "always"),
    "a second replacement was begun": Standing(Stand.MIXED, "new", False, "sha256:2", "always"),
}


@pytest.mark.parametrize("where", HALF_WAY)
def test_every_half_way_point_is_recognised_with_the_policy_that_belongs_there(where: str) -> None:
    """With what is there alone: a journal may be lost."""
    assert standing(HALF_WAY[where]) == STANDING[where]


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        (EngineWorld("app", None, None, None), Standing(Stand.ABSENT)),
        (EngineWorld("app", FOREIGN, None, None), Standing(Stand.OLD, "hand", True, "", "always")),
        (EngineWorld("app", STOPPED, None, None), Standing(Stand.OLD, "old", False, "", "no")),
        # A finished replacement: what svcagent made last time is the old one of the next time.
        (EngineWorld("app", STARTED, None, None), Standing(Stand.OLD, "new", True, "sha256:2", "always")),
        # Nobody knows the old one's policy any more.
        (EngineWorld("app", None, None, STOPPED), Standing(Stand.MIXED)),
        (EngineWorld("app", FOREIGN, None, STOPPED), Standing(Stand.MIXED, "hand", True)),
        (EngineWorld("app", None, CREATED, None), Standing(Stand.MIXED, restart_policy="always")),
    ],
)
def test_where_nothing_is_half_way_or_others_had_a_hand_in_it(world: EngineWorld, expected: Standing) -> None:
    """Absent, old, or in need of a roll-back, which says what is wrong."""
    assert standing(world) == expected


@pytest.mark.parametrize("world", HALF_WAY.values(), ids=HALF_WAY.keys())
def test_a_roll_back_ends_with_what_standing_said_belongs_there(world: EngineWorld) -> None:
    """The policy that is told is the one that is restored."""
    assert standing(carried_out(world, roll_back(world))).stand is Stand.OLD
    assert standing(world).restart_policy == standing(carried_out(world, roll_back(world))).restart_policy
