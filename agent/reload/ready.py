"""Whether an instance is ready, judged as Consul would judge it.

svcagent runs the checks itself where it can. For those that only Consul can run (commands, gRPC, TTL …), Consul's
status counts, and only a result that is newer than the restart.
"""

import math
from collections.abc import Callable, Iterable, Mapping

from agent.clock import Deadline, never_interrupted
from agent.consul import CheckState
from agent.data import dataclass
from agent.definitions import Check
from agent.engine.model import Container
from agent.errors import NotReady, Unreachable
from agent.registration import is_own, registration, renew_checks
from agent.reload.checks import (
    ALIAS,
    CONTAINER_HEALTH,
    LONGEST_OUTPUT,
    NOT_LISTENING,
    SHORTEST_LIMIT,
    CheckedInstance,
    InstanceFault,
    fault_in_consul,
    has_run,
    is_acceptable,
)
from agent.reload.probe import ProbeResult, ProbeStatus, advice
from agent.text import redacted

SHORTEST_RETURN_WAIT = 60.0
"""The least time, in seconds, for an instance that returns to service to become ready."""

REFUSED = "refused"


@dataclass(frozen=True)
class _Run:
    """One uninterrupted run of one container."""

    id: str
    restarts: int


class Readiness:
    """One service's instance on this host: its checks, and its container if it has one.

    Only a container that exits or is restarted ends a wait early. One that its own HEALTHCHECK calls unhealthy does
    not: Docker continues to check it, and one that loads a large index is unhealthy until then, for at most
    ``ready.timeout``.

    Keep one object from the restart to the return: it remembers which results of Consul are newer than the restart.
    ``before`` returns the statuses from before the drain, if they are known.
    """

    def __init__(self, instance: CheckedInstance, before: Callable[[], Mapping[str, str]] = dict) -> None:
        self._instance = instance
        self._service = instance.service
        self._ready = instance.section.ready
        self._consul = instance.consul
        self._clock = instance.clock
        self._before = before
        self._signatures: set[str] = set()
        self._statuses: dict[str, str] = {}
        self._left_to_consul: set[str] = set()
        self._left_for = ""
        self._first_run_by: dict[str, float] = {}
        self._is_renewed = True
        self._has_renewal_failed = False

    @property
    def before(self) -> Mapping[str, str]:
        """The checks' statuses before the drain (see `survey`), by ID; empty if they are unknown."""
        return self._before()

    @property
    def signatures(self) -> frozenset[str]:
        """The signatures of all failed rounds of the last wait."""
        return frozenset(self._signatures)

    @property
    def last_statuses(self) -> Mapping[str, str]:
        """The statuses, by ID, of the checks that svcagent itself ran in the last round."""
        return dict(self._statuses)

    # ------------------------------------------------------------ after the restart

    def expect_fresh_results(self) -> None:
        """Discard the results of the checks that only Consul runs: they are about the previous container.

        Call it right after the restart, in maintenance; it may be repeated. Each of these checks is registered again as
        critical, so that a better status is a newer result. Alias checks follow another service and are not changed.
        """
        checks = [check for check in self._run_by_consul() if check.kind not in ALIAS]
        now = self._clock.monotonic()
        self._first_run_by = {
            check.id: now + check.interval_seconds + check.timeout_seconds if check.interval else math.inf
            for check in checks
        }
        self._left_to_consul.clear()
        self._is_renewed, self._has_renewal_failed = False, True  # if the next line fails
        self._is_renewed = bool(checks) and self._renew(checks)
        self._has_renewal_failed = False

    def wait(
        self, *, is_fresh: bool = False, is_returning: bool = False, each_round: Callable[[], None] = never_interrupted
    ) -> float:
        """Wait until every check passes ``ready.successes`` times in a row and the warm-up is done.

        Return the seconds until the first round that passed. ``is_fresh``: the container was started just before, so
        any restart of it has happened since. ``is_returning``: the instance served before, and must only be no worse
        than it was. ``each_round`` is called in each round, and once a second during warm-up; an exception from it ends
        the wait.

        :raises NotReady: the time has expired, the container has stopped, or a warm-up request failed.
        """
        began = self._clock.monotonic()
        limit = self._longest_wait(is_returning=is_returning)
        deadline = Deadline.after(self._clock, limit)
        self._signatures.clear()
        run: _Run | None = None
        in_a_row, first_success = 0, 0.0
        while in_a_row < self._ready.successes:
            each_round()
            run, missing = self._round(run, deadline, is_fresh=is_fresh, is_returning=is_returning)
            if missing is None:
                first_success = first_success or self._clock.monotonic() - began
                in_a_row += 1
            elif missing.is_final:
                raise NotReady(missing.message, signature=missing.signature)
            elif deadline.is_over:
                raise NotReady(
                    f"{self._service.id} did not become ready within {limit:g} s: {missing.message}. "
                    f"{advice(missing.signature)}",
                    signature=missing.signature,
                )
            else:
                in_a_row = 0
            if in_a_row < self._ready.successes:
                self._clock.sleep(self._ready.interval)
        self._warm_up(run, each_round, is_returning=is_returning)
        return first_success

    def missing_now(self, *, is_returning: bool = False, is_in_service: bool = False) -> InstanceFault | None:
        """Judge the instance once, as `wait` does; return what is missing, or None if it is ready.

        ``is_in_service``: clients use the instance, so no check may be registered again as critical, and what Consul
        runs is left to `AgentView`.
        """
        return self._round(None, None, is_fresh=False, is_returning=is_returning, is_in_service=is_in_service)[1]

    # ------------------------------------------------------------ one round

    def _round(
        self,
        run: _Run | None,
        deadline: Deadline | None,
        *,
        is_fresh: bool,
        is_returning: bool,
        is_in_service: bool = False,
    ) -> tuple[_Run | None, InstanceFault | None]:
        """Judge the instance once. Return the run of the container that was judged, and what is missing."""
        missing: InstanceFault | None
        try:
            if run is None and (first := self._instance.container()) is not None:
                run = _Run(first.id, 0 if is_fresh else first.restart_count)
            container = self._instance.container()
            self._forget_another_run(container)
            missing = self._stopped(container, run) or self._missing(
                container, deadline, is_returning=is_returning, is_in_service=is_in_service
            )
        except Unreachable:
            raise
        except NotReady as error:
            missing = InstanceFault(str(error), error.signature, is_final=True)
        except Exception as error:  # noqa: BLE001  # unknown counts as not ready
            missing = _cannot_be_judged(error)
        if missing is not None:
            self._signatures.add(missing.signature)
        return run, missing

    def _forget_another_run(self, container: Container | None) -> None:
        run = "" if container is None else f"{container.id} {container.started_at}"
        if run != self._left_for:
            self._left_to_consul.clear()
            self._left_for = run

    def _stopped(self, container: Container | None, run: _Run | None) -> InstanceFault | None:
        if container is None or run is None:
            return None
        if container.is_running and (container.id, container.restart_count) == (run.id, run.restarts):
            return None
        return InstanceFault(
            f"the container {container.name} stopped (exit status {container.exit_code}, "
            f"restarts {container.restart_count})"
            if container.id == run.id
            else f"the container {container.name} was replaced by another one while svcagent waited for it",
            f"container exit {container.exit_code}",
            is_final=True,
        )

    def _missing(
        self, container: Container | None, deadline: Deadline | None, *, is_returning: bool, is_in_service: bool = False
    ) -> InstanceFault | None:
        """Return the first thing that is missing. Without a deadline each check has only its timeout."""
        if container is not None and (unhealthy := self._unhealthy(container, is_returning=is_returning)):
            return unhealthy
        states: Mapping[str, CheckState] | None = None
        self._statuses = {}
        for check in filter(self._instance.prober.can_probe, self._service.checks):
            limit = check.timeout_seconds if deadline is None else max(SHORTEST_LIMIT, deadline.remaining)
            result = self._instance.probe(check, container, limit)
            self._statuses[check.id] = result.status
            if is_acceptable(self.before, check.id, result.status, is_returning=is_returning):
                continue
            if not (is_returning and self._is_passed_by_consul(check, result, deadline)):
                return InstanceFault(f"check {check.id}: {result.message}", _signature(check, result.failure))
        if others := [] if is_in_service else self._run_by_consul():
            states = self._consul.checks()
        return next(filter(None, (self._missing_in_consul(one, states or {}, is_returning) for one in others)), None)

    def _unhealthy(self, container: Container, *, is_returning: bool) -> InstanceFault | None:
        if container.health in (None, "healthy"):
            return None
        was_unhealthy = self.before.get(CONTAINER_HEALTH) == ProbeStatus.CRITICAL
        if container.health == "unhealthy" and (is_returning or was_unhealthy):
            return None  # Consul's checks decide whether clients are sent to the instance; this is no worse than before
        said = f" ({container.health_output})" if container.health_output else ""
        return InstanceFault(f"the container's health check is {container.health}{said}", "container unhealthy")

    def _is_passed_by_consul(self, check: Check, result: ProbeResult, deadline: Deadline | None) -> bool:
        """True if Consul passes a check of a returning instance although svcagent's own probe fails.

        Consul must have run it again. If docker-proxy may have answered Consul, the wait continues to its end.
        """
        if check.id not in self._left_to_consul:
            if deadline is not None and self._renew([check]):
                self._left_to_consul.add(check.id)
            return False
        if result.failure == NOT_LISTENING and deadline is not None and not deadline.is_over:
            return False
        state = self._consul.checks().get(check.id)
        if state is None or state.status == ProbeStatus.CRITICAL:
            return False
        self._statuses[check.id] = state.status
        return True

    def _missing_in_consul(
        self, check: Check, states: Mapping[str, CheckState], is_returning: bool
    ) -> InstanceFault | None:
        state = states.get(check.id)
        if state is None:
            # A process was killed while it renewed the check.
            self._renew([check])
            return InstanceFault(
                f"check {check.id} is not registered on the Consul agent", f"{check.id} consul missing"
            )
        is_first_run_due = self._clock.monotonic() >= self._first_run_by.get(check.id, 0.0)
        if not is_acceptable(self.before, check.id, state.status, is_returning=is_returning):
            if not has_run(check, state) and not is_first_run_due:
                return InstanceFault(f"Consul has not run check {check.id} since the restart")
            return fault_in_consul(state)
        is_heartbeat_new = check.kind == "ttl" and (is_returning or not self._has_renewal_failed)
        if not (self._is_renewed or is_first_run_due or is_heartbeat_new):
            # Registered by another tool, or not as defined now: after an interval, Consul's status is newer.
            return InstanceFault(f"Consul's result of check {check.id} may be older than the restart")
        return None

    def _warm_up(self, run: _Run | None, each_round: Callable[[], None], *, is_returning: bool) -> None:
        for url in self._ready.warmup:
            each_round()
            result = self._instance.prober.warm_up(url, self._ready.warmup_timeout, each_round)
            if stopped := self._stopped(self._instance.container(), run):
                raise NotReady(stopped.message, signature=stopped.signature)
            if result.status == ProbeStatus.PASSING:
                continue
            signature = f"warm-up {result.failure}".strip()
            self._signatures.add(signature)
            if is_returning:
                return  # it served before without it
            raise NotReady(
                f"warm-up of {self._service.id} failed: {result.message}. Correct the URL, or remove it from "
                "reload.ready.warmup. If it needs longer, raise reload.ready.warmup_timeout",
                signature=signature,
            )

    def _run_by_consul(self) -> list[Check]:
        return [check for check in self._service.checks if not self._instance.prober.can_probe(check)]

    def _renew(self, checks: Iterable[Check]) -> bool:
        """Register these checks again as critical. Return False if the registration differs from svcagent's."""
        local = self._consul.services().get(self._service.id)
        if local is None or not is_own(local) or local.meta != registration(self._service)["Meta"]:
            return False
        renew_checks(self._consul, self._service, {check.id: ProbeStatus.CRITICAL for check in checks})
        return True

    def _longest_wait(self, *, is_returning: bool) -> float:
        """Return the longest wait in seconds. A returning instance gets the time for Consul's first results."""
        if not is_returning:
            return self._ready.timeout
        firsts = [check.interval_seconds + check.timeout_seconds for check in self._run_by_consul()]
        return max([self._ready.timeout, SHORTEST_RETURN_WAIT, *firsts])


def is_of_startup(signature: str) -> bool:
    """True if every instance may fail like this right after its start, so that it hints at no cause."""
    return signature in ("", REFUSED) or signature.endswith(NOT_LISTENING)


def _signature(check: Check, failure: str) -> str:
    return failure if failure in ("", REFUSED) else f"{check.id} {failure}"


def _cannot_be_judged(error: Exception) -> InstanceFault:
    text = redacted(str(error), LONGEST_OUTPUT)
    return InstanceFault(f"it cannot be judged: {type(error).__name__}: {text}")
