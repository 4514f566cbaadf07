"""What ``register``, ``plan`` and ``deregister`` share: the way to a plan, and how one is printed."""

from collections.abc import Iterable
from dataclasses import dataclass

from agent.cli import wiring
from agent.cli.options import current
from agent.cli.output import show_document, show_line, show_table, show_warning
from agent.clock import Clock
from agent.consul import AgentSelf, Consul
from agent.definitions import Definition, Service, Settings
from agent.errors import BadDefinition, SvcagentError
from agent.registration import Action, Change, World, make_plan, observe, refuse_unknown_nodes, unmet


@dataclass(frozen=True)
class Asked:
    """What was asked for on the command line."""

    names: frozenset[str]
    wait: float
    is_dry: bool = False
    is_adopting: bool = False
    is_empty_allowed: bool = False


class Planner:
    """From services.d and the agent to a plan; whatever is wrong with either is raised before anything is written."""

    def __init__(self, settings: Settings, consul: Consul, clock: Clock, asked: Asked) -> None:
        self._settings = settings
        self._consul = consul
        self._clock = clock
        self._asked = asked
        self._agent: AgentSelf | None = None
        self.definitions: tuple[Definition, ...] = ()
        """What services.d says, once it is read."""
        self.world = World({}, {})
        """What the agent held when the last plan was made."""

    @property
    def agent(self) -> AgentSelf:
        """The local agent, waited for."""
        if self._agent is None:
            self._agent = wiring.await_agent(self._consul, self._clock, self._asked.wait, show_warning)
        return self._agent

    @property
    def services(self) -> list[Service]:
        """All services of services.d."""
        return [service for definition in self.definitions for service in definition.services]

    def read(self) -> None:
        """Read services.d; its faults are told even if no agent is there."""
        directory = self._settings.services_dir
        if self._asked.is_empty_allowed and not directory.exists():
            self.definitions = ()
            return
        self.definitions = wiring.definitions(self._settings, lambda: self.agent.address)
        for name in self._asked.names:
            if not any(name in (service.name, service.id) for service in self.services):
                raise wiring.unknown_name(name, self.services, directory)

    def plan(self) -> tuple[Change, ...]:
        """What has to change now."""
        names = self._asked.names
        if faults := unmet(self.definitions, self.agent, names):
            raise BadDefinition(faults)
        # A registration of what the token may not see is refused by Consul; a plan alone would show it as absent.
        expected = {service.id: service.name for service in self.services} if self._asked.is_dry else {}
        self.world = observe(self._consul, expected)
        plan = make_plan(self.services, self.world, names, is_adopting=self._asked.is_adopting)
        removed = [change.service_id for change in plan if change.action is Action.REMOVE]
        if removed and not self.definitions and not self._asked.is_empty_allowed:
            raise SvcagentError(
                f"{self._settings.services_dir} holds no definition, so {_some(removed)} would be removed. Is it the "
                "right directory? If so, run: svcagent register --allow-empty"
            )
        return refuse_unknown_nodes(self._consul, plan)


def show_plan(plan: Iterable[Change], *, is_dry: bool) -> None:
    """A line for every field that changes; what stays as it is, in full only where nothing is carried out."""
    plan = tuple(plan)
    if current().as_json:
        show_document({"dry_run": is_dry, "changes": [_document(change) for change in plan]})
    for change in plan:
        if change.action is Action.REFUSE:
            show_warning(f"{change.service_id} is left alone: {change.why}")
    changed = [change for change in plan if change.action not in (Action.KEEP, Action.REFUSE)]
    shown = plan if is_dry else changed
    if shown:
        rows = [(str(change.action), change.service_id, what) for change in shown for what in _lines(change)]
        show_table(("ACTION", "SERVICE", "WHAT"), rows)
    kept = sum(change.action is Action.KEEP for change in plan)
    show_line(f"{len(changed)} {'to change' if is_dry else 'changed'}, {kept} unchanged")


def exit_code(plan: Iterable[Change]) -> int:
    """1 if anything was refused."""
    return 1 if any(change.action is Action.REFUSE for change in plan) else 0


def _lines(change: Change) -> list[str]:
    return [change.why, *map(str, change.differences)] if change.action is Action.UPDATE else [change.why]


def _document(change: Change) -> dict[str, object]:
    fields = [{"field": one.field, "before": one.before, "after": one.after} for one in change.differences]
    return {"service": change.service_id, "action": str(change.action), "why": change.why, "fields": fields}


def _some(names: list[str]) -> str:
    most = 5
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
