"""The local agent's view of an instance that clients use. It renews no check: that would end the service."""

from collections.abc import Mapping

from agent.clock import Clock
from agent.consul import NODE_MAINTENANCE, SERVICE_MAINTENANCE, CheckState, Consul
from agent.data import dataclass
from agent.definitions import Check, Service
from agent.reload.checks import ALIAS, has_run, is_acceptable, shown_as
from agent.reload.probe import Prober, ProbeStatus


@dataclass(frozen=True)
class ConsulView:
    """What the local agent shows of an instance that clients use.

    ``failing``: a sentence about the first check that fails now and did not before the drain; ``signature``: as in
    `NotReady`. ``awaited``: checks that are critical because Consul has not run them since they were registered again
    or the agent was restarted. ``unproven``: checks that Consul has not run since their last registration. ``is_out``:
    the service or the host is in maintenance.
    """

    failing: str | None = None
    signature: str = ""
    awaited: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    is_out: bool = False


class AgentView:
    """Observes all checks of one service in the local agent. Keep one object: it times checks that have not run yet."""

    def __init__(self, service: Service, consul: Consul, prober: Prober, clock: Clock) -> None:
        self._service = service
        self._consul = consul
        self._prober = prober
        self._clock = clock
        self._unrun_since: dict[str, float] = {}

    def look(self, before: Mapping[str, str]) -> ConsulView:
        """Return the view now. ``before``: the checks' statuses before the drain.

        A check that the agent has not run since it was restarted is critical, and says nothing about the instance until
        its first run is overdue. Alias checks are not run, so they are never unproven.
        """
        states = self._consul.checks()
        own = [state for state in states.values() if state.service_id == self._service.id]
        defined = {check.id: check for check in self._service.checks}
        now = self._clock.monotonic()
        failing: CheckState | None = None
        awaited = []
        for state in own:
            check = defined.get(state.id)
            if state.is_maintenance or not self._is_worse(before, state, check):
                self._unrun_since.pop(state.id, None)
            elif self._is_first_run_due(state, check, now):
                failing = failing or state
            else:
                awaited.append(state.id)
        return ConsulView(
            failing=None if failing is None else shown_as(failing),
            signature="" if failing is None else f"{failing.id} consul {failing.status}",
            awaited=tuple(awaited),
            unproven=tuple(
                check.id
                for check in self._service.checks
                if check.kind not in ALIAS and not has_run(check, states.get(check.id))
            ),
            is_out=NODE_MAINTENANCE in states or f"{SERVICE_MAINTENANCE}{self._service.id}" in states,
        )

    def _is_worse(self, before: Mapping[str, str], state: CheckState, check: Check | None) -> bool:
        """True if Consul's status is worse than before; a warning counts if svcagent does not run the check itself."""
        if state.status == ProbeStatus.CRITICAL:
            return before.get(state.id) != ProbeStatus.CRITICAL
        is_left_to_consul = check is not None and not self._prober.can_probe(check)
        return is_left_to_consul and not is_acceptable(before, state.id, state.status, is_returning=False)

    def _is_first_run_due(self, state: CheckState, check: Check | None, now: float) -> bool:
        if state.output or state.status != ProbeStatus.CRITICAL or (check is not None and check.kind in ALIAS):
            return True
        since = self._unrun_since.setdefault(state.id, now)
        # The interval of another tool's check is unknown.
        return check is not None and now - since >= check.interval_seconds + check.timeout_seconds
