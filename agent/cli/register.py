"""``svcagent register``."""

from collections.abc import Iterable

import click

from agent.cli import wiring
from agent.cli.maint_output import tell_ended
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_table, show_warning
from agent.definitions import load
from agent.errors import SvcagentError
from agent.maintenance import lift_expired
from agent.registration import Action, Change, apply_plan, make_plan


@click.command(epilog="Examples: svcagent register --dry-run; on boot: svcagent register --wait 5m")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=wiring.complete_name)
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
@click.option(
    "--wait",
    type=wiring.GoDuration(),
    default="60s",
    show_default=True,
    help="How long to wait for the local Consul agent to be there.",
)
@click.option("--allow-empty", is_flag=True, help="Remove services even if no definition is left at all.")
@output_options
def register(names: tuple[str, ...], *, dry_run: bool, wait: float, allow_empty: bool) -> int:
    """Make the local Consul agent hold exactly what services.d says.

    Services that are as they should be are not written. Only services that svcagent registered itself are updated
    or removed. Maintenance stays as it is, unless it is an operator's and its end has come.
    """
    settings = wiring.settings()
    definitions = load(settings.services_dir)
    services = [service for definition in definitions for service in definition.services]
    for name in names:
        if not any(name in (service.name, service.id) for service in services):
            raise wiring.unknown_name(name, services, settings.services_dir)
    clock = wiring.system_clock()
    with wiring.consul(settings) as consul:
        agent = wiring.await_agent(consul, clock, wait, show_warning)
        plan = make_plan(services, consul.services(), frozenset(names))
        removed = [change.service_id for change in plan if change.action is Action.REMOVE]
        if removed and not definitions and not allow_empty:
            raise SvcagentError(
                f"{settings.services_dir} holds no definition, so {', '.join(removed)} would be removed. Is it the "
                "right directory? If so, run: svcagent register --allow-empty"
            )
        if not dry_run:
            apply_plan(consul, plan, lambda _change: None)
            tell_ended(lift_expired(consul, clock, agent.node, {service.id for service in services}))
    _show(plan, is_dry=dry_run)
    return 1 if any(change.action is Action.REFUSE for change in plan) else 0


def _show(plan: Iterable[Change], *, is_dry: bool) -> None:
    if current().as_json:
        changes = [{"service": one.service_id, "action": str(one.action), "why": one.why} for one in plan]
        show_document({"dry_run": is_dry, "changes": changes})
        return
    for change in plan:
        if change.action is Action.REFUSE:
            show_warning(f"{change.service_id} is left alone: {change.why}")
    changed = [change for change in plan if change.action not in (Action.KEEP, Action.REFUSE)]
    if changed:
        show_table(("ACTION", "SERVICE", "WHY"), [(str(one.action), one.service_id, one.why) for one in changed])
    kept = sum(change.action is Action.KEEP for change in plan)
    show_line(f"{len(changed)} {'to change' if is_dry else 'changed'}, {kept} unchanged")
