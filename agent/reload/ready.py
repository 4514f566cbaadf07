"""Waiting until an instance is ready, by asking the instance itself. Changes nothing."""

from agent.clock import Clock, Deadline
from agent.consul import Consul
from agent.definitions import Reload, Service
from agent.engine import Container, Engine
from agent.errors import NotReady
from agent.reload.probe import Prober


class Readiness:
    """One service's instance on this host, as far as it can be asked."""

    def __init__(
        self, service: Service, reload: Reload, consul: Consul, engine: Engine, prober: Prober, clock: Clock
    ) -> None:
        self._service = service
        self._reload = reload
        self._consul = consul
        self._engine = engine
        self._prober = prober
        self._clock = clock

    def wait(self) -> float:
        """Return when every check succeeds ``ready.successes`` times in a row and the warm-up is done.

        Returns the seconds until the first round that succeeded.

        :raises NotReady: ``ready.timeout`` is over, the container has stopped, or a warm-up request failed.
        """
        ready, began = self._reload.ready, self._clock.monotonic()
        deadline = Deadline.after(self._clock, ready.timeout)
        at_first = self._engine.container(self._reload.container)
        in_a_row, first_success = 0, 0.0
        while in_a_row < ready.successes:
            missing = self._what_is_missing(at_first, deadline.remaining)
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
            answer = self._prober.warm_up(url)
            if not answer.is_passing:
                raise NotReady(f"warm-up of {self._service.id} failed: {answer.said}")
        return first_success

    def _what_is_missing(self, at_first: Container, limit: float) -> str | None:
        """None when everything that can be asked says ready, else the first thing that does not."""
        now = self._engine.container(self._reload.container)
        if now.id != at_first.id or not now.is_running or now.restart_count != at_first.restart_count:
            raise NotReady(
                f"the container {self._reload.container} stopped while it was awaited "
                f"(exit status {now.exit_code}, restarts {now.restart_count})"
            )
        if now.health not in (None, "healthy"):
            return f"the container's own health check says {now.health}"
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
