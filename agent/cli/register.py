import click

from agent.cli import context
from agent.cli.options import output_options
from agent.cli.output import show_warning
from agent.cli.registration_output import (
    exit_code,
    in_maintenance_again,
    planner_of,
    show_dry_run,
    show_plan,
    warn_of_record_error,
)
from agent.cli.textfile import record_registration, record_reloads, registration_failures_recorded
from agent.clock import Interrupts
from agent.consul import NODE_MAINTENANCE, Consul
from agent.daemon.last_good import forget
from agent.definitions import Check, Settings
from agent.maintenance import is_of_reload, parse
from agent.registration import (
    AgentState,
    Change,
    ChangeAction,
    ConsentNeeded,
    Failure,
    Registration,
    exclusive_registration,
)
from agent.registration.planner import Planner, RegistrationOptions
from agent.reload.journal import journalled


@click.command(epilog="\b\nExamples:\n  svcagent register --dry-run\nOn boot:\n  svcagent register --wait 5m")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=context.complete_name)
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing: the same as plan.")
@click.option(
    "--wait",
    type=context.GoDuration(),
    default="60s",
    show_default=True,
    help="How long to wait for the local Consul agent to answer.",
)
@click.option("--adopt", is_flag=True, help="Take over services that another tool registered under the same ID.")
@click.option("--allow-empty", is_flag=True, help="Remove all services if there is no definition.")
@click.option(
    "--allow-removals",
    is_flag=True,
    help="Allow removing more than two services that are more than half of those that svcagent registered here, and "
    "changes from another directory than last time.",
)
@output_options
def register(
    names: tuple[str, ...], *, dry_run: bool, wait: float, adopt: bool, allow_empty: bool, allow_removals: bool
) -> int:
    """Register the services of services.d in the local Consul agent, and remove those no longer defined.

    Writes only what differs, and updates or removes only services that svcagent registered. Maintenance is not changed,
    except that an operator's maintenance ends at its end time; a service that Consul removed while it was in
    maintenance is registered in maintenance again. Reloads that crashed on this host are finished or rolled back.

    Files with faults are left out (exit code 78; with NAME only if NAME is in one of them): the services that they
    define are not changed, and no service is removed. A name that two files use is a fault of both.

    A plan that removes too much, or that comes from another directory than last time, changes nothing and exits 1
    without --allow-removals. To see it: svcagent plan.
    """
    settings = context.settings()
    clock = context.system_clock()
    asked = RegistrationOptions(
        frozenset(names),
        wait,
        is_dry=dry_run,
        is_adopting=adopt,
        is_empty_allowed=allow_empty,
        may_remove=allow_removals,
    )
    if dry_run:
        return show_dry_run(settings, asked)
    left_behind = journalled(context.state_directory(settings, is_needed=False))
    if left_behind:
        from agent.cli.reload_output import REPAIR_OUTPUT  # rarely needed, and slow to import
        from agent.reload.repair import revive_containers

        revive_containers(settings, clock, left_behind, REPAIR_OUTPUT)
    with context.consul(settings) as consul, registration_failures_recorded(settings):
        planner = planner_of(settings, consul, asked)
        planner.read()
        state_dir = context.state_directory(settings)
        # Wait for the agent before taking the lock, so that no other process waits for a waiting one.
        _ = planner.agent
        with exclusive_registration(state_dir, clock, wait) as was_another_first:
            if was_another_first:
                planner.read()
            plan = planner.plan()
            if (objection := planner.registration.objection) is not None:
                raise ConsentNeeded(objection.text, kind=objection.kind)
            if allow_empty and not planner.definitions:
                forget(settings.state_dir)
            plan, failures = _apply(planner.registration, plan, is_all=not names)
        repaired = _repair(settings, consul, planner, left_behind)
        if _is_anything_out(planner.registration.world) or any(one.maintenance is not None for one in plan):
            from agent.cli.maint_output import show_expired_maintenance
            from agent.maintenance import end_expired  # rarely needed, and slow to import

            own = {service.id for service in planner.services}
            show_expired_maintenance(end_expired(consul, clock, planner.agent.node, own))
        _check_for_stopped(settings, consul, planner)
        if not names:
            refused = sum(one.action is ChangeAction.REFUSE for one in plan)
            record_registration(settings, consul, planner.definitions, refused, planner.faults)
    show_plan(plan, is_dry=False, failures=failures)
    return max(exit_code(plan, failures), repaired)


def _check_for_stopped(settings: Settings, consul: Consul, planner: Planner) -> None:
    if any(one.reload is not None for one in planner.definitions):
        from agent.cli.stopped import check_for_stopped  # the Docker SDK is slow to import

        check_for_stopped(settings, consul, planner.definitions)


def _apply(
    registration: Registration, plan: tuple[Change, ...], *, is_all: bool
) -> tuple[tuple[Change, ...], tuple[Failure, ...]]:
    if registration.lost_node_maintenance is not None:
        show_warning(in_maintenance_again("", registration.lost_node_maintenance))
    registration.apply(plan, _status, is_all=is_all)
    if registration.record_error is not None:
        warn_of_record_error(registration.record_error)
    refused = {one.service_id: one for one in registration.refused}
    return tuple(refused.get(one.service_id, one) for one in plan), tuple(registration.failures.found)


def _repair(settings: Settings, consul: Consul, planner: Planner, left_behind: frozenset[str]) -> int:
    out = {
        one.id
        for one in planner.registration.world.services.values()
        if one.maintenance is not None and is_of_reload(parse(one.maintenance.notes), planner.agent.node)
    }
    broken = left_behind | out
    if planner.faults:
        # A faulty file may define a service that no good file defines: do not recover its reload as undefined.
        broken &= {service.id for service in planner.services}
    if not broken:
        return 0
    from agent.cli.reload_output import REPAIR_OUTPUT, show_recovered  # rarely needed, and slow to import
    from agent.reload.build import HostClients, engine_of
    from agent.reload.repair import repair

    clock, interrupts = context.system_clock(), Interrupts()
    with interrupts.caught(), engine_of(settings, clock) as engine:
        clients = HostClients(settings, consul, engine, planner.agent, clock, interrupts)
        results = repair(clients, planner.definitions, broken, REPAIR_OUTPUT)
        record_reloads(settings, results)
        return show_recovered(results)


def _status(check: Check) -> str:
    from agent.reload.probe import probe_status  # rarely needed, and slow to import

    return probe_status(check)


def _is_anything_out(world: AgentState) -> bool:
    return NODE_MAINTENANCE in world.checks or any(one.maintenance is not None for one in world.services.values())
