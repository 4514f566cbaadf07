"""After a crash: what an earlier process of this host left half done is brought to its end.

Whoever runs this has the service's `HostLock`, so that process is dead. What it noted in its journal is taken into
account, but not needed: maintenance of a reload names its host, and containers tell by their names.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.clock import Deadline, poll
from agent.consul import Consul, clear_free, give_back_dead, own_sessions, queue_of
from agent.definitions import Reload, Service
from agent.engine import Engine, Stand, Standing
from agent.errors import Interrupted, NotNow, NotReady, Unreachable
from agent.maintenance import Target, is_of_reload, lift_own, parse
from agent.reload.conclude import Trouble, conclude_recovery
from agent.reload.edges import Edges
from agent.reload.journal import Journal, JournalDamaged, Record
from agent.reload.procedure import Procedure, command_of
from agent.reload.record import Result
from agent.reload.restart import Restarter, restarter
from agent.reload.restore import Restoration
from agent.reload.steps import Container, Step, recovered

SESSION_SECONDS = 35.0
"""A dead process's session ends within twice its time to live (15 s); a living one's does not."""
SESSION_POLL_SECONDS = 0.5

_CONTAINERS = {
    Stand.OLD: Container.OLD,
    Stand.ABSENT: Container.OLD,  # nothing that could be rolled back; that nothing runs is found when it is asked
    Stand.MIXED: Container.MIXED,
    Stand.NEW: Container.NEW,
}


@dataclass(frozen=True)
class Leftover:
    """What an earlier process left of one service. ``record`` is None where its journal is lost or damaged."""

    record: Record | None
    standing: Standing
    is_out: bool


def find_leftover(service: Service, reload: Reload, edges: Edges, note: Callable[[str], None]) -> Leftover | None:
    """What is to be brought to its end; None if there is nothing. ``note`` hears of a damaged journal."""
    record = read_journal(edges.journal, note)
    if record is not None and record.container not in ("", reload.container):
        note(f"its definition names another container now; {record.container} is put right as well")
        revive(edges.engine, record)
    standing = _restarter(service, reload, edges).standing()
    try:
        local = edges.consul.services().get(service.id)
        held = local.maintenance if local is not None else None
        is_out = held is not None and is_of_reload(parse(held.notes), edges.agent.node)
    except Unreachable:
        is_out = record is not None  # looked at again before it is lifted
    if record is None and not is_out and standing.stand in (Stand.OLD, Stand.ABSENT):
        edges.journal.remove()
        return None
    return Leftover(record, standing, is_out)


def read_journal(journal: Journal, note: Callable[[str], None]) -> Record | None:
    """What it says; None, and a note, where it cannot be used."""
    try:
        return journal.read()
    except JournalDamaged as error:
        note(f"{error}; going by what Consul and Docker show")
        return None


def revive(engine: Engine, record: Record) -> None:
    """Before Consul is there: have a container run again that a replacement left in between, and nothing more."""
    if record.container and engine.standing(record.container).stand is Stand.MIXED:
        engine.roll_back(record.container, record.restart_policy or None)


def abandon(
    consul: Consul, engine: Engine, journal: Journal, node: str, service_id: str, note: Callable[[str], None]
) -> bool:
    """Of a service that no definition reloads any more: its container runs, its lock is free, its maintenance lifted.

    There is nothing to ask whether it is ready but the checks that Consul runs. False: nothing was left.

    :raises NotReady: one of them does not pass; it stays out, and the journal stays.
    """
    record = read_journal(journal, note)
    if record is not None:
        revive(engine, record)
        if record.session:
            queue = queue_of(record.service)
            give_back_dead(consul, record.lock, record.session, limit=record.max_parallel, queue=queue)
    local = consul.services().get(service_id)
    held = parse(local.maintenance.notes) if local is not None and local.maintenance is not None else None
    if local is not None and held is not None and is_of_reload(held, node):
        failing = [check.id for check in local.real_checks if check.status != "passing"]
        if failing:
            raise NotReady(
                "IT IS STILL OUT OF SERVICE: a dead reload has it out, no definition reloads it any more, and these "
                f"checks fail: {', '.join(failing)}. Repair it, or run: svcagent maint disable {service_id} --force"
            )
        lift_own(consul, Target(node, service_id, local.name), held)
    journal.remove()
    return record is not None or held is not None


class Recovery(Procedure):
    """Brings one service's leftover to its end: ready and in service, the lock given back, nothing left behind."""

    def __init__(self, service: Service, reload: Reload, edges: Edges, leftover: Leftover) -> None:
        record = leftover.record or Record.of(service, reload, "", edges.clock.now().isoformat(timespec="seconds"))
        if not record.digest:
            record = replace(record, digest=leftover.standing.digest)
        restoration = Restoration(service, reload, _restarter(service, reload, edges), edges, self._tell_note)
        restoration.is_out = leftover.is_out
        state = recovered(
            _CONTAINERS[leftover.standing.stand],
            is_out=leftover.is_out,
            is_bad=record.is_bad,
            was_replacing=record.is_replacing,
            is_settled=not leftover.is_out and (leftover.record is None or record.step in (Step.CLEAN, Step.RELEASE)),
            is_locked=bool(record.session) or leftover.record is None,
            may_roll_back=reload.rollback,
        )
        result = Result(service.name, edges.agent.node, reload.image, id=record.reload_id)
        super().__init__(edges, restoration, state, record, result)
        self._is_journal_lost = leftover.record is None

    def run(self) -> Result:
        """Take step after step until none is left; what failed is told by the result.

        :raises NotNow: a living process of this host has the lock; it uses another state directory.
        :raises Interrupted: the journal stays, and the next one goes on.
        """
        if self._is_journal_lost:
            self._await_end_of_sessions()
        restoration = self._restoration
        self._walk(
            {
                Step.QUARANTINE: self._quarantine,
                Step.ROLL_BACK: lambda: restoration.roll_back(self._record.restart_policy or None),
                Step.READY: self._await_ready,
                Step.RETURN: restoration.return_,
                Step.CLEAN: lambda: restoration.clean(self._record.digest),
                Step.RELEASE: self._release,
            },
            stops_at=(Interrupted,),
        )
        return self._concluded(conclude_recovery)

    def _blames(self, _step: Step, _error: Trouble) -> bool:
        """Never: a host that has just booted is not the one to judge. The next reload tries once more, and may."""
        return False

    def _await_end_of_sessions(self) -> None:
        edges, lock = self._edges, self._record.lock
        command = command_of(self._record.service_id)
        deadline = Deadline.after(edges.clock, SESSION_SECONDS)
        with edges.interrupts.allowed():
            are_gone = poll(
                lambda: not own_sessions(edges.consul, edges.agent.node, lock, command), deadline, SESSION_POLL_SECONDS
            )
        if not are_gone:
            raise NotNow(
                f"a reload of {self._record.service} is alive on this host and keeps its journal elsewhere. "
                "Use one state directory on a host (--state-dir, SVCAGENT_STATE_DIR)"
            )

    def _await_ready(self) -> None:
        self._restoration.start()
        with self._edges.interrupts.allowed():
            self._restoration.await_ready()

    def _release(self) -> None:
        record, consul = self._record, self._edges.consul
        if record.session:
            queue = queue_of(record.service)
            self._restoration.insist(
                lambda: give_back_dead(consul, record.lock, record.session, limit=record.max_parallel, queue=queue)
            )
        else:
            self._restoration.insist(lambda: clear_free(consul, record.lock, limit=record.max_parallel))


def _restarter(service: Service, reload: Reload, edges: Edges) -> Restarter:
    return restarter(reload.strategy, service.id, edges.engine, edges.environ, edges.clock)
