"""What ``register``, ``plan`` and ``deregister`` share: making a plan and printing it."""

import shlex
from collections.abc import Callable, Iterable, Sequence

from agent.cli import context
from agent.cli.options import current
from agent.cli.output import show_bug_of, show_document, show_line, show_table, show_trouble, show_warning
from agent.clock import Clock
from agent.consul import AgentSelf, Consul
from agent.data import dataclass
from agent.definitions import Definition, Service, Settings
from agent.errors import BadDefinition, Fault, SvcagentError
from agent.maintenance import is_finished_reload, parse
from agent.registration import (
    Change,
    ChangeAction,
    ConsentNeeded,
    Failure,
    LastSeen,
    LastSeenFile,
    Objection,
    Registration,
    refuse_unknown_nodes,
    unmet,
)
from agent.reload.journal import journalled


@dataclass(frozen=True)
class RegistrationOptions:
    names: frozenset[str]
    wait: float
    is_dry: bool = False
    is_adopting: bool = False
    is_empty_allowed: bool = False
    may_remove: bool = False
    """The operator agreed to the removals."""


class Planner:
    """Makes a plan from services.d and the agent, before any write.

    It leaves out files with faults, and then removes nothing, because any of them may define the service.
    """

    def __init__(self, settings: Settings, consul: Consul, clock: Clock, asked: RegistrationOptions) -> None:
        self._settings = settings
        self._consul = consul
        self._clock = clock
        self._asked = asked
        self._agent: AgentSelf | None = None
        self.definitions: tuple[Definition, ...] = ()
        self.faults: tuple[Fault, ...] = ()
        self.registration = Registration(
            consul,
            settings.services_dir,
            LastSeenFile(settings.state_dir, clock),
            lambda one, text: is_finished_reload(text, is_journalled=one in journalled(settings.state_dir)),
            show_bug_of,
        )

    @property
    def agent(self) -> AgentSelf:
        """The local agent. The first access waits for it."""
        if self._agent is None:
            self._agent = context.await_agent(self._consul, self._clock, self._asked.wait, show_warning)
        return self._agent

    @property
    def services(self) -> list[Service]:
        return [service for definition in self.definitions for service in definition.services]

    def read(self) -> None:
        """Read services.d. Its faults are reported even if no agent answers."""
        if self._asked.is_empty_allowed and not self._settings.services_dir.exists():
            self.definitions, self.faults = (), ()
            return
        found = context.definitions(self._settings, self._asked.names, lambda: self.agent.address)
        self.definitions, self.faults = found.definitions, found.faults

    def plan(self) -> tuple[Change, ...]:
        names = self._asked.names
        if faults := unmet(self.definitions, self.agent, names):
            self._leave_out(faults)
        # Consul refuses to register a service that the token may not see; a mere plan would show it as absent.
        expected = {service.id: service.name for service in self.services} if self._asked.is_dry else {}
        has_consent = self._asked.may_remove or (self._asked.is_empty_allowed and not self.definitions)
        plan = self.registration.plan(
            self.services,
            names,
            expected=expected,
            is_adopting=self._asked.is_adopting,
            has_consent=has_consent,
            may_remove=lambda _service_id: not self.faults,
        )
        removed = [change.service_id for change in plan if change.action is ChangeAction.REMOVE]
        if removed and not self.definitions and not self._asked.is_empty_allowed:
            raise SvcagentError(
                f"{self._settings.services_dir} holds no definition, so {_some(removed)} would be removed. Is it the "
                "right directory? If so, run: svcagent register --allow-empty",
                kind="no-definitions",
            )
        return plan

    def _leave_out(self, faults: list[Fault]) -> None:
        if self._asked.names:
            raise BadDefinition(faults)
        files = {fault.file for fault in faults}
        self.definitions = tuple(one for one in self.definitions if str(one.file) not in files)
        self.faults += tuple(faults)
        context.go_on_without(self.faults, self.definitions, is_all=True)


def keep(settings: Settings, change: Callable[[LastSeen], LastSeen]) -> None:
    """Store what is known about the agent in the state directory. Warn if that fails."""
    try:
        LastSeenFile(settings.state_dir, context.system_clock()).change(change)
    except SvcagentError as error:
        warn_of_unremembered(error)


def warn_of_unremembered(error: SvcagentError) -> None:
    show_warning(f"{error}. Until then, maintenance that Consul removes with a service is not enabled again")


def show_dry_run(planner: Planner, consul: Consul) -> int:
    changes = refuse_unknown_nodes(consul, planner.plan())
    objection = planner.registration.objection
    show_plan(changes, is_dry=True, objection=objection)
    return exit_code(changes) if objection is None else ConsentNeeded.exit_code


def show_plan(
    plan: Iterable[Change], *, is_dry: bool, objection: Objection | None = None, failures: Sequence[Failure] = ()
) -> None:
    """Print a line for every field that changes; unchanged services only in a dry run.

    ``objection`` says why the plan needs an operator's consent. ``failures`` are services that could not be changed.
    """
    plan = tuple(plan)
    if current().as_json:
        document: dict[str, object] = {"dry_run": is_dry, "changes": [_document(change) for change in plan]}
        if objection is not None:
            document |= {"needs_consent": objection.text, "kind": objection.kind}
        if failures:
            document["failed"] = [
                {"service": one.service_id, "kind": one.error.kind, "error": str(one.error)} for one in failures
            ]
        show_document(document)
    if objection is not None:
        show_warning(objection.text)
    for one in failures:
        show_trouble(f"{one.service_id}: {one.error}", service=one.service_id, exit_code=one.error.exit_code)
    failed = {one.service_id for one in failures}
    for change in plan:
        if change.action is ChangeAction.REFUSE:
            show_warning(f"{change.service_id} is left alone: {change.why}")
        elif change.maintenance is not None and not change.replaces:
            show_warning(in_maintenance_again(change.service_id, change.maintenance), service=change.service_id)
    changed = [
        change
        for change in plan
        if change.action not in (ChangeAction.KEEP, ChangeAction.REFUSE) and change.service_id not in failed
    ]
    shown = plan if is_dry else changed
    if shown:
        rows = [(str(change.action), change.service_id, what) for change in shown for what in _lines(change)]
        show_table(("ACTION", "SERVICE", "WHAT"), rows)
    kept = sum(change.action is ChangeAction.KEEP for change in plan)
    show_line(f"{len(changed)} {'to change' if is_dry else 'changed'}, {kept} unchanged")


def in_maintenance_again(service_id: str, text: str) -> str:
    """Return the warning that the maintenance of a service, or of the node if the ID is empty, is enabled again."""
    what = f"{service_id} was" if service_id else "the maintenance of this host was"
    argument = shlex.quote(service_id) if service_id else "--node"
    return (
        f"{what} removed from Consul while it was in maintenance, enabled {parse(text).describe()}; it is "
        f"registered in the same maintenance again. To disable it, run: svcagent maint disable {argument}"
    )


def exit_code(plan: Iterable[Change], failures: Iterable[Failure] = ()) -> int:
    """Return 1 if anything was refused, or else the worst exit code of the failures."""
    refused = [1 for change in plan if change.action is ChangeAction.REFUSE]
    return max([one.error.exit_code for one in failures] + refused, default=0)


def _lines(change: Change) -> list[str]:
    return [change.why, *map(str, change.differences)] if change.action is ChangeAction.UPDATE else [change.why]


def _document(change: Change) -> dict[str, object]:
    fields = [{"field": one.field, "before": one.before, "after": one.after} for one in change.differences]
    refused = {"kind": str(change.kind)} if change.kind is not None else {}
    return {"service": change.service_id, "action": str(change.action), **refused, "why": change.why, "fields": fields}


def _some(names: list[str]) -> str:
    most = 5
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
