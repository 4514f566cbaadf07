"""One check of an instance: svcagent's own run of it, and the meaning of its status."""

from collections.abc import Mapping

from agent.consul import CheckState
from agent.definitions import Check, ContainerRestart, Reload
from agent.engine import Container, Engine
from agent.errors import NotFound, NotReady
from agent.reload.probe import Prober, ProbeResult, Status
from agent.text import clean, without_credentials

SHORTEST_LIMIT = 0.25
LONGEST_OUTPUT = 200
NOT_LISTENING = "not listening"

CONTAINER_HEALTH = "docker:health"
"""The key of the container's own HEALTHCHECK among the statuses."""

ALIAS = ("alias_service", "alias_node")
"""The kinds of checks that Consul does not run, because they follow another service or a node."""


def badness(status: str) -> int:
    """Return a rank that is greater for a worse status; an unknown status counts as critical."""
    return Status(status).badness if status in list(Status) else Status.CRITICAL.badness


def is_acceptable(before: Mapping[str, str], check_id: str, status: str, *, is_returning: bool) -> bool:
    """True if the status lets the instance serve, or is no worse than it was ``before`` the drain."""
    was = before.get(check_id, Status.PASSING)
    if status == Status.WARNING:
        return is_returning or badness(was) >= badness(status)
    return status == Status.PASSING or (is_returning and was == Status.CRITICAL)


def has_run(check: Check, state: CheckState | None) -> bool:
    """True if Consul has run the check since it was registered.

    A check's output is empty until its first run. http, tcp, udp, gRPC and h2ping checks always have one afterwards. A
    command may print nothing, and a TTL report may be empty: such a check counts as run if its status is better than
    critical. If it is critical without output, it looks like one that has not run.
    """
    if state is None:
        return False
    if check.kind in ("args", "docker", "ttl") and state.status != Status.CRITICAL:
        return True
    return bool(state.output) or check.kind in ALIAS


def shown_as(state: CheckState) -> str:
    words = clean(without_credentials(state.output), LONGEST_OUTPUT)
    return f"Consul shows check {state.id} as {state.status}" + (f" ({words})" if words else "")


class InstanceProber:
    def __init__(self, reload: Reload, engine: Engine, prober: Prober) -> None:
        strategy = reload.strategy
        self._container = strategy.container if isinstance(strategy, ContainerRestart) else None
        self._engine = engine
        self._prober = prober

    def look(self) -> Container | None:
        """Return the container; None if the service has none. Raise `NotReady` if it is gone."""
        if self._container is None:
            return None
        try:
            return self._engine.container(self._container)
        except NotFound as error:
            raise NotReady(str(error), signature="container gone") from error

    def probe(self, check: Check, container: Container | None, limit: float) -> ProbeResult:
        """Run a check. A connection that docker-proxy accepts proves nothing about the container."""
        result = self._prober.probe(check, limit)
        if container is None or not result.local_peer or check.tcp_use_tls:
            return result
        port = int(str(check.tcp).rpartition(":")[2])
        if self._engine.is_listening(container, port, result.local_peer) is not False:
            return result
        said = f"{check.tcp} is accepted by Docker, but nothing listens on that port inside {container.name} yet"
        return ProbeResult(Status.CRITICAL, said, NOT_LISTENING)
