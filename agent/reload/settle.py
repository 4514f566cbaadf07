"""The step settle: the instance is watched while clients use it, and fails only by its own fault."""

from collections.abc import Callable, Mapping

from agent.clock import Deadline
from agent.consul import NODE_MAINTENANCE, SERVICE_MAINTENANCE, CheckState
from agent.data import dataclass
from agent.definitions import Check
from agent.errors import Conflict, NotReady, SvcagentError, Unreachable
from agent.reload.checks import ALIAS, CheckedInstance, InstanceFault, fault_in_consul, has_run, is_acceptable
from agent.reload.dependencies import RESTORE_SECONDS, ReloadContext
from agent.reload.instance import register_again
from agent.reload.probe import ProbeStatus
from agent.reload.ready import Readiness

SETTLE_INTERVAL = 0.2
FAILED_ROUNDS = 3
"""After this many failed rounds in a row of an instance that clients use, the step settle fails."""


@dataclass(frozen=True)
class ConsulView:
    """What the local agent shows of an instance that clients use.

    ``fault``: the first check that fails now and did not before the drain. ``awaited``: checks that are critical
    because Consul has not run them since they were registered again or the agent was restarted. ``unproven``: checks
    that Consul has not run since their last registration. ``is_out``: the service or the host is in maintenance.
    """

    fault: InstanceFault | None = None
    awaited: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    is_out: bool = False


class AgentView:
    """Observes all checks of one service in the local agent, and renews none: that would end the service.

    Keep one object: it times checks that have not run yet.
    """

    def __init__(self, instance: CheckedInstance) -> None:
        self._instance = instance
        self._unrun_since: dict[str, float] = {}

    def observe(self, before: Mapping[str, str]) -> ConsulView:
        """Return the view now. ``before``: the checks' statuses before the drain.

        A check that the agent has not run since it was restarted is critical, and says nothing about the instance until
        its first run is overdue. Alias checks are not run, so they are never unproven.
        """
        states, service = self._instance.consul.checks(), self._instance.service
        own = [state for state in states.values() if state.service_id == service.id]
        defined = {check.id: check for check in service.checks}
        now = self._instance.clock.monotonic()
        fault: InstanceFault | None = None
        awaited = []
        for state in own:
            check = defined.get(state.id)
            if state.is_maintenance or not self._is_worse(before, state, check):
                self._unrun_since.pop(state.id, None)
            elif self._is_first_run_due(state, check, now):
                fault = fault or fault_in_consul(state)
            else:
                awaited.append(state.id)
        return ConsulView(
            fault,
            awaited=tuple(awaited),
            unproven=tuple(
                check.id
                for check in service.checks
                if check.kind not in ALIAS and not has_run(check, states.get(check.id))
            ),
            is_out=NODE_MAINTENANCE in states or f"{SERVICE_MAINTENANCE}{service.id}" in states,
        )

    def _is_worse(self, before: Mapping[str, str], state: CheckState, check: Check | None) -> bool:
        """True if Consul's status is worse than before; a warning counts if svcagent does not run the check itself."""
        if state.status == ProbeStatus.CRITICAL:
            return before.get(state.id) != ProbeStatus.CRITICAL
        is_left_to_consul = check is not None and not self._instance.prober.can_probe(check)
        return is_left_to_consul and not is_acceptable(before, state.id, state.status, is_returning=False)

    def _is_first_run_due(self, state: CheckState, check: Check | None, now: float) -> bool:
        if state.output or state.status != ProbeStatus.CRITICAL or (check is not None and check.kind in ALIAS):
            return True
        since = self._unrun_since.setdefault(state.id, now)
        # The interval of another tool's check is unknown.
        return check is not None and now - since >= check.interval_seconds + check.timeout_seconds


class SettleWatch:
    """Watches one instance in service."""

    def __init__(self, context: ReloadContext, readiness: Readiness) -> None:
        self._service = context.service
        self._section = context.section
        self._restarter = context.restarter
        self._deps = context.deps
        self._note = context.progress.note
        self._readiness = readiness
        self._agent_view = AgentView(context.instance)
        self._run: tuple[str, int] | None = None

    def remember_run(self) -> None:
        """Remember the run of the container that returns to service now: it must continue."""
        self._run = self._restarter.identity()

    def settle(self, *, is_first: bool, each_round: Callable[[], None]) -> bool:
        """Watch the instance that clients use until it has been healthy for as long as the definition says.

        Healthy means: the same container, not restarted by itself since before the return, with svcagent's and Consul's
        checks as good as before. Return False if it was put in maintenance meanwhile. After a restart by an operator,
        wait for it and watch it again, once. ``is_first``: no other host is known to have settled the version. Then
        also wait until Consul has run each check once since the restart, for at most ``ready.timeout``; a note names
        each check that it runs less often. ``each_round`` is called in each round.

        :raises NotReady: it is not healthy.
        :raises Conflict: an operator replaced its container, or restarted it twice.
        :raises Unreachable: Consul or Docker did not answer for longer than `RESTORE_SECONDS`.
        """
        try:
            return self._settle(is_first=is_first, each_round=each_round)
        except _StoppedByOperator:
            self._await_operators_restart(each_round)
            self._note(f"another process restarted the container of {self._service.id}; reload.settle starts again")
            return self._settle(is_first=is_first, each_round=each_round)

    def _await_operators_restart(self, each_round: Callable[[], None]) -> None:
        """Wait until the container, which a restart stops at first, runs and is ready again, also for Consul.

        :raises NotReady: it stays stopped, or is not ready within ``ready.timeout``.
        """
        deadline = Deadline.after(self._deps.clock, self._section.ready.timeout)
        self._run = None
        while True:
            each_round()
            try:
                view = self._look_after_restart()
            except Unreachable:
                if deadline.is_over:
                    raise
            else:
                if view.fault is None:
                    return
                if deadline.is_over:
                    raise NotReady(
                        f"another process stopped or restarted {self._service.id} after clients had returned, "
                        "and it is "
                        f"not ready again: {view.fault}",
                        signature=view.fault.signature or "exited",
                        kind="stopped-by-operator",
                    )
            self._deps.clock.sleep(SETTLE_INTERVAL)

    def _look_after_restart(self) -> ConsulView:
        if not self._restarter.runs():
            return ConsulView(InstanceFault("its container is stopped", "exited"))
        self._require_same_container()  # compared with the first look at which it ran again
        return self._judge()

    def _settle(self, *, is_first: bool, each_round: Callable[[], None]) -> bool:
        clock = self._deps.clock
        seconds = self._section.settle.canary if is_first else self._section.settle.each
        deadline = Deadline.after(clock, seconds)
        limit = Deadline.after(clock, max(seconds, self._section.ready.timeout))
        silence: Deadline | None = None
        bad_rounds = 0
        while True:
            each_round()
            try:
                view = self._judge_same_container(is_last_try=bad_rounds + 1 == FAILED_ROUNDS)
            except Unreachable:
                silence = silence or Deadline.after(clock, RESTORE_SECONDS)
                if silence.is_over:
                    raise
                clock.sleep(SETTLE_INTERVAL)
                continue
            silence = None
            if view.is_out:
                self._note("it was put in maintenance meanwhile, so reload.settle was not completed")
                return False
            bad_rounds = bad_rounds + 1 if view.fault else 0
            if view.fault and bad_rounds == FAILED_ROUNDS:
                raise NotReady(
                    f"{self._service.id} failed after clients had returned to it: {view.fault}",
                    signature=view.fault.signature,
                )
            awaited = dict.fromkeys((*(view.unproven if is_first else ()), *view.awaited))
            if not view.fault and deadline.is_over and (not awaited or limit.is_over):
                if awaited:
                    self._note(f"Consul has not run these checks within reload.ready.timeout: {', '.join(awaited)}")
                return True
            clock.sleep(SETTLE_INTERVAL)

    def _judge_same_container(self, *, is_last_try: bool) -> ConsulView:
        """Judge the instance. An unexpected exception counts as one failed round; at the last try it is raised."""
        try:
            self._require_same_container()
            return self._judge()
        except SvcagentError:
            raise
        except Exception:
            if is_last_try:
                raise
            return ConsulView(InstanceFault("it cannot be judged"))

    def _judge(self) -> ConsulView:
        """Judge the instance once, by svcagent's own checks and, if these pass, by Consul's."""
        if fault := self._readiness.missing_now(is_in_service=True):
            return ConsulView(fault)
        if self._service.id not in self._deps.consul.services():
            # The instance was just healthy. An agent that restarted has forgotten it, which is not the version's fault.
            register_again(self._deps.consul, self._service, self._note)
        return self._agent_view.observe(self._readiness.before)

    def _require_same_container(self) -> None:
        """Check that the container that returned to service continues.

        :raises NotReady: it has exited or was restarted; looking again does not change that.
        :raises Conflict: another container has its name, because it was replaced.
        """
        now = self._restarter.identity()
        before = self._run = self._run or now
        is_running = self._restarter.runs()
        if now[0].partition(" ")[0] != before[0].partition(" ")[0] and is_running:
            raise Conflict(
                f"another program replaced the container of {self._service.id} after clients had returned to it; it is "
                "not changed",
                kind="container-replaced",
            )
        if now != before and is_running and now[1] <= before[1]:
            # Docker counts its own restarts, and counts from zero after an operator's.
            raise _StoppedByOperator(
                f"another process restarted the container of {self._service.id} again; reload.settle was not completed"
            )
        if now != before or not is_running:
            if self._restarter.stop_was_requested(before):
                raise _StoppedByOperator(
                    f"an operator stopped the container of {self._service.id}; reload.settle was not completed"
                )
            raise NotReady(
                f"the container of {self._service.id} stopped or was restarted after clients had returned to it",
                signature="exited",
            )


class _StoppedByOperator(Conflict):
    """An operator stopped or restarted the container, which does not count against its version."""
