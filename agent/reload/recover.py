"""Recovery: finish or roll back a reload that crashed on this host.

The caller holds the service's `HostLock`, so the crashed process has ended. Its journal is used, but not needed: the
reason of a reload's maintenance names its host, and the names of the containers show how far their replacement got.
"""

import shlex
from collections.abc import Callable
from dataclasses import replace

from agent.clock import Deadline, never_interrupted, poll
from agent.consul import Consul, own_sessions, queue_of, release_dead_session, remove_unheld_lock
from agent.data import dataclass
from agent.definitions import ReloadSection, Service
from agent.engine.client import Engine
from agent.engine.swap import ReplacementState
from agent.errors import Interrupted, NotReady, TemporaryRefusal, Unreachable
from agent.maintenance import MaintenanceTarget, disable_own_maintenance, is_of_reload
from agent.reload.dependencies import Dependencies, ReloadContext
from agent.reload.instance import maintenance_of
from agent.reload.journal import Journal, JournalDamaged, JournalRecord
from agent.reload.outcome import conclude_recovery
from agent.reload.record import ReloadResult
from agent.reload.restart import restarter
from agent.reload.restore import Restoration
from agent.reload.runner import StepRunner, command_of
from agent.reload.steps import Blame, Step, recovered

SESSION_SECONDS = 35.0
"""The session of a crashed process ends within twice its TTL (15 s)."""
SESSION_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Leftover:
    """What a crashed reload left. ``record``: the journal's; without one, from what Consul and Docker show.

    ``is_out``: own maintenance is enabled. ``is_journal_lost``: there was no usable journal.
    """

    record: JournalRecord
    container: ReplacementState
    is_out: bool
    is_journal_lost: bool


def find_leftover(
    service: Service, reload: ReloadSection, deps: Dependencies, note: Callable[[str], None]
) -> Leftover | None:
    """Return what must be finished or rolled back; None if there is nothing. ``note`` reports a damaged journal."""
    record = read_journal(deps.journal, note)
    if record is not None and record.container not in ("", reload.container):
        note(f"its definition now names another container; {record.container} is restored too")
        restore_container(deps.engine, record)
    restart = restarter(reload.strategy, service, deps.engine, deps.state_dir, deps.environ, deps.clock)
    status = restart.replacement_status()
    is_held = True
    try:
        held = maintenance_of(deps.consul.services().get(service.id))
        is_held = held is not None
        reload_id = record.reload_id if record is not None else ""
        is_out = held is not None and is_of_reload(held, deps.agent.node, reload_id)
    except Unreachable:
        is_out = record is not None  # checked again before it is disabled
    if record is None and not is_out and status.state in (ReplacementState.OLD, ReplacementState.ABSENT):
        deps.journal.remove()
        return None
    is_journal_lost = record is None
    if record is None:
        record = JournalRecord.of(service, reload, "", deps.clock.now().isoformat(timespec="seconds"))
        # Only a container that runs in service was certainly not asked to stop.
        may_be_stopping = status.state is ReplacementState.PREPARED and (is_held or not status.is_running)
        record = replace(record, is_replacing=may_be_stopping or status.state is ReplacementState.MIXED)
    record = replace(record, digest=record.digest or status.digest)
    # Without a container there is nothing to roll back; the step ready finds that nothing runs.
    container = ReplacementState.OLD if status.state is ReplacementState.ABSENT else status.state
    return Leftover(record, container, is_out, is_journal_lost)


def read_journal(journal: Journal, note: Callable[[str], None]) -> JournalRecord | None:
    """Return the journal's record; None, with a note, if it cannot be used."""
    try:
        return journal.read()
    except JournalDamaged as error:
        note(f"{error}; recovery continues with the state of Consul and Docker")
        return None


def restore_container(engine: Engine, record: JournalRecord) -> None:
    """Start a container that an interrupted replacement left stopped, and remove a prepared one, without Consul.

    A running container is not changed: only its maintenance shows whether it is about to stop.
    """
    if not record.container:
        return
    found = engine.replacement_status(record.container)
    if found.state is ReplacementState.PREPARED and not record.is_replacing:
        engine.discard(record.container)
    elif found.state in (ReplacementState.MIXED, ReplacementState.PREPARED) and not found.is_running:
        engine.roll_back(record.container, record.restart_policy or None)


def recover_undefined(
    consul: Consul, engine: Engine, journal: Journal, node: str, service_id: str, note: Callable[[str], None]
) -> bool:
    """Restore a service that no definition manages any more: start the container, release the lock, return to service.

    Consul's checks alone decide whether it is ready. Return False if there was nothing to restore. Raise `NotReady` if
    a check is critical; the maintenance and the journal stay then.
    """
    record = read_journal(journal, note)
    if record is not None:
        restore_container(engine, record)
        if record.session:
            queue = queue_of(record.service)
            release_dead_session(consul, record.lock, record.session, limit=record.max_parallel, queue=queue)
    local = consul.services().get(service_id)
    held = maintenance_of(local)
    if local is not None and held is not None and is_of_reload(held, node, record.reload_id if record else ""):
        failing = [check.id for check in local.real_checks if check.status == "critical"]
        if failing:
            raise NotReady(
                "still out of service: a crashed reload left it in maintenance, no definition manages it any more, and "
                f"these checks are critical: {', '.join(failing)}. Correct the checks, or run: svcagent maint disable "
                f"{shlex.quote(service_id)} --force"
            )
        disable_own_maintenance(consul, MaintenanceTarget(node, service_id, local.name), held)
    journal.remove()
    return record is not None or held is not None


class Recovery:
    """Finishes or rolls back one service's reload. Afterwards the instance is in service and the lock is free."""

    def __init__(self, service: Service, reload: ReloadSection, deps: Dependencies, leftover: Leftover) -> None:
        record = leftover.record
        context = ReloadContext.of(service, reload, deps, record)
        state = recovered(
            leftover.container,
            is_out=leftover.is_out,
            blame=_blame(record.blame),
            was_replacing=record.is_replacing,
            is_locked=bool(record.session) or leftover.is_journal_lost,
            may_roll_back=reload.rollback,
        )
        wanted = None if leftover.is_journal_lost else record.digest or None
        self.result = ReloadResult(service.name, deps.agent.node, reload.image, id=record.reload_id, wanted=wanted)
        self._deps = deps
        self._record = record
        self._is_journal_lost = leftover.is_journal_lost
        self._retry = context.retry
        self._restoration = Restoration(context, is_out=leftover.is_out)
        self._runner = StepRunner(context, self._restoration, state, self.result, conclude_recovery)
        self._report = self._runner.report

    def run(self) -> ReloadResult:
        """Take every step until none is left. A failure is part of the result.

        :raises TemporaryRefusal: a running process of this host, with another state directory, holds the lock.
        :raises Interrupted: the journal stays, and the next process continues.
        """
        if self._is_journal_lost:
            self._await_end_of_sessions()
        self._runner.run(
            {
                Step.READY: self._await_ready,
                Step.RETURN: lambda: self._restoration.return_(is_returning=self._runner.is_returning),
                Step.SETTLE: self._settle,
                Step.CLEAN: lambda: self._restoration.clean(is_proven=self._runner.state.is_settled is True),
                Step.RELEASE: self._release,
                **self._restoration.way_back,
            },
            stops_at=(Interrupted,),
        )
        return self._runner.conclude()

    def _await_end_of_sessions(self) -> None:
        deps, lock = self._deps, self._record.lock
        command = command_of(self._record.service_id)
        deadline = Deadline.after(deps.clock, SESSION_SECONDS)
        with deps.interrupts.allowed():
            are_gone = poll(
                lambda: not own_sessions(deps.consul, deps.agent.node, lock, command), deadline, SESSION_POLL_SECONDS
            )
        if not are_gone:
            raise TemporaryRefusal(
                f"a reload of {self._record.service} runs on this host with another state directory. "
                "Use one state directory on a host (--state-dir, SVCAGENT_STATE_DIR)",
                kind="reload-running",
            )

    def _await_ready(self) -> None:
        self._restoration.start_again()
        with self._deps.interrupts.allowed():
            self._restoration.await_ready(is_returning=self._runner.is_returning)

    def _settle(self) -> bool:
        is_first = self._report.is_first()
        with self._deps.interrupts.allowed():
            return self._restoration.watch.settle(is_first=is_first, each_round=never_interrupted)

    def _release(self) -> None:
        self._runner.publish()
        record, consul = self._record, self._deps.consul
        if record.session:
            queue = queue_of(record.service)
            self._retry(
                lambda: release_dead_session(
                    consul, record.lock, record.session, limit=record.max_parallel, queue=queue
                )
            )
        else:
            self._retry(lambda: remove_unheld_lock(consul, record.lock, limit=record.max_parallel))


def _blame(text: str) -> Blame:
    """Return the journal's verdict on the version; an open one is judged again."""
    return Blame(text) if text in (Blame.NONE, Blame.DUE, Blame.ENVIRONMENT) else Blame.OPEN if text else Blame.NONE
