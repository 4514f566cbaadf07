"""One host's reload of one service: the actions of its steps, from top to bottom."""

import os
import uuid
from collections.abc import Callable, Mapping

from agent.clock import Deadline
from agent.consul import Consul, Instance, Lock, queue_of
from agent.data import dataclass
from agent.definitions import ReloadSection, Service
from agent.errors import ChangedMeanwhile, GuardRefused, Interrupted, LockLost, TemporaryRefusal, Unreachable
from agent.reload.dependencies import Dependencies, ReloadContext
from agent.reload.guard import find_obstacles, overridden
from agent.reload.hooks import Hook, HookRunner
from agent.reload.journal import JournalRecord
from agent.reload.observe import Observer
from agent.reload.outcome import conclude
from agent.reload.record import ReloadResult
from agent.reload.restore import Restoration
from agent.reload.runner import StepRunner, command_of
from agent.reload.steps import STEPS, State, Step
from agent.reload.survey import Baseline, InstanceSurvey
from agent.text import short_digest


@dataclass(frozen=True)
class ReloadOptions:
    """The options of a reload.

    ``lock_timeout``: seconds to wait for the fleet's lock. ``is_forced``: reload even if the version runs already, and
    override the obstacles that `guard` allows to override. ``is_in_maintenance``: reload even an instance in an
    operator's maintenance, and leave it there.
    """

    lock_timeout: float
    is_forced: bool = False
    is_in_maintenance: bool = False


class Reload:
    """One reload of one service on this host. ``notify_begun`` notifies people, if due, right before a pull."""

    def __init__(
        self,
        service: Service,
        section: ReloadSection,
        deps: Dependencies,
        options: ReloadOptions,
        notify_begun: Callable[[Consul], None] = lambda _consul: None,
    ) -> None:
        now = deps.clock.now()
        record = JournalRecord.of(service, section, uuid.uuid4().hex[:8], now.isoformat(timespec="seconds"))
        context = ReloadContext.of(service, section, deps, record)
        self.result = ReloadResult(service.name, deps.agent.node, section.image, id=record.reload_id)
        self._service = service
        self._section = section
        self._deps = deps
        self._options = options
        self._notify_begun = notify_begun
        self._progress = context.progress
        self._entry = context.entry
        self._restarter = context.restarter
        self._retry = context.retry
        self._restoration = Restoration(context)
        self._drainer = self._restoration.drainer
        state = State(may_roll_back=section.rollback)
        self._runner = StepRunner(context, self._restoration, state, self.result, conclude)
        self._report = self._runner.report
        self._observer = Observer(context, self._drainer, is_in_maintenance=options.is_in_maintenance)
        self._survey = InstanceSurvey(context.instance)
        self._hooks = HookRunner(context)
        self._lock = _lock_of(context)
        self._overridden: frozenset[str] = frozenset()
        self._is_loss_reported = False
        self._is_left_in_maintenance = False

    def run(self) -> ReloadResult:
        """Take every step until none is left. A failure is part of the result, never raised."""
        with self._lock:
            self._runner.run(
                {
                    Step.CHECK: self._check,
                    Step.PULL: self._pull,
                    Step.GUARD: self._guard,
                    Step.ACQUIRE: self._acquire,
                    Step.PLAN_AGAIN: self._plan_again,
                    Step.PREPARE: self._prepare,
                    Step.DRAIN: self._drain,
                    Step.RESTART: self._restart,
                    Step.READY: self._await_ready,
                    Step.RETURN: self._return,
                    Step.SETTLE: self._settle,
                    Step.CLEAN: lambda: self._restoration.clean(is_proven=self._runner.state.is_settled is True),
                    Step.RELEASE: self._release,
                    **self._restoration.way_back,
                },
                announce=self._announce,
            )
            result = self._runner.conclude()
            with self._progress.tolerated("release the lock"):
                self._lock.release()  # or withdraw from the queue
        if self._runner.failures and not isinstance(self._runner.failures[0], TemporaryRefusal | Interrupted):
            with self._progress.tolerated("run the hook on_failure"):
                self._hooks.run(Hook.ON_FAILURE, result.outcome or "")
        return result

    # ------------------------------------------------------------ before the lock

    def _check(self) -> bool:
        with self._deps.interrupts.allowed():
            wanted = self._restarter.newest()
            self.result.newest = wanted or None
            running = self._restarter.running()
            is_newer = not self._restarter.is_current(wanted)
            if self._options.is_forced and wanted:
                if is_newer and (what := self._observer.pin_forced(wanted)):
                    self._progress.note(f"--force overrides: {what}")
            elif is_newer and wanted:
                newest = wanted
                wanted, self.result.remark = self._observer.agree_on_digest(newest, running)
                is_newer = not self._restarter.is_current(wanted)
                if is_newer and wanted != newest:
                    self._progress.note(f"taking {wanted}: {self.result.remark}")
            is_newer = is_newer or self._options.is_forced
        self._entry.update(digest=wanted, digest_before=running)
        self.result.wanted = wanted
        if is_newer:
            self._restarter.check_recreatable()
        return is_newer

    def _pull(self) -> None:
        with self._progress.tolerated("send notifications"):
            self._notify_begun(self._deps.consul)
        with self._deps.interrupts.allowed():
            self._restarter.fetch(self._entry.record.digest, self._deps.report_pull)

    def _guard(self) -> None:
        with self._deps.interrupts.allowed():
            own = self._refuse_unless_clear(self._survey.take(), is_queueing=True)
            if self._section.drain.connections:
                self._drainer.count_connections(own)  # fails here, before the drain, if they cannot be counted
            self._hooks.check_programs()  # likewise

    def _acquire(self) -> None:
        self._report.publish_queueing()
        self._lock.acquire(self._lock_deadline())
        self.result.locked_at = self._deps.clock.now().timestamp()

    # ------------------------------------------------------------ under the lock

    def _plan_again(self) -> bool:
        with self._deps.interrupts.allowed():
            is_newer = self._options.is_forced or not self._restarter.is_current(self._entry.record.digest)
            if is_newer:
                survey = self._survey.take()
                self._refuse_unless_clear(survey)
                self._observer.require_pinned(self._entry.record.digest)
                self._entry.save(before=dict(survey.statuses))
        return is_newer

    def _prepare(self) -> None:
        self._add_seconds(self._restarter.prepare(self._entry.record.digest).seconds)

    def _drain(self) -> None:
        deps, digest = self._deps, self._entry.record.digest
        self._hooks.run(Hook.BEFORE_DRAIN)
        remembered = self._drainer.dns_cache_seconds()
        with self._lock.turn(self._lock_deadline()):
            self._lock.check_held()
            own = self._refuse_unless_clear()
            self._is_left_in_maintenance = own.maintenance is not None
            if own.maintenance is None:
                self._drainer.enable(f"to run {short_digest(digest)}" if digest else "to restart")
                # After the write, look again: another host or an operator may have drained the others meanwhile.
                self._lock.check_held()
                self._refuse_unless_clear(own_reload=self._entry.record.reload_id)
        limit = Deadline.after(deps.clock, self._section.drain.max)
        with deps.interrupts.allowed():
            left = self._drainer.await_drained(own, remembered, limit, self._require_lock)
        if left:
            self._progress.note(f"{left} connections are still open after drain.max; the restart cuts them")
        self._hooks.run(Hook.AFTER_DRAIN)

    def _restart(self) -> None:
        # Before the last look at the lock, because it may take seconds; and before the journal says that a stop was
        # begun, because the way back would complete that stop.
        self._restarter.check_startable()
        self._lock.check_held()
        if self._observer.own_maintenance() is None:
            raise GuardRefused(
                f"the maintenance of {self._service.id} was disabled meanwhile, so clients are sent to it again; "
                "it was not restarted. Run the command again",
                kind="maintenance-disabled",
            )
        policy = self._restarter.replacement_status().restart_policy
        self._entry.save(is_replacing=True, restart_policy=policy or "", required=True)
        try:
            done = self._restarter.restart(self._entry.record.digest)
        except ChangedMeanwhile:
            self._entry.save(is_replacing=False)
            raise
        self._add_seconds(done.seconds)
        if done.note:
            self._progress.note(done.note)
        self._restoration.expect_fresh_results()
        self._hooks.run(Hook.AFTER_RESTART)

    def _await_ready(self) -> None:
        if self._runner.state.has_failed:  # on the way back nothing may interrupt the wait
            self._restoration.await_ready(is_returning=self._runner.is_returning)
            return
        with self._deps.interrupts.allowed():
            first_success = self._restoration.readiness.wait(is_fresh=True, each_round=self._notice_lost_lock)
        self._add_seconds({"first_success": first_success})

    def _return(self) -> None:
        self._restoration.return_(is_returning=self._runner.is_returning)
        if not self._runner.state.has_failed:
            self._hooks.run(Hook.AFTER_RETURN)

    def _settle(self) -> bool:
        """Watch the new version under traffic. Return False if an operator's maintenance keeps clients away."""
        if self._is_left_in_maintenance or self._observer.own_maintenance() is not None:
            return False
        is_first = self._report.is_first()
        with self._deps.interrupts.allowed():
            return self._restoration.watch.settle(is_first=is_first, each_round=self._require_lock_to_settle)

    def _release(self) -> None:
        self._runner.publish()
        self._lock.release()
        self.result.released_at = self._deps.clock.now().timestamp()

    # ------------------------------------------------------------ the lock

    def _announce(self, step: Step) -> None:
        # Without it other hosts would not notice a version that takes its host down.
        self._report.publish_step(str(step), is_required=step is Step.DRAIN)
        try:
            self._lock.update(step=str(step), digest=self._entry.record.digest)
        except (LockLost, Unreachable):
            if STEPS[step].disruptive:
                raise

    def _lock_deadline(self) -> Deadline:
        return Deadline.after(self._deps.clock, self._options.lock_timeout)

    def _require_lock(self) -> None:
        if self._lock.is_lost:
            raise LockLost(f"the lock {self._entry.record.lock} was lost while draining")

    def _notice_lost_lock(self) -> None:
        """Report that the lock was lost. The instance is out and restarted: to continue is the shortest way back."""
        if self._lock.is_lost and not self._is_loss_reported:
            self._is_loss_reported = True
            lock = self._entry.record.lock
            self._progress.note(f"the lock {lock} was lost; the instance is returned to service without it")

    def _require_lock_to_settle(self) -> None:
        if self._lock.is_lost:
            raise LockLost(
                f"the lock {self._entry.record.lock} was lost before reload.settle was complete; the new "
                "version stays in service, "
                "and the next host treats itself as the first host"
            )

    # ------------------------------------------------------------ the guard

    def check(self) -> bool:
        """Return whether there is a newer image. Changes nothing."""
        newest = self._restarter.newest()
        self.result.newest = newest or None
        is_newer = not self._restarter.is_current(newest)
        if is_newer and newest and not self._options.is_forced:
            newest, self.result.remark = self._observer.wanted(newest, self._restarter.running())
            is_newer = not self._restarter.is_current(newest)
        self.result.wanted = newest
        return is_newer or self._options.is_forced

    def _refuse_unless_clear(
        self, survey: Baseline | None = None, *, is_queueing: bool = False, own_reload: str = ""
    ) -> Instance:
        """Evaluate the guard. ``own_reload``: the instance is already in this reload's own maintenance.

        :raises GuardRefused: something forbids the drain.
        """
        seen = self._observer.look(
            self._entry.record.digest,
            is_queueing=is_queueing,
            own_reload=own_reload,
            differences=survey.differences if survey else (),
        )
        obstacles, ignored = overridden(find_obstacles(seen), is_forced=self._options.is_forced)
        if obstacles or seen.own is None:
            refusal = f"not reloading {self._service.id} now: " + "; ".join(map(str, obstacles))
            raise GuardRefused(refusal, kind=obstacles[0].kind)
        for one in ignored:
            if one.kind not in self._overridden:
                self._progress.note(f"--force overrides: {one.what}")
        self._overridden |= {one.kind for one in ignored}
        return seen.own

    def _add_seconds(self, parts: Mapping[str, float]) -> None:
        self.result.engine |= {part: round(seconds, 4) for part, seconds in parts.items()}


def _lock_of(context: ReloadContext) -> Lock:
    """Return the fleet's lock. Its session is in the journal before it holds anything."""
    deps, record = context.deps, context.entry.record
    return Lock(
        deps.consul,
        record.lock,
        command=command_of(record.service_id),
        details={
            "node": deps.agent.node,
            "pid": os.getpid(),
            "command": "svcagent reload",
            "service": record.service,
            "reload": record.reload_id,
        },
        clock=deps.clock,
        waiting=deps.interrupts.allowed,
        limit=context.section.max_parallel,
        queue=queue_of(record.service),
        on_session=lambda session: context.entry.save(session=session, required=True),
        report_place=lambda place, holder: context.progress.note(
            f"place {place} in the queue; the lock is held by {holder}", place
        ),
    )
