"""Which step comes next: a pure function of what is known to have been done.

There are two roads. The way forward runs from check to release. As soon as anything fails or is interrupted, the
way back begins: it takes no disruptive step and ends with the instance in service again, on the old container or,
if that was ready already, on the new one. Recovery after a crash is the way back from a state that `recovered` makes of
what was found: there the new container, which nobody has judged yet, gets its chance before the old one.

Kept here, for every state that can be reached:

- maintenance is lifted (RETURN) only when the instance is ready;
- a disruptive step (DRAIN, RESTART) is never taken on the way back, nor without the lock;
- the old container is given up (CLEAN) only when the new one is ready and in service;
- a digest whose container did not become ready is quarantined before anything else is tried, and while the lock is
  still held; if that fails, once more when the instance is back;
- what was taken (maintenance, lock) is given back before the end, unless no container can be made ready: then the
  instance is stranded, and stays out.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class Step(StrEnum):
    """A row of the reload's step table; QUARANTINE and ROLL_BACK are those that only the way back has."""

    CHECK = "check"
    PULL = "pull"
    GUARD = "guard"
    ACQUIRE = "acquire"
    PLAN_AGAIN = "plan again"
    DRAIN = "drain"
    RESTART = "restart"
    QUARANTINE = "quarantine"
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


class Quarantine(StrEnum):
    """Is a digest to be quarantined? LATER: the first attempt failed, and the instance comes first.

    OWED: the second failed too; the journal stays, and the next process tries.
    """

    NO = "no"
    DUE = "due"
    LATER = "later"
    OWED = "owed"


@dataclass(frozen=True)
class State:
    """What is known to be done.

    ``is_newer`` is None until the registry was asked. ``is_out``: own maintenance may be on. ``may_try_new``: a new
    container that is not known to be ready has not been judged yet.
    """

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
    may_try_new: bool = False
    quarantine: Quarantine = Quarantine.NO
    is_stranded: bool = False


def recovered(
    container: Container,
    *,
    is_out: bool,
    is_bad: bool,
    was_replacing: bool,
    is_locked: bool,
    may_roll_back: bool,
    is_settled: bool = False,
) -> State:
    """The state to go on from after a crash, from what was found.

    ``is_out``: own maintenance is on. ``is_bad``: the new container was judged already. ``was_replacing``: the
    replacement had begun, so whatever stands there may have been restarted and is to be looked at. ``is_settled``: the
    new container had been in service again, so it is not judged once more; only tidying is left.
    """
    return State(
        is_locked=is_locked,
        is_out=is_out,
        container=container,
        is_ready=is_settled or not (is_out or was_replacing or container is not Container.OLD),
        has_failed=True,
        may_roll_back=may_roll_back,
        may_try_new=not is_bad or not may_roll_back,
        quarantine=Quarantine.DUE if is_bad else Quarantine.NO,
    )


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
    if state.quarantine is Quarantine.DUE:
        return Step.QUARANTINE
    if not state.is_stranded:
        if state.container is Container.MIXED:
            return Step.ROLL_BACK
        if not state.is_ready:
            is_judged = state.container is Container.NEW and not state.may_try_new
            return Step.ROLL_BACK if is_judged else Step.READY
        if state.is_out:
            return Step.RETURN
    if state.quarantine is Quarantine.LATER:
        return Step.QUARANTINE
    if not state.is_stranded and state.container is Container.NEW and not state.is_cleaned:
        return Step.CLEAN
    return Step.RELEASE if state.is_locked else Step.END


def succeeded(state: State, step: Step, *, is_newer: bool = True, is_out: bool = True) -> State:
    """The state after a step that did what it should.

    ``is_newer``: what CHECK and PLAN_AGAIN found. ``is_out``: did DRAIN put own maintenance on, rather than find an
    operator's that may stay?
    """
    match step:
        case Step.CHECK:
            return replace(state, is_newer=is_newer)
        case Step.PLAN_AGAIN:
            return replace(state, is_newer=is_newer, is_confirmed=True)
        case Step.DRAIN:
            return replace(state, is_out=is_out, is_drained=True, is_ready=False)
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
        Step.QUARANTINE: {"quarantine": Quarantine.NO},
        Step.CLEAN: {"is_cleaned": True},
    }
    return replace(state, **changes[step])  # type: ignore[arg-type]  # the keys are this class's own fields


def failed(
    state: State, step: Step, *, is_out: bool, is_interrupted: bool = False, is_bad_image: bool = False
) -> State:
    """The state after a step that raised.

    ``is_out``: may maintenance of ours be on? ``is_interrupted``: a person or systemd ended it, so that going back
    to the old container is right even where the definition forbids a rollback of failures. ``is_bad_image``: the new
    container did not start, or did not become ready.
    """
    after = replace(state, has_failed=True, is_out=is_out, may_roll_back=state.may_roll_back or is_interrupted)
    if is_bad_image:
        after = replace(after, quarantine=Quarantine.DUE)
    match step:
        case Step.DRAIN:
            return replace(after, is_ready=not is_out)
        case Step.RESTART:
            return replace(after, container=Container.MIXED)
        case Step.READY if state.container is Container.NEW:
            return replace(after, may_try_new=False, is_stranded=not after.may_roll_back)
        case Step.READY | Step.ROLL_BACK | Step.RETURN:
            return replace(after, is_stranded=True)
        case Step.QUARANTINE:
            is_first = state.quarantine is Quarantine.DUE
            return replace(after, quarantine=Quarantine.LATER if is_first else Quarantine.OWED)
        case Step.CLEAN:
            return replace(after, is_cleaned=True)
        case Step.RELEASE:
            return replace(after, is_locked=False)
        case _:
            return after
