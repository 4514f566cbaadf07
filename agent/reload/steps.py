"""The steps of a reload: one table of their properties, and the next step as a pure function.

A reload goes forward from check to release. When a step fails or a signal ends it, the way back begins. It takes no
disruptive step, and ends with the instance in service again, on the old container or, if the new one is ready, on the
new one. Recovery after a crash is the way back from the state that `recovered` returns: a new container that may not
have been judged yet is judged before the old one is started again.

Rules that hold for every reachable state:

- own maintenance is disabled (RETURN) only on an instance that is ready;
- a disruptive step (DRAIN, RESTART) is never taken on the way back, nor without the lock;
- a new container that was prepared and not used is removed (DISCARD), by the next process if this one cannot;
- the old container is removed (CLEAN) only when the new one is ready, in service, and was watched there (SETTLE); if
  that ended without a proof, it is seen ready once more right before;
- a version is quarantined only if the old one passed the same checks after the roll-back, or if there is no way back to
  the old one; this happens before the lock is released;
- the lock is released and maintenance disabled before the end, unless no container can be made ready: then the instance
  is stranded and stays in maintenance.
"""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from agent.data import dataclass
from agent.engine.swap import ReplacementState


class Step(StrEnum):
    """The steps of a reload, in the order of the way forward; after RELEASE those that only the way back has."""

    CHECK = "check"
    PULL = "pull"
    GUARD = "guard"
    ACQUIRE = "acquire"
    PLAN_AGAIN = "plan again"
    PREPARE = "prepare"
    DRAIN = "drain"
    RESTART = "restart"
    READY = "ready"
    RETURN = "return"
    SETTLE = "settle"
    CLEAN = "clean"
    RELEASE = "release"
    DRAIN_AGAIN = "drain again"
    ROLL_BACK = "roll back"
    DISCARD = "discard"
    QUARANTINE = "quarantine"
    END = "end"


@dataclass(frozen=True)
class StepProperties:
    """A row of `STEPS`.

    ``needs_lock``: on the way forward the lock is acquired before it. ``disruptive``: it takes something from clients,
    so it ends if the lock is lost, and the way back never takes it. ``interruptible``: an earlier signal keeps it from
    starting. ``journalled``: recovery must know that it was begun. ``needs_journal``: it must not begin unless the
    journal was written. ``published``: other hosts are informed while it runs; a version that disappears with its host
    in such a step becomes suspect. ``judges``: its failure on the new container counts against the new version.
    """

    needs_lock: bool = False
    disruptive: bool = False
    interruptible: bool = False
    journalled: bool = True
    needs_journal: bool = False
    published: bool = False
    judges: bool = False


_row = StepProperties

STEPS: Mapping[Step, StepProperties] = {
    Step.CHECK: _row(interruptible=True, journalled=False),
    Step.PULL: _row(interruptible=True, journalled=False),
    Step.GUARD: _row(interruptible=True, journalled=False),
    Step.ACQUIRE: _row(interruptible=True, needs_journal=True),
    Step.PLAN_AGAIN: _row(needs_lock=True, interruptible=True, journalled=False),
    Step.PREPARE: _row(needs_lock=True, interruptible=True, needs_journal=True),
    Step.DRAIN: _row(needs_lock=True, disruptive=True, interruptible=True, needs_journal=True, published=True),
    Step.RESTART: _row(
        needs_lock=True, disruptive=True, interruptible=True, needs_journal=True, published=True, judges=True
    ),
    Step.READY: _row(interruptible=True, journalled=False, published=True, judges=True),
    Step.RETURN: _row(published=True, judges=True),
    Step.SETTLE: _row(published=True, judges=True),
    Step.CLEAN: _row(judges=True),
    Step.RELEASE: _row(),
    Step.DRAIN_AGAIN: _row(),
    Step.ROLL_BACK: _row(),
    Step.DISCARD: _row(),
    Step.QUARANTINE: _row(),
}


class Blame(StrEnum):
    """What is known about the fault of a new version that failed.

    OPEN: it failed, and the old one has not been judged since. DUE: it must be quarantined. OWED: it could not be
    quarantined; the journal stays, and the next process tries again. ENVIRONMENT: the old one failed as well, so the
    version is not shown to be at fault.
    """

    NONE = "none"
    OPEN = "open"
    DUE = "due"
    OWED = "owed"
    ENVIRONMENT = "environment"


@dataclass(frozen=True)
class State:
    """What is known to be done.

    ``is_newer`` is None until the registry was asked. ``is_out``: own maintenance may be enabled. ``may_try_new``: a
    new container that is not known to be ready has not been judged yet. ``is_settled`` is None before the settle step,
    and False if that ended without a proof. ``has_leftovers``: CLEAN or DISCARD failed, so the next process repeats it.
    ``is_drained_again``: the step was taken, successfully or not.
    """

    is_newer: bool | None = None
    is_pulled: bool = False
    is_clear: bool = False
    is_locked: bool = False
    is_confirmed: bool = False
    is_out: bool = False
    is_drained: bool = False
    container: ReplacementState = ReplacementState.OLD
    is_ready: bool = True
    is_settled: bool | None = None
    is_cleaned: bool = False
    has_leftovers: bool = False
    has_failed: bool = False
    may_roll_back: bool = True
    may_try_new: bool = False
    is_drained_again: bool = False
    blame: Blame = Blame.NONE
    is_stranded: bool = False


def recovered(
    container: ReplacementState,
    *,
    is_out: bool,
    blame: Blame,
    was_replacing: bool,
    is_locked: bool,
    may_roll_back: bool,
) -> State:
    """Return the state from which a recovery continues.

    ``is_out``: own maintenance is enabled. ``blame``: what the journal says about the new version. ``was_replacing``:
    the replacement had begun. If it had begun while the instance was out, Docker may have been asked to stop the old
    container, which then still answers for a while. It counts as MIXED, so that it is stopped and started again before
    it is judged. So does one whose successor was about to be used.
    """
    if was_replacing and (container is ReplacementState.PREPARED or (container is ReplacementState.OLD and is_out)):
        container = ReplacementState.MIXED
    was_judged = blame is not Blame.NONE
    if blame is Blame.OPEN and not may_roll_back:
        blame = Blame.DUE  # the old container will not be judged
    return State(
        is_locked=is_locked,
        is_out=is_out,
        container=container,
        is_ready=not (is_out or was_replacing or not container.is_old or blame is Blame.OPEN),
        has_failed=True,
        may_roll_back=may_roll_back,
        may_try_new=not was_judged or not may_roll_back,
        blame=blame,
    )


def next_step(state: State) -> Step:
    """Return the step that follows from what has been done."""
    return _way_back(state) if state.has_failed else _way_forward(state)


def _way_forward(state: State) -> Step:
    is_done = {
        Step.CHECK: state.is_newer is not None,
        Step.PULL: state.is_pulled,
        Step.GUARD: state.is_clear,
        Step.PLAN_AGAIN: state.is_confirmed,
        Step.PREPARE: state.container is not ReplacementState.OLD,
        Step.DRAIN: state.is_drained,
        Step.RESTART: state.container is ReplacementState.NEW,
        Step.READY: state.is_ready,
        Step.RETURN: not state.is_out,
        Step.SETTLE: state.is_settled is not None,
        Step.CLEAN: state.is_cleaned,
    }
    step = next((step for step, done in is_done.items() if not done), None)
    if step is None or state.is_newer is False:
        return Step.RELEASE if state.is_locked else Step.END
    return Step.ACQUIRE if STEPS[step].needs_lock and not state.is_locked else step


def _way_back(state: State) -> Step:
    if not state.is_stranded and (step := _restoring(state)) is not None:
        return step
    if state.container is ReplacementState.PREPARED:
        return Step.DISCARD
    if state.blame is Blame.DUE:
        return Step.QUARANTINE
    if not state.is_stranded and state.container is ReplacementState.NEW:
        if state.is_settled is None:
            return Step.SETTLE
        if not state.is_cleaned:
            return Step.CLEAN
    return Step.RELEASE if state.is_locked else Step.END


def _restoring(state: State) -> Step | None:
    if state.container is ReplacementState.MIXED:
        return Step.ROLL_BACK
    if not state.is_ready:
        if state.container.is_old or state.may_try_new:
            return Step.READY
        # It was judged and is not ready: clients must not be sent to it while the old one is started.
        return Step.ROLL_BACK if state.is_out or state.is_drained_again else Step.DRAIN_AGAIN
    return Step.RETURN if state.is_out else None


def succeeded(
    state: State, step: Step, *, finding: bool = True, is_out: bool = True, is_environment: bool = False
) -> State:
    """Return the state after a step that succeeded.

    ``finding``: CHECK and PLAN_AGAIN found something newer, or SETTLE a proof. ``is_out``: DRAIN enabled own
    maintenance, rather than finding an operator's that may stay. ``is_environment``: READY of the old container saw the
    failure of the new one again.
    """
    changes: Mapping[Step, Mapping[str, object]] = {
        Step.CHECK: {"is_newer": finding},
        Step.PULL: {"is_pulled": True},
        Step.GUARD: {"is_clear": True},
        Step.ACQUIRE: {"is_locked": True},
        Step.PLAN_AGAIN: {"is_newer": finding, "is_confirmed": True},
        Step.PREPARE: {"container": ReplacementState.PREPARED},
        Step.DRAIN: {"is_out": is_out, "is_drained": True, "is_ready": False},
        Step.RESTART: {"container": ReplacementState.NEW},
        Step.READY: {"is_ready": True, "blame": _judged(state, is_environment=is_environment)},
        Step.RETURN: {"is_out": False},
        Step.SETTLE: {"is_settled": finding},
        Step.CLEAN: {"is_cleaned": True},
        Step.RELEASE: {"is_locked": False},
        Step.DRAIN_AGAIN: {"is_out": is_out, **_drained_again(state)},
        Step.ROLL_BACK: {"container": ReplacementState.OLD, "is_ready": False},
        Step.DISCARD: {"container": ReplacementState.OLD},
        Step.QUARANTINE: {"blame": Blame.NONE},
    }
    return replace(state, **changes[step])  # type: ignore[arg-type]  # the keys are this class's own fields


def failed(
    state: State,
    step: Step,
    *,
    is_out: bool,
    is_interrupted: bool = False,
    is_unfit: bool = False,
    is_versions: bool = False,
    is_environment: bool = False,
) -> State:
    """Return the state after a step that raised.

    ``is_out``: own maintenance may be enabled. ``is_interrupted``: a signal ended it, so a return to the old container
    is right even if the definition forbids to roll back failures. ``is_unfit``: the container itself failed with any
    version, so it must not stay in service. ``is_versions``: the failure counts against the new version until the old
    one has been judged. ``is_environment``: RETURN of the old container saw the failure of the new one again.
    """
    after = replace(state, has_failed=True, is_out=is_out, may_roll_back=state.may_roll_back or is_interrupted)
    if is_versions:
        after = replace(after, blame=Blame.OPEN if after.may_roll_back else Blame.DUE)
    is_unfit = is_unfit or is_versions
    if state.container is ReplacementState.NEW and (step is Step.READY or is_unfit):
        # If it is in service (a crash left it there, or it failed there), it is drained first, even without a way back.
        is_stranded = not after.may_roll_back and is_out
        return replace(after, is_ready=False, may_try_new=False, is_stranded=is_stranded)
    stranded = {"is_stranded": True, "blame": _unjudged(after, is_environment=is_environment)}
    changes: Mapping[Step, Mapping[str, object]] = {
        Step.PREPARE: {"container": ReplacementState.PREPARED},  # perhaps only in part
        Step.DRAIN: {"is_ready": not is_out},
        Step.RESTART: {"container": ReplacementState.MIXED},
        Step.READY: stranded,
        Step.RETURN: stranded,
        Step.SETTLE: {"is_settled": False},
        Step.CLEAN: {"is_cleaned": True, "has_leftovers": True},
        Step.RELEASE: {"is_locked": False},
        Step.DRAIN_AGAIN: _drained_again(after),
        Step.ROLL_BACK: stranded,
        Step.DISCARD: {"container": ReplacementState.OLD, "has_leftovers": True},
        Step.QUARANTINE: {"blame": Blame.OWED},
    }
    return replace(after, **changes.get(step, {}))  # type: ignore[arg-type]  # the keys are this class's own fields


def _drained_again(state: State) -> Mapping[str, object]:
    return {"is_drained_again": True, "is_stranded": not state.may_roll_back}


def _judged(state: State, *, is_environment: bool) -> Blame:
    """Return the verdict on a version after the old container has become ready again."""
    if state.blame is not Blame.OPEN or not state.container.is_old:
        return state.blame
    return Blame.ENVIRONMENT if is_environment else Blame.DUE


def _unjudged(state: State, *, is_environment: bool) -> Blame:
    """Return the verdict if the old container does not become ready, or does not return, either."""
    is_shown = state.blame is Blame.DUE and state.container.is_old and is_environment
    return Blame.ENVIRONMENT if state.blame is Blame.OPEN or is_shown else state.blame
