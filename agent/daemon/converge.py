"""One convergence: register what the valid files of services.d define, and disable expired maintenance.

Run it at the start, when files change, when the agent watch requests it, on SIGHUP, each minute, and after
``result.again_in`` seconds unless that is None. It logs each event once: a fault when it appears and when it is
repaired, an outage when it begins and ends, and every change. It sends three requests to Consul and only necessary
writes.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from agent.clock import Clock
from agent.consul import NODE_MAINTENANCE, AgentSelf, Consul
from agent.daemon.convergence_log import IN_MAINTENANCE_AGAIN, ConvergenceLog, ConvergenceResult, HeldMaintenance
from agent.daemon.last_good import Choice, LastGoodFiles
from agent.definitions import Check, Settings, reference_values
from agent.errors import SvcagentError, UnexpectedError
from agent.logs import WARNING, log, log_bug
from agent.maintenance import ExpiredMaintenance, MaintenanceTarget, find_expired, is_finished_reload, parse
from agent.registration import (
    LAST_SEEN_FILE,
    AgentState,
    ChangeAction,
    CollectedFailures,
    LastSeenFile,
    Registration,
    exclusive_registration,
    is_own,
    observe,
    unmet_requirements,
)
from agent.reload.journal import journalled

ALONE_SECONDS = 10.0
"""How long to wait for another svcagent that registers."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0


class Convergence:
    """Converges repeatedly, and remembers the last observation and what was logged. For one thread."""

    def __init__(
        self, settings: Settings, consul: Consul, clock: Clock, environ: Mapping[str, str], hostname: str
    ) -> None:
        self._settings = settings
        self._last_seen = LastSeenFile(settings.state_dir, clock)
        self._consul = consul
        self._clock = clock
        self._environ = environ
        self._hostname = hostname
        self._last_good = LastGoodFiles(settings.services_dir, settings.state_dir)
        self._convergence_log = ConvergenceLog(clock)
        self._agent: AgentSelf | None = None
        self._last = ConvergenceResult()
        self._pause = FIRST_PAUSE
        self._bugs: dict[str, str] = {}
        self._bugs_before: dict[str, str] = {}

    def run(self) -> ConvergenceResult:
        """Converge once. Every failure, even a bug, is part of the result: the daemon continues and tries again."""
        self._bugs_before, self._bugs = self._bugs, {}
        found = replace(self._last, changes=(), failed=(), ended=(), trouble=None)
        choice: Choice | None = None
        attempt: _Attempt | None = None
        try:
            self._agent = self._consul.agent_self()
            with exclusive_registration(self._settings.state_dir, self._clock, ALONE_SECONDS):
                choice = self._choose()
                registration = Registration(
                    self._consul,
                    self._settings.services_dir,
                    self._last_seen,
                    lambda one, text: is_finished_reload(
                        text, is_journalled=one in journalled(self._settings.state_dir)
                    ),
                    self._report,
                )
                attempt = _Attempt(
                    self._consul, self._clock, self._agent.node, registration, CollectedFailures(self._report)
                )
                attempt.converge(choice)
        except SvcagentError as error:
            found = replace(found, trouble=error)
        except Exception as error:  # noqa: BLE001 - a failed convergence must not stop reloads and the other tasks
            self._report("convergence", error)
            found = replace(found, trouble=UnexpectedError.of(error, "the convergence"))
        if attempt is not None:
            found = attempt.result(found)
        try:
            choice = choice or self._choose()
            found = replace(found, definitions=choice.definitions, faults=choice.faults)
        except Exception as error:  # noqa: BLE001 - the last valid definitions stay in force
            self._report("definitions", error)
        self._last = replace(found, again_in=self._again_in(found))
        self._convergence_log.log(self._last)
        return self._last

    def _report(self, name: str, error: Exception) -> None:
        """Log a bug with its trace, once until it is gone."""
        self._bugs[name] = repr(error)
        if self._bugs_before.get(name) != self._bugs[name]:
            log_bug(f"{name}: a bug in svcagent; please report it", error, service=name)

    def _choose(self) -> Choice:
        agent = self._agent
        if agent is None:
            return self._last_good.choose(reference_values(self._environ, self._hostname))
        values = reference_values(self._environ, self._hostname, agent.address)
        return self._last_good.choose(values, lambda definition: unmet_requirements((definition,), agent))

    def _again_in(self, found: ConvergenceResult) -> float | None:
        if found.trouble is not None:
            pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
            return pause
        self._pause = FIRST_PAUSE
        now = self._clock.now()
        ends = [one.maintenance.until for one in found.out if one.maintenance.until is not None]
        return min(((end - now).total_seconds() for end in ends if end > now), default=None)


@dataclass
class _Attempt:
    """One convergence with a responding agent. Its effects are known even if it is aborted."""

    consul: Consul
    clock: Clock
    node: str
    registration: Registration
    disabling: CollectedFailures
    world: AgentState | None = None
    kept: list[str] = field(default_factory=list)
    ended: tuple[ExpiredMaintenance, ...] = ()

    def converge(self, choice: Choice) -> None:
        """Observe, plan and apply. Then disable expired maintenance."""

        def may_remove(service_id: str) -> bool:
            is_allowed = choice.may_remove(service_id)
            self.kept += [] if is_allowed else [service_id]
            return is_allowed

        services = [service for definition in choice.definitions for service in definition.services]
        plan = self.registration.plan(services, may_remove=may_remove)
        self.world = self.registration.world
        objection = self.registration.objection
        if objection is not None:
            plan = tuple(one for one in plan if not objection.withholds(one))
        node_text = self.registration.lost_node_maintenance
        self.registration.apply(plan, _status)
        if node_text is not None:
            command = "svcagent maint disable --node"
            held = parse(node_text).describe()
            log(f"this host was {IN_MAINTENANCE_AGAIN} {held}. To disable it, run: {command}", level=WARNING)
        self._end_maintenance(self.world, choice.service_ids)

    def _end_maintenance(self, world: AgentState, own: frozenset[str]) -> None:
        now = self.clock.now()
        ended = find_expired(world.services, world.checks, self.node, now, own)
        if ended and self.registration.done:
            # A service that was just changed may fail its checks now.
            self.world = world = observe(self.consul)
            ended = find_expired(world.services, world.checks, self.node, now, own)
        for one in ended:
            with self.disabling.collected(str(one.target)):
                if one.disable(self.consul):
                    self.ended += (one,)

    def result(self, before: ConvergenceResult) -> ConvergenceResult:
        """Return the result; what was not observed stays as before."""
        if self.world is None:
            return before
        registration = self.registration
        failed = [(one.service_id, one.error) for one in (*registration.failures.found, *self.disabling.found)]
        if registration.record_error is not None:
            failed.append((LAST_SEEN_FILE, registration.record_error))
        return replace(
            before,
            changes=tuple(registration.done),
            refused=tuple(sorted(registration.refused, key=lambda one: one.service_id)),
            failed=tuple(failed),
            kept=tuple(self.kept),
            objection=registration.objection.text if registration.objection is not None else "",
            ended=self.ended,
            out=self._in_maintenance(self.world),
            canary=self._canary(self.world, before.canary),
        )

    def _in_maintenance(self, world: AgentState) -> tuple[HeldMaintenance, ...]:
        disabled = {one.target for one in self.ended if one.may_be_disabled}
        found = [
            HeldMaintenance(MaintenanceTarget(self.node, one.id, one.name), parse(one.maintenance.notes))
            for one in sorted(world.services.values(), key=lambda one: one.id)
            if one.maintenance is not None and is_own(one)
        ]
        if NODE_MAINTENANCE in world.checks:
            found.append(HeldMaintenance(MaintenanceTarget(self.node), parse(world.checks[NODE_MAINTENANCE].notes)))
        return tuple(one for one in found if one.target not in disabled)

    def _canary(self, world: AgentState, before: str) -> str:
        """Return the canary; it stays the same as long as it is registered."""
        registered = {one.id for one in world.services.values() if is_own(one)}
        for change in self.registration.done:
            if change.action is ChangeAction.REMOVE:
                registered.discard(change.service_id)
            else:
                registered.add(change.service_id)
        return before if before in registered else min(registered, default="")


def _status(check: Check) -> str:
    from agent.reload.probe import probe_status  # rarely needed, and slow to import

    return probe_status(check)


class ConvergenceThread:
    """Converges on request; requests during a convergence count as one. ``report_result`` runs in the thread, too."""

    def __init__(
        self, convergence: Convergence, report_result: Callable[[ConvergenceResult | Exception], None]
    ) -> None:
        self._convergence = convergence
        self._report_result = report_result
        self._is_requested = threading.Event()
        self._is_over = False
        # A daemon thread, so that process exit does not wait for a slow response of Consul.
        self._thread = threading.Thread(target=self._run, name="convergence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def request(self) -> None:
        """Request a convergence, from any thread. If one is running, another follows."""
        self._is_requested.set()

    def stop(self, seconds: float) -> None:
        """Wait up to ``seconds`` for the current one, and start no other."""
        self._is_over = True
        self._is_requested.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._is_requested.wait()
            self._is_requested.clear()
            if self._is_over:
                return
            try:
                found: ConvergenceResult | Exception = self._convergence.run()
            except Exception as error:  # noqa: BLE001 - handed to the one handler, in the main thread
                found = error
            self._report_result(found)
