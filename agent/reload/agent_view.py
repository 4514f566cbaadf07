"""The local agent's view of an instance that clients use. It renews no check: that would end the service."""

from collections.abc import Mapping

from agent.consul import NODE_MAINTENANCE, SERVICE_MAINTENANCE, CheckState
from agent.data import dataclass
from agent.definitions import Check
from agent.reload.checks import ALIAS, CheckedInstance, InstanceFault, fault_in_consul, has_run, is_acceptable
from agent.reload.probe import ProbeStatus


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
    """Observes all checks of one service in the local agent. Keep one object: it times checks that have not run yet."""

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
