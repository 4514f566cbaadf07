"""One host's reload of one service: what each step does."""

import os
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

from agent.clock import Deadline
from agent.consul import Instance, Lock, queue_of
from agent.definitions import Reload, Service
from agent.errors import GuardRefused, HookFailed, Interrupted, LockLost, NotNow, Unreachable
from agent.logs import log
from agent.reload.conclude import conclude
from agent.reload.edges import Edges
from agent.reload.guard import Obstacle, find_obstacles, overridden
from agent.reload.hooks import WARN_ONLY, Hook, Occasion, run_hook
from agent.reload.journal import Record
from agent.reload.observe import Observer
from agent.reload.procedure import Procedure, command_of
from agent.reload.ready import Baseline
from agent.reload.record import Phase, Result
from agent.reload.restart import restarter
from agent.reload.restore import Restoration
from agent.reload.steps import PROPERTIES, Container, State, Step


@dataclass(frozen=True)
class Asked:
    """The options of a reload.

    ``lock_timeout``: seconds to wait for the fleet's lock. ``is_forced``: reload also what runs already, and override
    the obstacles that `guard` allows to be overridden. ``is_in_maintenance``: reload also an instance that is in an
    operator's maintenance, and leave it there.
    """

    lock_timeout: float
    is_forced: bool = False
    is_in_maintenance: bool = False


class Executor(Procedure):
    """One reload of one service on this host."""

    def __init__(self, service: Service, reload: Reload, edges: Edges, asked: Asked) -> None:
        reload_id = uuid.uuid4().hex[:8]
        since = edges.clock.now().isoformat(timespec="seconds")
        restart = restarter(reload.strategy, service, edges.engine, edges.state_dir, edges.environ, edges.clock)
        super().__init__(
            edges,
            Restoration(service, reload, restart, edges, self._tell_note, reload_id),
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
        self._is_loss_reported = False
        self._is_left_in_maintenance = False
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
            on_session=self._note_session,
            tell_place=lambda place, holder: self._tell(
                Phase.NOTE, f"place {place} in the queue; the lock is held by {holder}", place
            ),
        )

    def run(self) -> Result:
        """Take every step until none is left. A failure is part of the result, never raised."""
        restoration = self._restoration
        with self._lock:
            self._walk(
                {
                    Step.CHECK: self._check,
                    Step.PULL: self._pull,
                    Step.GUARD: self._guard,
                    Step.ACQUIRE: self._acquire,
                    Step.PLAN_AGAIN: self._plan_again,
                    Step.PREPARE: self._prepare,
                    Step.DRAIN: self._drain,
                    Step.RESTART: self._restart,
                    Step.QUARANTINE: self._quarantine,
                    Step.DRAIN_AGAIN: restoration.drain_again,
                    Step.ROLL_BACK: lambda: restoration.roll_back(
                        self._record.restart_policy or None, was_replacing=self._record.is_replacing
                    ),
                    Step.DISCARD: restoration.discard,
                    Step.READY: self._await_ready,
                    Step.RETURN: self._return,
                    Step.SETTLE: self._settle,
                    Step.CLEAN: lambda: restoration.clean(
                        self._record.digest, is_proven=self._state.is_settled is True
                    ),
                    Step.RELEASE: self._release,
                }
            )
            result = self._concluded(conclude)
            with self._survived("release the lock"):
                self._lock.release()  # or withdraw from the queue
        if self._troubles and not isinstance(self._troubles[0], NotNow | Interrupted):
            with self._survived("run the hook on_failure"):
                self._run_hook(Hook.ON_FAILURE)
        return result

    def check(self) -> tuple[bool, tuple[Obstacle, ...]]:
        """Return whether there is a newer image, and what blocks it. Changes nothing."""
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
        if self._state.has_failed:
            return
        properties = PROPERTIES[step]
        if properties.interruptible:
            with self._edges.interrupts.allowed():
                pass
        if properties.published:
            # Without it other hosts would not notice a version that takes its host down.
            self._report.is_taking(str(step), self._record, is_required=step is Step.DRAIN)
            try:
                self._lock.update(step=str(step), digest=self._record.digest)
            except (LockLost, Unreachable):
                if properties.disruptive:
                    raise

    def _note_session(self, session: str) -> None:
        self._note_down(session=session, is_required=True)

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
                newest = wanted
                wanted, self.result.remark = self._observer.agreed(newest, running)
                is_newer = not self._restarter.is_current(wanted)
                if is_newer and wanted != newest:
                    self._tell_note(f"taking {wanted}: {self.result.remark}")
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
            own = self._refuse_unless_clear(self._survey(), is_queueing=True)
            if self._reload.drain.connections:
                self._restoration.count_connections(own)  # fails here, before the drain, if they cannot be counted

    def _acquire(self) -> None:
        self._report.is_queueing(self._record)
        self._lock.acquire(Deadline.after(self._edges.clock, self._asked.lock_timeout))
        self.result.locked_at = self._edges.clock.now().timestamp()

    # ------------------------------------------------------------ under the lock

    def _plan_again(self) -> bool:
        with self._edges.interrupts.allowed():
            is_newer = self._asked.is_forced or not self._restarter.is_current(self._record.digest)
            if is_newer:
                survey = self._survey()
                self._refuse_unless_clear(survey)
                self._observer.require_pinned(self._record.digest)
                self._note_down(before=dict(survey.statuses))
                self._restoration.readiness.before = survey.statuses
        return is_newer

    def _prepare(self) -> None:
        done = self._restarter.prepare(self._record.digest)
        self._note_seconds(done.seconds)

    def _drain(self) -> None:
        edges, restoration = self._edges, self._restoration
        self._run_hook(Hook.BEFORE_DRAIN)
        remembered = restoration.dns_memory()
        with self._lock.turn(Deadline.after(edges.clock, self._asked.lock_timeout)):
            self._lock.ask()
            own = self._refuse_unless_clear()
            self._is_left_in_maintenance = own.maintenance is not None
            if own.maintenance is None:
                why = f"to run {self._record.digest[:19]}" if self._record.digest else "to restart"
                restoration.enable_maintenance(why)
                # Written, so look again: another host or an operator may have drained the others meanwhile.
                self._lock.ask()
                self._refuse_unless_clear(own_reload=self._record.reload_id)
        limit = Deadline.after(edges.clock, self._reload.drain.max)
        with edges.interrupts.allowed():
            left = restoration.await_drained(own, remembered, limit, self._require_lock)
        if left:
            self._tell_note(f"{left} connections are still open after drain.max; the restart cuts them")
        self._run_hook(Hook.AFTER_DRAIN)

    def _require_lock(self) -> None:
        if self._lock.is_lost:
            raise LockLost(f"the lock {self._record.lock} was lost while draining")

    def _restart(self) -> None:
        self._lock.ask()
        if self._observer.own_maintenance() is None:
            raise GuardRefused(
                f"the maintenance of {self._service.id} was disabled meanwhile, so clients are sent to it again; "
                "it is not restarted. Run this again"
            )
        policy = self._restarter.standing().restart_policy
        self._note_down(is_replacing=True, restart_policy=policy or "", is_required=True)
        done = self._restarter.restart(self._record.digest)
        self._note_seconds(done.seconds)
        if done.note:
            self._tell_note(done.note)
        self._restoration.insist(self._restoration.readiness.expect_fresh_results)
        self._run_hook(Hook.AFTER_RESTART)

    def _await_ready(self) -> None:
        if self._state.has_failed:  # on the way back nothing may interrupt the wait
            self._restoration.await_ready(is_returning=self._state.container is not Container.NEW)
            return
        with self._edges.interrupts.allowed():
            first_success = self._restoration.readiness.wait(is_fresh=True, each_round=self._notice_lost_lock)
        self.result.engine["first_success"] = round(first_success, 4)

    def _notice_lost_lock(self) -> None:
        """Report that the lock was lost. The instance is out and restarted: going on is the shortest way back."""
        if self._lock.is_lost and not self._is_loss_reported:
            self._is_loss_reported = True
            self._tell_note(f"the lock {self._record.lock} was lost; the instance is returned to service without it")

    def _return(self) -> None:
        self._restoration.return_(is_returning=self._state.container is not Container.NEW)
        if not self._state.has_failed:
            self._run_hook(Hook.AFTER_RETURN)

    def _settle(self) -> bool:
        """Watch the new version under traffic. False where an operator's maintenance keeps clients away."""
        if self._is_left_in_maintenance or self._observer.own_maintenance() is not None:
            return False
        is_first = self._report.is_first(self._record.digest)
        settle = self._reload.settle
        with self._edges.interrupts.allowed():
            return self._restoration.settle(
                settle.canary if is_first else settle.each, until_proven=is_first, still=self._require_lock_to_settle
            )

    def _require_lock_to_settle(self) -> None:
        if self._lock.is_lost:
            raise LockLost(
                f"the lock {self._record.lock} was lost before the new version had settled; it stays in service, and "
                "the next host waits for it like a first one"
            )

    def _release(self) -> None:
        self._publish(conclude)
        self._lock.release()
        self.result.released_at = self._edges.clock.now().timestamp()

    # ------------------------------------------------------------ helpers

    def _survey(self) -> Baseline:
        """Look at the checks of the instance that serves now, as Consul and as svcagent see them."""
        return self._restoration.readiness.survey()

    def _refuse_unless_clear(
        self, survey: Baseline | None = None, *, is_queueing: bool = False, own_reload: str = ""
    ) -> Instance:
        """Ask the guard. ``own_reload``: the instance is in this reload's own maintenance already.

        :raises GuardRefused: something forbids the drain.
        """
        seen = self._observer.look(
            self._record.digest,
            is_queueing=is_queueing,
            own_reload=own_reload,
            differences=survey.differences if survey else (),
        )
        obstacles, ignored = overridden(find_obstacles(seen), is_forced=self._asked.is_forced)
        if obstacles or seen.own is None:
            raise GuardRefused(f"not reloading {self._service.id} now: " + "; ".join(map(str, obstacles)))
        for one in ignored:
            if one.kind not in self._overridden:
                self._tell_note(f"--force overrides: {one.what}")
        self._overridden |= {one.kind for one in ignored}
        return seen.own

    def _note_seconds(self, parts: Mapping[str, float]) -> None:
        self.result.engine |= {part: round(seconds, 4) for part, seconds in parts.items()}

    def _run_hook(self, hook: Hook) -> None:
        """Run the operator's command for that moment; a failure of one that only warns is a note."""
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
