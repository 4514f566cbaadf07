"""``svcagent recover``."""

import dataclasses

import click

from agent.cli import wiring
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line
from agent.cli.reload_output import tell_repaired
from agent.cli.repairing import repair, revive_containers
from agent.cli.stopped import look_for_stopped
from agent.cli.textfile import reloads_ended
from agent.clock import Interrupts
from agent.reload import journalled


@click.command(epilog="Examples: svcagent recover; svcagent recover keyword-suggest")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=wiring.complete_name)
@output_options
def recover(names: tuple[str, ...]) -> int:
    """Bring to its end what a reload of this host left half done when it was killed.

    A container that runs and is ready (the new one, else the old one), its service back in service, lock and session
    given back. register and reload do this first, so it is rarely needed by itself. A reload that is alive is left
    alone.
    """
    settings = wiring.settings()
    state_dir = wiring.state_directory(settings)
    interrupts = Interrupts()
    with interrupts.caught():
        revive_containers(settings, journalled(state_dir))
        definitions = wiring.definitions(settings)
        services = [one.service for one in definitions if one.reload is not None]
        for name in names:
            if not any(name in (service.name, service.id) for service in services):
                raise wiring.unknown_name(name, services, settings.services_dir)
        chosen = {service.id for service in services if not names or {service.id, service.name} & set(names)}
        with wiring.consul(settings) as consul:
            agent = consul.agent_self()
            ids = chosen if names else chosen | journalled(state_dir)
            results = repair(settings, consul, agent, definitions, ids, interrupts)
            look_for_stopped(settings, consul, (one for one in definitions if one.service.id in ids))
    reloads_ended(settings, results)
    if current().as_json:
        show_document([dataclasses.asdict(result) for result in results])
    if not results:
        show_line("nothing was left behind")
    return tell_repaired(results)
