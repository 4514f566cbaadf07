"""Whether svcagent judges the instance that serves now as Consul does, determined before the drain."""

from collections.abc import Iterable, Mapping

from agent.clock import Deadline
from agent.data import dataclass
from agent.definitions import Check
from agent.engine.model import Container
from agent.reload.checks import CONTAINER_HEALTH, SHORTEST_LIMIT, CheckedInstance, badness
from agent.reload.probe import ProbeResult, ProbeStatus

SURVEY_TRIES = 3
SURVEY_SECONDS = 20.0
SURVEY_PAUSE = 0.2


@dataclass(frozen=True)
class Baseline:
    """The results of the instance's checks before the drain.

    ``statuses``: by check ID, the worse of Consul's status and svcagent's own; Consul's for a check that only Consul
    runs. ``differences``: a sentence with the remedy for each check that svcagent cannot judge as Consul does.
    """

    statuses: Mapping[str, str]
    differences: tuple[str, ...]


class InstanceSurvey:
    def __init__(self, instance: CheckedInstance) -> None:
        self._instance = instance

    def take(self) -> Baseline:
        """Compare Consul's view of the instance that serves now with svcagent's own. Takes some seconds at most."""
        deadline = Deadline.after(self._instance.clock, SURVEY_SECONDS)
        instance, container = self._instance, self._instance.container()
        states = instance.consul.checks()
        statuses = {
            state.id: state.status
            for state in states.values()
            if state.service_id == instance.service.id and not state.is_maintenance
        }
        differences: list[str] = []
        for check in instance.service.checks:
            in_consul = states[check.id].status if check.id in states else ProbeStatus.CRITICAL
            if instance.prober.can_probe(check):
                result = self._probe_patiently(check, container, deadline)
                statuses[check.id] = max(in_consul, result.status, key=badness)
                if (
                    result.status == ProbeStatus.CRITICAL
                    and in_consul != ProbeStatus.CRITICAL
                    and self._is_passed(check)
                ):
                    differences.append(_difference(check, in_consul, result))
            else:
                statuses[check.id] = in_consul
                differences += self._unjudgeable(check, container)
        if container is not None and container.health == "unhealthy":
            statuses[CONTAINER_HEALTH] = ProbeStatus.CRITICAL
        return Baseline({check_id: str(status) for check_id, status in statuses.items()}, tuple(differences))

    def _probe_patiently(self, check: Check, container: Container | None, deadline: Deadline) -> ProbeResult:
        """Probe several times, because one probe may fail by chance."""
        for _ in range(SURVEY_TRIES - 1):
            result = self._instance.probe(check, container, max(SHORTEST_LIMIT, deadline.remaining))
            if result.status != ProbeStatus.CRITICAL or deadline.is_over:
                return result
            self._instance.clock.sleep(SURVEY_PAUSE)
        return self._instance.probe(check, container, max(SHORTEST_LIMIT, deadline.remaining))

    def _is_passed(self, check: Check) -> bool:
        """True if Consul still does not show it as critical: it may have noticed meanwhile what the probe saw."""
        state = self._instance.consul.checks().get(check.id)
        return state is not None and state.status != ProbeStatus.CRITICAL

    def _unjudgeable(self, check: Check, container: Container | None) -> Iterable[str]:
        """Yield the reasons why Consul's result after the restart cannot come in time."""
        timeout = self._instance.section.ready.timeout
        if check.interval_seconds >= timeout:
            yield (
                f"check {check.id} can only be run by Consul, every {check.interval}: its result after "
                f"the restart may come later than reload.ready.timeout ({timeout:g} s) allows. Shorten the "
                "check's interval, or raise reload.ready.timeout above it"
            )
        named = check.docker_container_id
        if named and container is not None and named != container.name and container.id.startswith(named.lower()):
            yield (
                f"check {check.id} names the container {container.name} by its ID ({named}), which the new container "
                f'will not have. Write "docker_container_id": "{container.name}", and run: svcagent register'
            )


def _difference(check: Check, in_consul: str, result: ProbeResult) -> str:
    return (
        f"check {check.id} is {in_consul} in Consul, but fails when svcagent runs it: {result.message}. The new "
        "instance could never become ready. Make the check pass from this host as the user that runs svcagent "
        "(certificates: the system's CA store or SSL_CERT_FILE, as the Consul agent has it), or correct the definition"
    )
