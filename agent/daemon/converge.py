"""One convergence: register what the valid files of services.d define, and disable expired maintenance.

Run it at the start, when files change, when the agent watch requests it, on SIGHUP, each minute, and after
``result.again_in`` seconds unless that is None. It logs each event once: a fault when it appears and when it is
repaired, an outage when it begins and ends, and every change. It sends three requests to Consul and only necessary
writes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from agent.clock import Clock
from agent.consul import NODE_MAINTENANCE, AgentSelf, Consul
from agent.daemon.convergence_log import IN_MAINTENANCE_AGAIN, ConvergenceLog
from agent.daemon.convergence_result import ConvergenceResult, Out
from agent.daemon.last_good import Choice, GoodFiles
from agent.definitions import Check, Definition, Settings, values_of
from agent.errors import Fault, SvcagentError, Unforeseen
from agent.logs import WARNING, log, log_bug
from agent.maintenance import EndedMaintenance, MaintenanceTarget, find_ended, is_finished_reload, lift_ended, parse
from agent.registration import (
    LAST_SEEN_FILE,
    AgentWorld,
    ChangeAction,
    CollectedFailures,
    LastSeenFile,
    Registration,
    Report,
    alone_in,
    is_own,
    observe,
    unmet,
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
        self._directory = settings.services_dir
        self._state_dir = settings.state_dir
        self._last_seen = LastSeenFile(settings.state_dir, clock)
        self._consul = consul
        self._clock = clock
        self._environ = environ
        self._hostname = hostname
        self._good = GoodFiles(settings.services_dir, settings.state_dir)
        self._convergence_log = ConvergenceLog(clock)
        self._last = ConvergenceResult()
        self._pause = FIRST_PAUSE
        self._met: dict[str, str] = {}
        self._met_before: dict[str, str] = {}

    def run(self) -> ConvergenceResult:
        """Converge once. Every failure, even a bug, is part of the result: the daemon continues and tries again."""
        begun = self._clock.monotonic()
        self._met_before, self._met = self._met, {}
        found = replace(self._last, changes=(), failed=(), ended=(), trouble=None)
        choice: Choice | None = None
        turn: _Turn | None = None
        try:
            found = replace(found, agent=(agent := self._consul.agent_self()))
            with alone_in(self._state_dir, self._clock, ALONE_SECONDS):
                choice = self._take(agent)
                registration = Registration(
                    self._consul,
                    self._directory,
                    self._last_seen,
                    lambda one, text: is_finished_reload(text, is_journalled=one in journalled(self._state_dir)),
                    self._report,
                )
                turn = _Turn(self._consul, self._clock, agent, self._last.canary, registration, self._report)
                turn.converge(choice)
        except SvcagentError as error:
            found = replace(found, trouble=error)
        except Exception as error:  # noqa: BLE001 - a failed convergence must not stop reloads and the other tasks
            self._report("convergence", error)
            found = replace(found, trouble=Unforeseen.of(error, "the convergence"))
        if choice is None:
            choice = self._take_what_is_good(found.agent)
        if turn is not None:
            found = turn.found(found)
        if choice is not None:
            found = replace(found, definitions=choice.definitions, faults=choice.faults)
        self._last = replace(found, again_in=self._again_in(found), seconds=self._clock.monotonic() - begun)
        self._convergence_log.log(self._last)
        return self._last

    def _report(self, name: str, error: Exception) -> None:
        """Log a bug with its trace, once until it is gone."""
        self._met[name] = repr(error)
        if self._met_before.get(name) != self._met[name]:
            log_bug(f"{name}: a bug in svcagent; please report it", error, service=name)

    def _take_what_is_good(self, agent: AgentSelf | None) -> Choice | None:
        """Read the definitions without registering. Return None after a bug: the last ones stay in force."""
        try:
            return self._take(agent)
        except Exception as error:  # noqa: BLE001 - the last valid definitions stay in force
            self._report("definitions", error)
            return None

    def _take(self, agent: AgentSelf | None) -> Choice:
        if agent is None:
            return self._good.take(values_of(self._environ, self._hostname))

        def unfit(definition: Definition) -> Iterable[Fault]:
            return unmet((definition,), agent)

        return self._good.take(values_of(self._environ, self._hostname, agent.address), unfit)

    def _again_in(self, found: ConvergenceResult) -> float | None:
        if found.trouble is not None:
            pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
            return pause
        self._pause = FIRST_PAUSE
        now = self._clock.now()
        ends = [one.maintenance.until for one in found.out if one.maintenance.until is not None]
        return min(((end - now).total_seconds() for end in ends if end > now), default=None)


class _Turn:
    """One convergence with a responding agent. Its effects are known even if it is aborted."""

    def __init__(
        self, consul: Consul, clock: Clock, agent: AgentSelf, canary: str, registration: Registration, report: Report
    ) -> None:
        self._consul = consul
        self._clock = clock
        self._agent = agent
        self._canary = canary
        self._registration = registration
        self._lifting = CollectedFailures(report)
        self._world: AgentWorld | None = None
        self._kept: list[str] = []
        self._ended: tuple[EndedMaintenance, ...] = ()

    def converge(self, choice: Choice) -> None:
        """Observe, plan and apply. Then disable expired maintenance."""
        services = [service for definition in choice.definitions for service in definition.services]

        def may_remove(service_id: str) -> bool:
            is_allowed = choice.may_remove(service_id)
            self._kept += [] if is_allowed else [service_id]
            return is_allowed

        plan = self._registration.plan(services, may_remove=may_remove)
        self._world = world = self._registration.world
        objection = self._registration.objection
        if objection is not None:
            plan = tuple(one for one in plan if not objection.withholds(one))
        node_text = self._registration.vanished_node
        self._registration.apply(plan, _status)
        if node_text is not None:
            command = "svcagent maint disable --node"
            held = parse(node_text).describe()
            log(f"this host was {IN_MAINTENANCE_AGAIN} {held}. To disable it, run: {command}", level=WARNING)
        self._end_maintenance(world, choice.service_ids)

    def _end_maintenance(self, world: AgentWorld, own: frozenset[str]) -> None:
        node, now = self._agent.node, self._clock.now()
        ended = find_ended(world.services, world.checks, node, now, own)
        if ended and self._registration.done:
            # A service that was just changed may fail its checks now.
            self._world = world = observe(self._consul)
            ended = find_ended(world.services, world.checks, node, now, own)
        for one in ended:
            with self._lifting.collected(str(one.target)):
                self._ended += lift_ended(self._consul, [one])

    def found(self, before: ConvergenceResult) -> ConvergenceResult:
        """Return the result; what was not observed stays as before."""
        if self._world is None:
            return before
        return replace(
            before,
            changes=tuple(self._registration.done),
            refused=tuple(sorted(self._registration.refused, key=lambda one: one.service_id)),
            failed=self._failed(),
            kept=tuple(self._kept),
            objection=self._registration.objection.text if self._registration.objection is not None else "",
            ended=self._ended,
            out=self._out(self._world),
            canary=self._chosen_canary(self._world),
        )

    def _failed(self) -> tuple[tuple[str, SvcagentError], ...]:
        found = [(one.service_id, one.error) for one in (*self._registration.failures.found, *self._lifting.found)]
        unremembered = self._registration.unremembered
        return (*found, *([(LAST_SEEN_FILE, unremembered)] if unremembered is not None else []))

    def _out(self, world: AgentWorld) -> tuple[Out, ...]:
        lifted = {one.target for one in self._ended if one.is_liftable}
        found = [
            Out(MaintenanceTarget(self._agent.node, one.id, one.name), parse(one.maintenance.notes))
            for one in sorted(world.services.values(), key=lambda one: one.id)
            if one.maintenance is not None and is_own(one)
        ]
        if NODE_MAINTENANCE in world.checks:
            found.append(Out(MaintenanceTarget(self._agent.node), parse(world.checks[NODE_MAINTENANCE].notes)))
        return tuple(one for one in found if one.target not in lifted)

    def _chosen_canary(self, world: AgentWorld) -> str:
        """Return the canary; it stays the same as long as it is registered."""
        there = {one.id for one in world.services.values() if is_own(one)}
        there |= {one.service_id for one in self._registration.done if one.action is not ChangeAction.REMOVE}
        there -= {one.service_id for one in self._registration.done if one.action is ChangeAction.REMOVE}
        return self._canary if self._canary in there else min(there, default="")


def _status(check: Check) -> str:
    from agent.reload.probe import probe_status  # rarely needed, and slow to import

    return probe_status(check)
