"""Waiting until an instance is ready, by asking the instance itself. Changes nothing."""

from agent.clock import Clock, Deadline
from agent.consul import Consul
from agent.definitions import ContainerRestart, Reload, Service
from agent.engine import Container, Engine
from agent.errors import NotReady
from agent.reload.probe import Prober


class Readiness:
    """One service's instance on this host, as far as it can be asked: its checks, and its container if it has one.

    Only a container that exits or is restarted is beyond waiting for. One that its own HEALTHCHECK calls unhealthy is
    not: Docker goes on asking it, and one that loads a large index is unhealthy until it has; how long that may take is
    what ``ready.timeout`` says.
    """

    def __init__(
        self, service: Service, reload: Reload, consul: Consul, engine: Engine, prober: Prober, clock: Clock
    ) -> None:
        self._service = service
        self._ready = reload.ready
        strategy = reload.strategy
        self._container = strategy.container if isinstance(strategy, ContainerRestart) else None
        self._consul = consul
        self._engine = engine
        self._prober = prober
        self._clock = clock

    def wait(self, *, is_fresh: bool = False) -> float:
        """Return when every check succeeds ``ready.successes`` times in a row and the warm-up is done.

        Returns the seconds until the first round that succeeded. ``is_fresh``: the container was started just before,
        so that any restart of it has happened since.

        :raises NotReady: ``ready.timeout`` is over, the container has stopped, or a warm-up request failed.
        """
        ready, began = self._ready, self._clock.monotonic()
        deadline = Deadline.after(self._clock, ready.timeout)
        at_first = self._look()
        restarts = 0 if is_fresh or at_first is None else at_first.restart_count
        in_a_row, first_success = 0, 0.0
        while in_a_row < ready.successes:
            missing = self._what_is_missing(at_first, restarts, deadline.remaining)
            if missing is None:
                first_success = first_success or self._clock.monotonic() - began
                in_a_row += 1
            elif deadline.is_over:
                raise NotReady(
                    f"{self._service.id} did not become ready within {ready.timeout:g} s: {missing}. "
                    "If it needs longer to load, raise reload.ready.timeout"
                )
            else:
                in_a_row = 0
            if in_a_row < ready.successes:
                self._clock.sleep(ready.interval)
        for url in ready.warmup:
            answer = self._prober.warm_up(url, ready.warmup_timeout)
            self._require_running(at_first, restarts)
            if not answer.is_passing:
                raise NotReady(
                    f"warm-up of {self._service.id} failed: {answer.said}. Mend it, or take it out of "
                    "reload.ready.warmup; if it needs longer, raise reload.ready.warmup_timeout"
                )
        return first_success

    def _look(self) -> Container | None:
        return None if self._container is None else self._engine.container(self._container)

    def _require_running(self, at_first: Container | None, restarts: int) -> Container | None:
        """The container now, which must be the same one and have run all the time."""
        now = self._look()
        if now is None or at_first is None:
            return None
        if now.id != at_first.id or not now.is_running or now.restart_count != restarts:
            raise NotReady(
                f"the container {self._container} stopped while it was awaited "
                f"(exit status {now.exit_code}, restarts {now.restart_count})"
            )
        return now

    def _what_is_missing(self, at_first: Container | None, restarts: int, limit: float) -> str | None:
        """None when everything that can be asked says ready, else the first thing that does not."""
        now = self._require_running(at_first, restarts)
        if now is not None and now.health not in (None, "healthy"):
            said = f" ({now.health_output})" if now.health_output else ""
            return f"the container's own health check says {now.health}{said}"
        for check in filter(self._prober.can_probe, self._service.checks):
            answer = self._prober.probe(check, limit)
            if not answer.is_passing:
                return answer.said
        return self._what_consul_misses()

    def _what_consul_misses(self) -> str | None:
        """The first check that only Consul can run (gRPC, TTL, a script, …) and that does not pass."""
        others = [check.id for check in self._service.checks if not self._prober.can_probe(check)]
        if not others:
            return None
        states = self._consul.checks()
        failing = (states[one] for one in others if one in states and states[one].status != "passing")
        return next((f"Consul says that check {one.id} is {one.status}" for one in failing), None)
