"""``svcagent register``."""

import contextlib

import click

from agent.cli import wiring
from agent.cli.options import output_options
from agent.cli.planning import Asked, Planner, exit_code, show_plan
from agent.cli.textfile import registered, registration_told, reloads_ended
from agent.clock import Interrupts
from agent.consul import NODE_MAINTENANCE, Consul
from agent.daemon.good import forget
from agent.definitions import Check, Settings
from agent.maintenance import is_of_reload, parse
from agent.registration import Action, World, alone_in, apply_plan
from agent.reload import journalled


@click.command(epilog="Examples: svcagent register --dry-run; on boot: svcagent register --wait 5m")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=wiring.complete_name)
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing: the same as plan.")
@click.option(
    "--wait",
    type=wiring.GoDuration(),
    default="60s",
    show_default=True,
    help="How long to wait for the local Consul agent to be there.",
)
@click.option("--adopt", is_flag=True, help="Take over services that something else registered under the same ID.")
@click.option("--allow-empty", is_flag=True, help="Remove services even if no definition is left at all.")
@output_options
def register(names: tuple[str, ...], *, dry_run: bool, wait: float, adopt: bool, allow_empty: bool) -> int:
    """Make the local Consul agent hold exactly what services.d says.

    Services that are as they should be are not written. Only services that svcagent registered itself are updated
    or removed. Maintenance stays as it is, unless it is an operator's and its end has come. What a reload of this host
    left half done when it was killed is brought to its end.
    """
    settings = wiring.settings()
    clock = wiring.system_clock()
    asked = Asked(frozenset(names), wait, is_dry=dry_run, is_adopting=adopt, is_empty_allowed=allow_empty)
    state_dir = settings.state_dir if dry_run else wiring.state_directory(settings)
    left_behind = journalled(state_dir)
    if left_behind and not dry_run:
        from agent.cli.repairing import revive_containers  # rarely needed, and slow to import

        revive_containers(settings, left_behind)
    repaired = 0
    told = contextlib.nullcontext() if dry_run else registration_told(settings)
    with wiring.consul(settings) as consul, told:
        planner = Planner(settings, consul, clock, asked)
        planner.read()
        if dry_run:
            plan = planner.plan()
        else:
            # Waited for before the lock is taken, so that nobody waits for one who waits.
            _ = planner.agent
            with alone_in(state_dir, clock, wait) as was_another_first:
                if was_another_first:
                    planner.read()
                plan = planner.plan()
                if allow_empty and not planner.definitions:
                    forget(state_dir)
                apply_plan(consul, plan, lambda _change: None, _status)
            repaired = _repair(settings, consul, planner, left_behind)
            if _is_anything_out(planner.world):
                from agent.cli.maint_output import tell_ended
                from agent.maintenance import lift_expired  # rarely needed, and slow to import

                own = {service.id for service in planner.services}
                tell_ended(lift_expired(consul, clock, planner.agent.node, own))
            if any(one.reload is not None for one in planner.definitions):
                from agent.cli.stopped import look_for_stopped  # slow to import, and most files need none

                look_for_stopped(settings, consul, planner.definitions)
            if not names:
                registered(settings, consul, planner.definitions, sum(one.action is Action.REFUSE for one in plan))
    show_plan(plan, is_dry=dry_run)
    return max(exit_code(plan), repaired)


def _repair(settings: Settings, consul: Consul, planner: Planner, left_behind: frozenset[str]) -> int:
    """Bring to its end what reloads left that were killed; the exit code that says whether that succeeded."""
    out = {
        one.id
        for one in planner.world.services.values()
        if one.maintenance is not None and is_of_reload(parse(one.maintenance.notes), planner.agent.node)
    }
    if not (left_behind or out):
        return 0
    from agent.cli.reload_output import tell_repaired
    from agent.cli.repairing import repair  # rarely needed, and slow to import

    interrupts = Interrupts()
    with interrupts.caught():
        results = repair(settings, consul, planner.agent, planner.definitions, left_behind | out, interrupts)
        reloads_ended(settings, results)
        return tell_repaired(results)


def _status(check: Check) -> str:
    from agent.reload import probe_status  # rarely needed, and slow to import

    return probe_status(check)


def _is_anything_out(world: World) -> bool:
    return NODE_MAINTENANCE in world.checks or any(one.maintenance is not None for one in world.services.values())
