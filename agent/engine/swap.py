"""The replacement of a container and its roll-back, as steps that are computed from the existing containers. Pure.

A replacement moves through these states; a crash may leave any of them. ``app`` is the container's name.

====================  ===========  ================  ================
after                 app          app.svcagent-new  app.svcagent-old
====================  ===========  ================  ================
create (prepare)      old, runs    new, never ran
policy, stop          old, stopped new, never ran
first rename                       new, never ran    old, stopped
second rename         new, never ran                 old, stopped
start                 new, runs                      old, stopped
====================  ===========  ================  ================

Invariant: after every prefix of the steps of `replace` and of `roll_back`, `roll_back` ends where it would have ended
before. That is why the failed container is removed last: until then it shows what is left to do, and which restart
policy to restore.
"""

from enum import StrEnum
from typing import Literal

from agent.data import dataclass
from agent.errors import ChangedMeanwhile, Conflict, NotFound

NEW_SUFFIX = ".svcagent-new"
OLD_SUFFIX = ".svcagent-old"
ROLL_BACK_STOP_SECONDS = 2
"""How long a failed container has to stop: it may share volumes with the old one, but the service is down meanwhile."""


@dataclass(frozen=True)
class ObservedContainer:
    id: str
    is_running: bool
    restart_policy: str
    replaces: str = ""
    """The ID in its label, if svcagent created it."""
    digest: str = ""
    """The digest in its label, in the same way."""


@dataclass(frozen=True)
class ReplacementContainers:
    """The containers under the three names."""

    name: str
    current: ObservedContainer | None
    new: ObservedContainer | None
    old: ObservedContainer | None


class ReplacementState(StrEnum):
    """How far the replacement of a container got.

    OLD: none is in progress; none was begun, or the last one was finished or rolled back. PREPARED: the old container
    has the name, and a new one that svcagent created never ran. Nothing was stopped, unless a replacement had begun,
    which only its journal shows. MIXED: it was interrupted half-way, so only a roll-back is possible. NEW: the new
    container has the name, and the one that it replaces still exists. ABSENT: there is no container.
    """

    OLD = "old"
    PREPARED = "prepared"
    MIXED = "mixed"
    NEW = "new"
    ABSENT = "absent"

    @property
    def is_old(self) -> bool:
        """True if the old container has the name."""
        return self in (ReplacementState.OLD, ReplacementState.PREPARED)


@dataclass(frozen=True)
class ReplacementStatus:
    """The container under a name, with everything that a recovery needs to know of it.

    ``id`` is empty if there is none; ``digest`` is the one that svcagent created it from, empty if others created it.
    ``restart_policy`` is the one that belongs to the name, on any container that has it now; None if none has it: then
    `roll_back` needs it as an argument.
    """

    state: ReplacementState
    id: str = ""
    is_running: bool = False
    digest: str = ""
    restart_policy: str | None = None


@dataclass(frozen=True)
class SwapStep:
    """One call to the Engine. ``argument``: new name or restart policy; ``seconds``: from stop signal to kill."""

    verb: Literal["stop", "rename", "start", "policy", "remove"]
    id: str
    argument: str = ""
    seconds: int = ROLL_BACK_STOP_SECONDS


def replacement_status(world: ReplacementContainers) -> ReplacementStatus:
    current, new, old = world.current, world.new, world.old
    if current is None and new is None and old is None:
        return ReplacementStatus(ReplacementState.ABSENT)
    if new is None and old is None:
        state = ReplacementState.OLD
    elif discard(world):
        state = ReplacementState.PREPARED
    elif current is not None and new is None and old is not None and current.replaces == old.id:
        state = ReplacementState.NEW
    else:
        state = ReplacementState.MIXED
    # Right before its stop, the old one's own policy becomes `no`; the new one was created with the original one.
    carrier = new if new is not None else None if state is ReplacementState.MIXED else current
    return ReplacementStatus(
        state,
        id=current.id if current else "",
        is_running=current is not None and current.is_running,
        digest=current.digest if current else "",
        restart_policy=carrier.restart_policy if carrier else None,
    )


def replace(world: ReplacementContainers, digest: str, stop_seconds: int) -> tuple[SwapStep, ...]:
    """Return the steps that replace the old container by the one that was prepared with that digest.

    The old one loses its restart policy first, so that Docker does not start it again. Raise `ChangedMeanwhile` if the
    two are not as they were prepared, because others changed them.
    """
    current, new = world.current, world.new
    if current is None or new is None or not discard(world) or new.replaces != current.id or new.digest != digest:
        raise changed_by_others(world.name)
    return (
        SwapStep("policy", current.id, "no"),
        SwapStep("stop", current.id, seconds=stop_seconds),
        SwapStep("rename", current.id, world.name + OLD_SUFFIX),
        SwapStep("rename", new.id, world.name),
        SwapStep("start", new.id),
    )


def changed_by_others(name: str) -> ChangedMeanwhile:
    """Return the refusal of a replacement whose containers are not as they were prepared."""
    return ChangedMeanwhile(
        f"container {name} or its prepared replacement {name}{NEW_SUFFIX} was changed by another process meanwhile. "
        "Run the command again"
    )


def roll_back(
    world: ReplacementContainers, remembered_policy: str | None = None, *, finish_stop: bool = False
) -> tuple[SwapStep, ...]:
    """Return the steps that lead back to the old container, running; none if nothing was begun.

    ``remembered_policy`` is used if the new container, whose restart policy is the original one, is gone.
    ``finish_stop``: an old container that runs may have been asked to stop. Docker completes that although the client
    is gone, so the container is stopped first and then started, to keep it running. Raise `NotFound` if there is no old
    container any more, `Conflict` if another owner's container has the name.
    """
    current, new, old = world.current, world.new, world.old
    if old is not None:
        return _restore_old(world, old, remembered_policy)
    if new is None:
        if current is None or not finish_stop or not _may_be_stopping(current, remembered_policy):
            return ()
        return _run_again(current, remembered_policy, finish_stop=True)
    if current is None:
        raise NotFound(
            f"the container that {world.name}{NEW_SUFFIX} was to replace does not exist. "
            f"Run docker rename {world.name}{NEW_SUFFIX} {world.name} and start it, or recreate {world.name}",
            kind="old-container-gone",
        )
    if new.replaces != current.id and (steps := discard(world)):
        return steps  # an operator recreated the container meanwhile; that one stays as it is
    _require_ours(world, new, current, f"{world.name}{NEW_SUFFIX}")
    is_stopping = finish_stop and _may_be_stopping(current, new.restart_policy)
    return (*_run_again(current, new.restart_policy, finish_stop=is_stopping), SwapStep("remove", new.id))


def remove_leftovers(world: ReplacementContainers) -> tuple[SwapStep, ...]:
    """Return the steps that remove what an earlier crash left before a new replacement begins.

    Raise `Conflict` if a roll-back is needed first, or if a container is not svcagent's.
    """
    current, new, old = world.current, world.new, world.old
    if old is None and new is None:
        return ()
    if current is None or (old is not None and (new is not None or not current.is_running)):
        raise Conflict(
            f"an earlier replacement of container {world.name} was interrupted; it must be rolled back first",
            kind="replacement-interrupted",
        )
    if old is not None:
        if old.is_running:
            raise Conflict(
                f"{world.name} and {world.name}{OLD_SUFFIX} both run; stop one of them",
                kind="both-containers-run",
            )
        return (SwapStep("remove", old.id),)
    assert new is not None  # noqa: S101 - for mypy: the first lines leave no other case
    _require_ours(world, new, current, f"{world.name}{NEW_SUFFIX}")
    if new.is_running:
        raise Conflict(
            f"{world.name} and {world.name}{NEW_SUFFIX} both run; stop one of them",
            kind="both-containers-run",
        )
    return (*_restore_policy(current, new.restart_policy), SwapStep("remove", new.id))


def discard(world: ReplacementContainers) -> tuple[SwapStep, ...]:
    """Return the steps that remove a new container that never ran; none without one, or if more was begun.

    This includes one that was to replace a container which has been recreated by hand meanwhile.
    """
    current, new = world.current, world.new
    if current is None or world.old is not None or new is None or not new.replaces or new.is_running:
        return ()
    return (SwapStep("remove", new.id),)


def _restore_old(
    world: ReplacementContainers, old: ObservedContainer, remembered_policy: str | None
) -> tuple[SwapStep, ...]:
    before: tuple[SwapStep, ...] = ()
    failed = world.new
    if failed is not None:
        _require_ours(world, failed, old, f"{world.name}{NEW_SUFFIX}")
    if world.current is not None:
        _require_ours(world, world.current, old, world.name)
        if failed is not None:
            before = (SwapStep("remove", failed.id),)
        failed = world.current
        before += (SwapStep("stop", failed.id), SwapStep("rename", failed.id, world.name + NEW_SUFFIX))
    policy = failed.restart_policy if failed is not None else remembered_policy
    after = (SwapStep("remove", failed.id),) if failed is not None else ()
    return (*before, SwapStep("rename", old.id, world.name), *_run_again(old, policy), *after)


def _may_be_stopping(current: ObservedContainer, original_policy: str | None) -> bool:
    """True if the old container may be stopping: right before its stop, its restart policy becomes `no`."""
    return current.is_running and current.restart_policy == "no" and original_policy is not None


def _run_again(container: ObservedContainer, policy: str | None, *, finish_stop: bool = False) -> tuple[SwapStep, ...]:
    stop = (SwapStep("stop", container.id),) if finish_stop else ()
    # The policy first: if the Engine restarts after the start, it then starts the container again.
    start = () if container.is_running and not finish_stop else (SwapStep("start", container.id),)
    return (*stop, *_restore_policy(container, policy), *start)


def _restore_policy(container: ObservedContainer, policy: str | None) -> tuple[SwapStep, ...]:
    if policy is None or policy == container.restart_policy:
        return ()
    return (SwapStep("policy", container.id, policy),)


def _require_ours(
    world: ReplacementContainers, container: ObservedContainer, replaced: ObservedContainer, name: str
) -> None:
    if container.replaces != replaced.id:
        raise Conflict(
            f"container {name} was not created by svcagent to replace {replaced.id[:12]} and is not changed. "
            f"Remove it or {world.name}{OLD_SUFFIX} by hand",
            kind="not-created-by-svcagent",
        )
