"""One check of an instance: svcagent's own run of it, and the meaning of its status."""

from collections.abc import Mapping

from agent.clock import Clock
from agent.consul import CheckState, Consul
from agent.data import dataclass
from agent.definitions import Check, ContainerRestart, ReloadSection, Service
from agent.engine.client import Engine
from agent.engine.model import Container
from agent.errors import NotFound, NotReady
from agent.reload.probe import Prober, ProbeResult, ProbeStatus
from agent.text import redacted

SHORTEST_LIMIT = 0.25
LONGEST_OUTPUT = 200
NOT_LISTENING = "not listening"

CONTAINER_HEALTH = "docker:health"
"""The key of the container's own HEALTHCHECK among the statuses."""

ALIAS = ("alias_service", "alias_node")
"""The kinds of checks that Consul does not run, because they follow another service or a node."""


@dataclass(frozen=True)
class InstanceFault:
    """The first reason why an instance is not ready. ``signature``: see `NotReady`; ``is_final``: no use in waiting."""

    message: str
    signature: str = ""
    is_final: bool = False

    def __str__(self) -> str:
        return self.message


def badness(status: str) -> int:
    """Return a rank that is greater for a worse status; an unknown status counts as critical."""
    return ProbeStatus(status).badness if status in list(ProbeStatus) else ProbeStatus.CRITICAL.badness


def is_acceptable(before: Mapping[str, str], check_id: str, status: str, *, is_returning: bool) -> bool:
    """True if the status lets the instance serve, or is no worse than it was ``before`` the drain."""
    was = before.get(check_id, ProbeStatus.PASSING)
    if status == ProbeStatus.WARNING:
        return is_returning or badness(was) >= badness(status)
    return status == ProbeStatus.PASSING or (is_returning and was == ProbeStatus.CRITICAL)


def has_run(check: Check, state: CheckState | None) -> bool:
    """True if Consul has run the check since it was registered.

    A check's output is empty until its first run. http, tcp, udp, gRPC and h2ping checks always have one afterwards. A
    command may print nothing, and a TTL report may be empty: such a check counts as run if its status is better than
    critical. If it is critical without output, it looks like one that has not run.
    """
    if state is None:
        return False
    if check.kind in ("args", "docker", "ttl") and state.status != ProbeStatus.CRITICAL:
        return True
    return bool(state.output) or check.kind in ALIAS


def fault_in_consul(state: CheckState) -> InstanceFault:
    output = redacted(state.output, LONGEST_OUTPUT)
    message = f"check {state.id} is {state.status} in Consul" + (f" ({output})" if output else "")
    return InstanceFault(message, f"{state.id} consul {state.status}")


@dataclass(frozen=True)
class CheckedInstance:
    """This host's instance of a service, and what its checks are run with."""

    service: Service
    section: ReloadSection
    consul: Consul
    engine: Engine
    prober: Prober
    clock: Clock

    def container(self) -> Container | None:
        """Return the container; None if the service has none. Raise `NotReady` if it is gone."""
        if not isinstance(self.section.strategy, ContainerRestart):
            return None
        try:
            return self.engine.container(self.section.strategy.container)
        except NotFound as error:
            raise NotReady(str(error), signature="container gone") from error

    def probe(self, check: Check, container: Container | None, limit: float) -> ProbeResult:
        """Run a check. A connection that docker-proxy accepts proves nothing about the container."""
        result = self.prober.probe(check, limit)
        if container is None or not result.local_peer or check.tcp_use_tls:
            return result
        port = int(str(check.tcp).rpartition(":")[2])
        if self.engine.is_listening(container, port, result.local_peer) is not False:
            return result
        message = f"{check.tcp} is accepted by Docker, but nothing listens on that port inside {container.name} yet"
        return ProbeResult(ProbeStatus.CRITICAL, message, NOT_LISTENING)
