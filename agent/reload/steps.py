"""Which step comes next: a pure function of what is known to have been done.

There are two roads. The way forward runs from check to release. As soon as anything fails or is interrupted, the
way back begins: it takes no disruptive step and ends with the instance in service again, on the old container or,
if that was ready already, on the new one.

Kept here, for every state that can be reached:

- maintenance is lifted (RETURN) only when the instance is ready;
- a disruptive step (DRAIN, RESTART) is never taken on the way back, nor without the lock;
- the old container is given up (CLEAN) only when the new one is ready and in service;
- what was taken (maintenance, lock) is given back before the end, unless no container can be made ready: then the
  instance is stranded, and stays out.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class Step(StrEnum):
    """A row of the reload's step table, ROLL_BACK being the one that only the way back has."""

    CHECK = "check"
    PULL = "pull"
    GUARD = "guard"
    ACQUIRE = "acquire"
    PLAN_AGAIN = "plan again"
    DRAIN = "drain"
    RESTART = "restart"
    ROLL_BACK = "roll back"
    READY = "ready"
    RETURN = "return"
    CLEAN = "clean"
    RELEASE = "release"
    END = "end"


DISRUPTIVE = frozenset({Step.DRAIN, Step.RESTART})
# Steps of the way forward that a signal may keep from starting; those after them finish what is nearly done.
INTERRUPTIBLE = frozenset(
    {Step.CHECK, Step.PULL, Step.GUARD, Step.ACQUIRE, Step.PLAN_AGAIN, Step.DRAIN, Step.RESTART, Step.READY}
)


class Container(StrEnum):
    """Which container stands under the service's name. MIXED: the replacement broke off somewhere in between."""

    OLD = "old"
    MIXED = "mixed"
    NEW = "new"


@dataclass(frozen=True)
class State:
    """What is known to be done. ``is_newer`` is None until the registry was asked."""

    is_newer: bool | None = None
    is_pulled: bool = False
    is_clear: bool = False
    is_locked: bool = False
    is_confirmed: bool = False
    is_out: bool = False
    is_drained: bool = False
    container: Container = Container.OLD
    is_ready: bool = True
    is_cleaned: bool = False
    has_failed: bool = False
    may_roll_back: bool = True
    is_stranded: bool = False


def next_step(state: State) -> Step:
    """The step that follows from what has been done."""
    return _way_back(state) if state.has_failed else _way_forward(state)


def _way_forward(state: State) -> Step:
    if state.is_newer is False:
        return Step.RELEASE if state.is_locked else Step.END
    ladder = (
        (state.is_newer is not None, Step.CHECK),
        (state.is_pulled, Step.PULL),
        (state.is_clear, Step.GUARD),
        (state.is_locked or state.is_cleaned, Step.ACQUIRE),
        (state.is_confirmed, Step.PLAN_AGAIN),
        (state.is_drained, Step.DRAIN),
        (state.container is Container.NEW, Step.RESTART),
        (state.is_ready, Step.READY),
        (not state.is_out, Step.RETURN),
        (state.is_cleaned, Step.CLEAN),
        (not state.is_locked, Step.RELEASE),
    )
    return next((step for is_done, step in ladder if not is_done), Step.END)


def _way_back(state: State) -> Step:
    if not state.is_stranded:
        if state.container is Container.MIXED or (state.container is Container.NEW and not state.is_ready):
            return Step.ROLL_BACK
        if state.is_out:
            return Step.RETURN if state.is_ready else Step.READY
        if state.container is Container.NEW and not state.is_cleaned:
            return Step.CLEAN
    return Step.RELEASE if state.is_locked else Step.END


def succeeded(state: State, step: Step, *, is_newer: bool = True) -> State:
    """The state after a step that did what it should. ``is_newer``: what CHECK and PLAN_AGAIN found."""
    match step:
        case Step.CHECK:
            return replace(state, is_newer=is_newer)
        case Step.PLAN_AGAIN:
            return replace(state, is_newer=is_newer, is_confirmed=True)
        case Step.DRAIN:
            return replace(state, is_out=True, is_drained=True, is_ready=False)
        case Step.ROLL_BACK:
            return replace(state, container=Container.OLD, is_ready=False)
        case Step.RETURN:
            return replace(state, is_out=False)
        case Step.RELEASE:
            return replace(state, is_locked=False)
    changes = {
        Step.PULL: {"is_pulled": True},
        Step.GUARD: {"is_clear": True},
        Step.ACQUIRE: {"is_locked": True},
        Step.RESTART: {"container": Container.NEW},
        Step.READY: {"is_ready": True},
        Step.CLEAN: {"is_cleaned": True},
    }
    return replace(state, **changes[step])  # type: ignore[arg-type]  # the keys are this class's own fields


def failed(state: State, step: Step, *, is_out: bool, is_interrupted: bool) -> State:
    """The state after a step that raised.

    ``is_out``: may maintenance of ours be on? ``is_interrupted``: a person or systemd ended it, so that going back
    to the old container is right even where the definition forbids a rollback of failures.
    """
    after = replace(state, has_failed=True, is_out=is_out, may_roll_back=state.may_roll_back or is_interrupted)
    match step:
        case Step.DRAIN:
            return replace(after, is_ready=False)
        case Step.RESTART:
            return _strand_unless_allowed(replace(after, container=Container.MIXED))
        case Step.READY:
            if state.container is Container.OLD:
                return replace(after, is_stranded=True)
            return _strand_unless_allowed(after)
        case Step.ROLL_BACK | Step.RETURN:
            return replace(after, is_stranded=True)
        case Step.CLEAN:
            return replace(after, is_cleaned=True)
        case Step.RELEASE:
            return replace(after, is_locked=False)
        case _:
            return after


def _strand_unless_allowed(state: State) -> State:
    return state if state.may_roll_back else replace(state, is_stranded=True)
