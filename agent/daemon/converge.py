"""Makes the local Consul agent hold what services.d says, again and again, and ends maintenance whose time is over.

The integrator calls `Convergence.run` from one thread: at the start, when a file has changed, when the agent may have
lost something, on SIGHUP, and once a minute. It raises nothing that is foreseen: what went wrong is in the `Outcome`,
and is logged when it begins and when it is over, not every time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from agent.clock import Clock
from agent.consul import AgentSelf, Consul
from agent.daemon.good import GoodFiles
from agent.definitions import Check, Definition, Service, Settings, host_values
from agent.errors import ConsulUnreachable, Fault, SvcagentError
from agent.logs import WARNING, log
from agent.maintenance import find_ended, lift_expired
from agent.registration import Action, Change, World, alone_in, apply_plan, is_own, observe_and_plan, unmet
from agent.reload import Prober

ALONE_SECONDS = 30.0
"""For a ``svcagent register`` that runs at the same time."""


NOTHING = World({}, {})
"""What an agent holds that could not be asked."""


@dataclass(frozen=True)
class Outcome:
    """How a convergence ended.

    ``definitions``: those in force, also where Consul could not be reached. ``trouble``: why the agent may not hold
    what they say; empty if it does. ``world``: what the agent held. ``refused``: how many services somebody else has
    registered. ``canary``: the id of a service of ours that it holds now, if any.
    """

    definitions: tuple[Definition, ...]
    faults: tuple[Fault, ...] = ()
    trouble: str = ""
    is_consul_reachable: bool = True
    node: str = ""
    world: World = NOTHING
    refused: int = 0
    canary: str | None = None
    at: datetime | None = None


class Convergence:
    """For one thread. ``consul``: a connection of its own."""

    def __init__(self, settings: Settings, consul: Consul, clock: Clock, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._consul = consul
        self._clock = clock
        self._environ = environ
        self._files = GoodFiles(settings.services_dir, settings.state_dir)
        self._agent: AgentSelf | None = None
        self._is_complete = False
        self._teller = _Teller(clock)

    def run(self) -> Outcome:
        """Once. Unchanged, it costs two requests."""
        outcome = Outcome(())
        try:
            outcome = self._follow()
            outcome = self._converge(outcome)
            self._teller.trouble(None)
        except SvcagentError as error:
            # Another agent may be there when this one is back.
            self._agent = None
            self._teller.trouble(error)
            is_reachable = not isinstance(error, ConsulUnreachable)
            outcome = replace(outcome, trouble=str(error), is_consul_reachable=is_reachable)
        self._teller.faults(outcome.faults)
        return replace(outcome, at=self._clock.now())

    def _follow(self) -> Outcome:
        """What services.d says; without an agent yet, with a placeholder for its address."""
        values = host_values(self._environ, *([self._agent.address] if self._agent else []))
        definitions, faults, self._is_complete = self._files.follow(values)
        return Outcome(definitions, faults)

    def _converge(self, outcome: Outcome) -> Outcome:
        if self._agent is None:
            self._agent = self._consul.agent_self()
            outcome = self._follow()
        beyond = unmet(outcome.definitions, self._agent)
        files = {fault.file for fault in beyond}
        services = [one for found in outcome.definitions if str(found.file) not in files for one in found.services]
        # Of a file that asks for more than the agent can do, what is registered stays as it is.
        kept = {one.id for found in outcome.definitions if str(found.file) in files for one in found.services}
        plan, world = self._plan(services, kept)
        if any(change.action not in (Action.KEEP, Action.REFUSE) for change in plan):
            with alone_in(self._settings.services_dir, self._clock, ALONE_SECONDS):
                plan, world = self._plan(services, kept)
                apply_plan(self._consul, plan, self._teller.change, _is_passing)
        self._teller.refusals(plan)
        self._end_maintenance(self._agent.node, world)
        own = [change.service_id for change in plan if change.action in (Action.KEEP, Action.CREATE, Action.UPDATE)]
        return replace(
            outcome,
            faults=(*outcome.faults, *beyond),
            node=self._agent.node,
            world=world,
            refused=sum(change.action is Action.REFUSE for change in plan),
            canary=min(own, default=None),
        )

    def _plan(self, services: Iterable[Service], kept: set[str]) -> tuple[tuple[Change, ...], World]:
        plan, world = observe_and_plan(self._consul, services)
        removals = {
            change.service_id
            for change in plan
            if change.action is Action.REMOVE and (change.service_id in kept or not self._is_complete)
        }
        return tuple(change for change in plan if change.service_id not in removals), world

    def _end_maintenance(self, node: str, world: World) -> None:
        own = {one.id for one in world.services.values() if is_own(one)}
        if not find_ended(world.services, world.checks, node, self._clock.now(), own):
            self._teller.held(())
            return
        ended = lift_expired(self._consul, self._clock, node, own)
        for one in ended:
            if one.is_liftable:
                log("its maintenance had come to its end: in service again", service=one.target.service_id or node)
        self._teller.held(
            (str(one.target), ", ".join(f"{check.id} {check.status}" for check in one.failing))
            for one in ended
            if not one.is_liftable
        )


class _Teller:
    """Says what has changed since it was last asked to say something."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._trouble: type[SvcagentError] | None = None
        self._since = clock.now()
        self._faults: frozenset[Fault] = frozenset()
        self._refused: frozenset[tuple[str, str]] = frozenset()
        self._held: frozenset[tuple[str, str]] = frozenset()

    def trouble(self, error: SvcagentError | None) -> None:
        """An outage is one warning, however long it is and however its message varies, and one line at its end."""
        kind = type(error) if error is not None else None
        if kind is self._trouble:
            return
        if error is not None:
            log(f"{error}. Tried again until it is over", level=WARNING)
            self._since = self._clock.now() if self._trouble is None else self._since
        else:
            log(f"back after {(self._clock.now() - self._since).total_seconds():.0f} s")
        self._trouble = kind

    def faults(self, faults: Iterable[Fault]) -> None:
        """Of definitions."""
        found = frozenset(faults)
        for fault in sorted(found - self._faults):
            log(f"{fault}. Until it is mended, what it said before stays in force", level=WARNING, file=fault.file)
        for file in sorted({one.file for one in self._faults} - {one.file for one in found}):
            log("good again", file=file)
        self._faults = found

    def refusals(self, plan: Iterable[Change]) -> None:
        """Of registrations."""
        found = frozenset((one.service_id, one.why) for one in plan if one.action is Action.REFUSE)
        for service_id, why in sorted(found - self._refused):
            log(f"left alone: {why}", level=WARNING, service=service_id)
        self._refused = found

    def held(self, held: Iterable[tuple[str, str]]) -> None:
        """Maintenances over their end that cannot be lifted."""
        found = frozenset(held)
        for target, why in sorted(found - self._held):
            log(f"{target} stays out though its maintenance has come to its end: {why}", level=WARNING)
        self._held = found

    def change(self, change: Change) -> None:
        """One that was made."""
        log(change.why, service=change.service_id, action=str(change.action))


def _is_passing(check: Check) -> bool:
    """Does it pass now? What only Consul can run has had no say yet: clients are sent to the service, and stay."""
    prober = Prober()
    return not prober.can_probe(check) or prober.probe(check, check.timeout_seconds).is_passing
