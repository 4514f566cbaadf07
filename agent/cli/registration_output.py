"""What ``register``, ``plan`` and ``deregister`` print about changes of registrations."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from agent.cli import context
from agent.cli.options import current
from agent.cli.output import show_bug_of, show_document, show_line, show_problem, show_table, show_warning
from agent.consul import Consul
from agent.definitions import Settings
from agent.errors import SvcagentError
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
)
from agent.registration.plan import DEFINITION_CHANGED
from agent.registration.planner import Planner, RegistrationOptions
from agent.reload.journal import journalled


def planner_of(settings: Settings, consul: Consul, options: RegistrationOptions) -> Planner:
    clock = context.system_clock()
    registration = Registration(
        consul,
        settings.services_dir,
        LastSeenFile(settings.state_dir, clock),
        lambda one, text: is_finished_reload(text, is_journalled=one in journalled(settings.state_dir)),
        show_bug_of,
    )
    return Planner(
        settings.services_dir,
        registration,
        options,
        lambda: context.await_agent(consul, clock, options.wait, show_warning),
        lambda ask_address: context.definitions(settings, options.names, ask_address),
        partial(context.leave_out_faulty_files, is_all=True),
    )


def keep(settings: Settings, change: Callable[[LastSeen], LastSeen]) -> None:
    """Store what is known about the agent in the state directory. Warn if that fails."""
    try:
        LastSeenFile(settings.state_dir, context.system_clock()).change(change)
    except SvcagentError as error:
        warn_of_record_error(error)


def warn_of_record_error(error: SvcagentError) -> None:
    show_warning(
        f"{error}. Until this is corrected, maintenance that Consul removes with a service is not enabled again"
    )


def show_dry_run(settings: Settings, options: RegistrationOptions) -> int:
    with context.consul(settings) as consul:
        planner = planner_of(settings, consul, options)
        planner.read()
        changes = [refuse_unknown_nodes(consul, change) for change in planner.plan()]
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
        show_document(document | failure_document(failures))
    if objection is not None:
        show_warning(objection.text)
    show_failures(plan, failures)
    failed = {one.service_id for one in failures}
    for change in plan:
        if change.action is not ChangeAction.REFUSE and change.maintenance is not None and not change.replaces:
            show_warning(in_maintenance_again(change.service_id, change.maintenance), service=change.service_id)
    changed = [
        change
        for change in plan
        if change.action not in (ChangeAction.KEEP, ChangeAction.REFUSE) and change.service_id not in failed
    ]
    shown = plan if is_dry else changed
    if shown:
        rows = [
            (str(change.action) if is_dry else _DONE[change.action], change.service_id, what)
            for change in shown
            for what in _lines(change, is_dry=is_dry)
        ]
        show_table(("ACTION", "SERVICE", "WHAT"), rows)
    kept = sum(change.action is ChangeAction.KEEP for change in plan)
    refused = sum(change.action is ChangeAction.REFUSE for change in plan)
    total = [f"{len(changed)} {'to change' if is_dry else 'changed'}", f"{kept} unchanged"]
    total += [f"{refused} refused"] if refused else []
    total += [f"{len(failed)} failed"] if failed else []
    show_line(", ".join(total))


def show_failures(plan: Iterable[Change], failures: Iterable[Failure]) -> None:
    for one in failures:
        show_problem(f"{one.service_id}: {one.error}", service=one.service_id, exit_code=one.error.exit_code)
    for change in plan:
        if change.action is ChangeAction.REFUSE:
            show_warning(f"{change.service_id}: not changed: {change.why}")


def failure_document(failures: Iterable[Failure]) -> dict[str, object]:
    found = [{"service": one.service_id, "kind": one.error.kind, "error": str(one.error)} for one in failures]
    return {"failed": found} if found else {}


def in_maintenance_again(service_id: str, text: str) -> str:
    """Return the warning that the maintenance of a service, or of the node if the ID is empty, is enabled again."""
    what = f"{service_id} was" if service_id else "the maintenance of this host was"
    argument = shlex.quote(service_id) if service_id else "--node"
    return (
        f"{what} removed from Consul while it was in maintenance, enabled {parse(text).describe()}; it is registered "
        f"again in the same maintenance. To disable it, run: svcagent maint disable {argument}"
    )


def exit_code(plan: Iterable[Change], failures: Iterable[Failure] = ()) -> int:
    """Return 1 if anything was refused, or else the worst exit code of the failures."""
    refused = [1 for change in plan if change.action is ChangeAction.REFUSE]
    return max([one.error.exit_code for one in failures] + refused, default=0)


_DONE: Mapping[ChangeAction, str] = {
    ChangeAction.CREATE: "created",
    ChangeAction.UPDATE: "updated",
    ChangeAction.REMOVE: "removed",
}


def _lines(change: Change, *, is_dry: bool) -> list[str]:
    if change.action is ChangeAction.CREATE and not is_dry and not change.replaces:
        return ["registered"]
    if change.why == DEFINITION_CHANGED and change.differences:
        return [*map(str, change.differences)]
    return [change.why, *map(str, change.differences)]


def _document(change: Change) -> dict[str, object]:
    fields = [{"field": one.field, "before": one.before, "after": one.after} for one in change.differences]
    refused = {"kind": str(change.kind)} if change.kind is not None else {}
    return {"service": change.service_id, "action": str(change.action), **refused, "why": change.why, "fields": fields}
