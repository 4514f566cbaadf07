import dataclasses
from collections.abc import Collection

import click

from agent.cli import context
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_warning
from agent.cli.reload_output import REPAIR_OUTPUT, show_recovered
from agent.cli.stopped import check_for_stopped
from agent.cli.textfile import record_reloads
from agent.clock import Interrupts
from agent.daemon.last_good import Choice, usable
from agent.definitions import Settings
from agent.errors import BadDefinition
from agent.reload.build import HostClients, engine_of
from agent.reload.journal import journalled
from agent.reload.repair import repair, revive_containers


@click.command(epilog="Examples: svcagent recover; svcagent recover keyword-suggest")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=context.complete_name)
@output_options
def recover(names: tuple[str, ...]) -> int:
    """Finish or roll back a reload that crashed on this host.

    Starts a ready container (the new one, else the old one), returns the service, and releases lock and session.
    register and reload do this first, and the daemon does it within a minute, so this command is rarely needed. Does
    not change a running reload. Recovers services even if another file has faults; the exit code is then 78.
    """
    settings, clock, interrupts = context.settings(), context.system_clock(), Interrupts()
    state_dir = context.state_directory(settings, is_needed=False)
    with interrupts.caught():
        revive_containers(settings, clock, journalled(state_dir), REPAIR_OUTPUT)
        with context.consul(settings) as consul, engine_of(settings, clock) as engine:
            agent = consul.agent_self()
            choice = usable(settings.services_dir, context.host_values(agent.address))
            service_ids = _chosen(settings, choice, names)
            context.state_directory(settings)
            clients = HostClients(settings, consul, engine, agent, clock, interrupts)
            results = repair(clients, choice.definitions, service_ids, REPAIR_OUTPUT)
            check_for_stopped(settings, consul, (one for one in choice.definitions if one.service.id in service_ids))
    record_reloads(settings, results)
    if current().as_json:
        show_document([dataclasses.asdict(result) for result in results])
    for fault in choice.faults:
        show_warning(str(fault))
    if not results and not choice.faults:
        show_line("nothing to recover")
    return show_recovered(results) or (BadDefinition.exit_code if choice.faults else 0)


def _chosen(settings: Settings, choice: Choice, names: Collection[str]) -> set[str]:
    services = [one.service for one in choice.definitions if one.reload is not None]
    # A faulty file may define a service that no good file defines, so such a journal is not orphaned.
    unfinished = frozenset[str]() if choice.faults else journalled(settings.state_dir)
    for name in names:
        if name not in unfinished and not any(name in (one.name, one.id) for one in services):
            if choice.faults:
                raise BadDefinition(list(choice.faults))
            raise context.unknown_name(name, choice.definitions, f" in {settings.services_dir}")
    if not names:
        return {one.id for one in services} | unfinished
    return {one.id for one in services if {one.id, one.name} & set(names)} | (unfinished & set(names))
