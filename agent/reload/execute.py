"""The way forward of a reload: each step carried out through the edges it was given."""

import ipaddress
import os
import uuid
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

from agent.clock import Deadline
from agent.consul import Instance, Lock, ask_dns, queue_of
from agent.definitions import Reload, Service
from agent.errors import (
    Conflict,
    GuardRefused,
    HookFailed,
    Interrupted,
    LockLost,
    NotFound,
    NotNow,
    SvcagentError,
    Unreachable,
)
from agent.fleet import HostStanding
from agent.logs import log
from agent.maintenance import Target, await_absence_from_dns, await_absence_from_health, by_reload, put_out
from agent.reload.conclude import conclude
from agent.reload.drain import await_quiet
from agent.reload.edges import Edges
from agent.reload.guard import Obstacle, find_obstacles, overridden
from agent.reload.hooks import WARN_ONLY, Hook, Occasion, run_hook
from agent.reload.journal import Record
from agent.reload.observe import Observer
from agent.reload.procedure import Procedure, command_of
from agent.reload.record import Phase, Result
from agent.reload.restart import restarter
from agent.reload.restore import Restoration
from agent.reload.steps import DISRUPTIVE, INTERRUPTIBLE, State, Step

TOLD = frozenset({Step.DRAIN, Step.RESTART, Step.READY, Step.RETURN})
"""Steps that other hosts hear of while they go on: the others are over at once."""


@dataclass(frozen=True)
class Asked:
    """What whoever started the reload wants of it.

    ``lock_timeout``: seconds to wait for the fleet's lock. ``is_forced``: reload also what runs already, and override
    what `guard` lets be overridden. ``is_in_maintenance``: reload also an instance that an operator holds out, and
    leave it out.
    """

    lock_timeout: float
    is_forced: bool = False
    is_in_maintenance: bool = False


class Executor(Procedure):
    """One reload of one service on this host."""

    def __init__(self, service: Service, reload: Reload, edges: Edges, asked: Asked) -> None:
        reload_id = uuid.uuid4().hex[:8]
        since = edges.clock.now().isoformat(timespec="seconds")
        restart = restarter(reload.strategy, service.id, edges.engine, edges.environ, edges.clock)
        super().__init__(
            edges,
            Restoration(service, reload, restart, edges, self._tell_note),
            State(may_roll_back=reload.rollback),
            Record.of(service, reload, reload_id, since),
            Result(service.name, edges.agent.node, reload.image, id=reload_id),
        )
        self._service = service
        self._reload = reload
        self._asked = asked
        self._restarter = restart
        self._observer = Observer(service, reload, restart, edges, asked.is_in_maintenance)
        self._overridden: frozenset[str] = frozenset()
        self._target = Target(edges.agent.node, service.id, service.name)
        name = f"{service.name}.service.{edges.agent.datacenter}.{edges.agent.domain}"
        self._ask_dns = {f"{host}:{port}": partial(ask_dns, (host, port), name) for host, port in edges.drain_dns}
        self._lock = Lock(
            edges.consul,
            reload.lock_prefix(service.name),
            command=command_of(service.id),
            details={
                "node": edges.agent.node,
                "pid": os.getpid(),
                "command": "svcagent reload",
                "service": service.name,
                "reload": reload_id,
            },
            clock=edges.clock,
            waiting=edges.interrupts.allowed,
            limit=reload.max_parallel,
            queue=queue_of(service.name),
            on_session=lambda session: self._note_down(session=session, is_required=True),
            tell_place=lambda place, holder: self._tell(
                Phase.NOTE, f"place {place} in the line; the lock is held by {holder}", place
            ),
        )

    def run(self) -> Result:
        """Take step after step until none is left; what failed is told by the result, never raised."""
        restoration = self._restoration
        with self._lock:
            self._walk(
                {
                    Step.CHECK: self._check,
                    Step.PULL: self._pull,
                    Step.GUARD: self._guard,
                    Step.ACQUIRE: self._acquire,
                    Step.PLAN_AGAIN: self._plan_again,
                    Step.DRAIN: self._drain,
                    Step.RESTART: self._restart,
                    Step.QUARANTINE: self._quarantine,
                    Step.ROLL_BACK: lambda: restoration.roll_back(self._record.restart_policy or None),
                    Step.READY: self._await_ready,
                    Step.RETURN: self._return,
                    Step.CLEAN: lambda: restoration.clean(self._record.digest),
                    Step.RELEASE: self._release,
                }
            )
            try:
                self._lock.release()  # of an attempt that was given up while waiting
            except SvcagentError as error:
                self._troubles.append(error)
        result = self._concluded(conclude)
        if self._troubles and not isinstance(self._troubles[0], NotNow | Interrupted):
            self._run_hook(Hook.ON_FAILURE)
        return result

    def check(self) -> tuple[bool, tuple[Obstacle, ...]]:
        """Is there a newer image, and what would keep this host from taking it? Changes nothing."""
        newest = self._restarter.newest()
        is_newer = not self._restarter.is_current(newest)
        if is_newer and newest and not self._asked.is_forced:
            newest, self.result.remark = self._observer.wanted(newest, self._restarter.running())
            is_newer = not self._restarter.is_current(newest)
        is_newer = is_newer or self._asked.is_forced
        self.result.wanted = newest
        seen = self._observer.look(newest, is_queueing=True, is_fetched=False)
        standing, _ignored = overridden(find_obstacles(seen), is_forced=self._asked.is_forced)
        return is_newer, standing

    def _may_begin(self, step: Step) -> None:
        if step in INTERRUPTIBLE and not self._state.has_failed:
            with self._edges.interrupts.allowed():
                pass
        if step in TOLD and not self._state.has_failed:
            self._report.is_under_way(HostStanding.RELOADING, str(step), self._record)
            try:
                self._lock.update(step=str(step), digest=self._record.digest)
            except (LockLost, Unreachable):
                if step in DISRUPTIVE:
                    raise

    # ------------------------------------------------------------ before the lock

    def _check(self) -> bool:
        with self._edges.interrupts.allowed():
            wanted = self._restarter.newest()
            running = self._restarter.running()
            is_newer = not self._restarter.is_current(wanted)
            if self._asked.is_forced and wanted:
                if is_newer and (what := self._observer.insisted(wanted)):
                    self._tell_note(f"--force overrides: {what}")
            elif is_newer and wanted:
                wanted, self.result.remark = self._observer.agreed(wanted, running)
                is_newer = not self._restarter.is_current(wanted)
            is_newer = is_newer or self._asked.is_forced
        self._record = replace(self._record, digest=wanted, digest_before=running)
        self.result.wanted = wanted
        if is_newer:
            self._restarter.check_possible()
        return is_newer

    def _pull(self) -> None:
        with self._edges.interrupts.allowed():
            self._restarter.fetch(self._record.digest, self._edges.tell_pull)

    def _guard(self) -> None:
        with self._edges.interrupts.allowed():
            self._refuse_unless_clear(is_queueing=True)
            for ask in self._ask_dns.values():
                ask()  # one that does not answer could not be seen to forget this instance either

    def _acquire(self) -> None:
        self._report.is_under_way(HostStanding.QUEUEING, "acquire", self._record)
        self._lock.acquire(Deadline.after(self._edges.clock, self._asked.lock_timeout))
        self.result.locked_at = self._edges.clock.now().timestamp()

    # ------------------------------------------------------------ under the lock

    def _plan_again(self) -> bool:
        with self._edges.interrupts.allowed():
            is_newer = self._asked.is_forced or not self._restarter.is_current(self._record.digest)
            if is_newer:
                self._refuse_unless_clear()
                self._observer.require_pinned(self._record.digest)
        return is_newer

    def _drain(self) -> None:
        edges = self._edges
        self._run_hook(Hook.BEFORE_DRAIN)
        remembered = max((ask().ttl for ask in self._ask_dns.values()), default=0)
        with self._lock.turn(Deadline.after(edges.clock, self._asked.lock_timeout)):
            self._lock.ask()
            own = self._refuse_unless_clear()
            if own.maintenance is None:
                self._take_out()
        limit = Deadline.after(edges.clock, self._reload.drain.max)
        with edges.interrupts.allowed():
            await_absence_from_health(edges.consul, edges.clock, self._target)
            await_absence_from_dns(self._ask_dns, (own.address, own.port), edges.clock, remembered)
            left = await_quiet(lambda: self._count_connections(own), self._reload.drain, edges.clock, limit)
        if left:
            self._tell_note(f"{left} connections still open after drain.max; the restart cuts them")
        self._run_hook(Hook.AFTER_DRAIN)

    def _take_out(self) -> None:
        edges = self._edges
        why = f"to run {self._record.digest[:19]}" if self._record.digest else "to restart"
        own_maintenance = by_reload(self._record.reload_id, edges.agent.node, why, edges.clock.now())
        self._restoration.is_out = True
        try:
            put_out(edges.consul, edges.clock, self._target, own_maintenance)
        except (Conflict, NotFound):
            self._restoration.is_out = False
            raise

    def _count_connections(self, own: Instance) -> int:
        if self._lock.is_lost:
            raise LockLost(f"the lock {self._record.lock} was lost while draining")
        return self._restarter.connections(own.port, _ip(own.address)) if own.port else 0

    def _restart(self) -> None:
        self._lock.ask()
        if self._observer.own_maintenance() is None:
            raise GuardRefused(
                f"the maintenance that held {self._service.id} out was lifted meanwhile, so clients are sent to it "
                "again; it is not restarted. Run this again"
            )
        policy = self._restarter.standing().restart_policy
        self._note_down(is_replacing=True, restart_policy=policy or "", is_required=True)
        done = self._restarter.restart(self._record.digest)
        self.result.engine = {part: round(seconds, 4) for part, seconds in done.seconds.items()}
        if done.note:
            self._tell_note(done.note)
        self._run_hook(Hook.AFTER_RESTART)

    def _await_ready(self) -> None:
        if self._state.has_failed:  # on the way back nothing may cut the wait short
            self._restoration.await_ready()
            return
        with self._edges.interrupts.allowed():
            first_success = self._restoration.readiness().wait(is_fresh=True)
        self.result.engine["first_success"] = round(first_success, 4)

    def _return(self) -> None:
        self._restoration.return_()
        if not self._state.has_failed:
            self._run_hook(Hook.AFTER_RETURN)

    def _release(self) -> None:
        self._lock.release()
        self.result.released_at = self._edges.clock.now().timestamp()

    # ------------------------------------------------------------ helpers

    def _refuse_unless_clear(self, *, is_queueing: bool = False) -> Instance:
        seen = self._observer.look(self._record.digest, is_queueing=is_queueing)
        obstacles, ignored = overridden(find_obstacles(seen), is_forced=self._asked.is_forced)
        if obstacles or seen.own is None:
            raise GuardRefused(f"not reloading {self._service.id} now: " + "; ".join(map(str, obstacles)))
        for one in ignored:
            if one.kind not in self._overridden:
                self._tell_note(f"--force overrides: {one.what}")
        self._overridden |= {one.kind for one in ignored}
        return seen.own

    def _run_hook(self, hook: Hook) -> None:
        """The operator's own command for that moment; one that may only warn does."""
        occasion = Occasion(
            service=self._service.name,
            service_id=self._service.id,
            node=self._edges.agent.node,
            reload=self._record.reload_id,
            step=str(self._failed_step or self._step),
            digest=self._record.digest,
            digest_before=self._record.digest_before,
            result=self.result.outcome or "reloaded",
        )
        edges = self._edges
        waiting = nullcontext if hook in WARN_ONLY else edges.interrupts.allowed
        try:
            finished = run_hook(self._reload.hooks, hook, occasion, edges.environ, edges.clock, waiting)
        except HookFailed as error:
            if hook not in WARN_ONLY:
                raise
            self._tell(Phase.NOTE, str(error))
            return
        if finished is not None and finished.output:
            log(finished.output, service=occasion.service, reload=occasion.reload, step=occasion.step, hook=str(hook))


def _ip(address: str) -> str | None:
    """Consul takes a host name for an address too; connections show numbers."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return None
