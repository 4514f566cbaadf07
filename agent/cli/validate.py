"""``svcagent validate``."""

import click

from agent.cli import wiring
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line
from agent.consul import AgentSelf
from agent.definitions import ADDRESS, ANY_ADDRESS, Settings, load
from agent.errors import BadDefinition, SvcagentError
from agent.registration import unmet


@click.command(
    epilog="Example: svcagent --services-dir ./services.d validate",
)
@output_options
def validate() -> None:
    """Show every fault of every definition, and change nothing.

    Where the local Consul agent answers, what it is too old for is a fault as well. Faults go to standard error, each
    with its file, the place in it, and what would be right; the exit code is 78.
    """
    settings = wiring.settings()
    directory = settings.services_dir
    definitions = load(directory, wiring.values(ANY_ADDRESS))
    agent = _agent(settings)
    if agent is not None and (faults := unmet(definitions, agent)):
        raise BadDefinition(faults)
    services = [service for definition in definitions for service in definition.services]
    if current().as_json:
        version = agent.version if agent is not None else None
        show_document(
            {"directory": str(directory), "definitions": len(definitions), "faults": [], "consul_version": version}
        )
    for definition in definitions:
        show_line(f"{definition.file}: {', '.join(service.name for service in definition.services) or 'no service'}")
    if any(ADDRESS in definition.names_used for definition in definitions):
        show_line(f"${{{ADDRESS}}} was taken for {ANY_ADDRESS}: only the Consul agent knows what it stands for")
    if agent is None:
        show_line("the Consul agent did not answer: whether it is too old for a definition was not checked")
    show_line(f"{len(definitions)} definitions, {len(services)} services, no faults", "green")


def _agent(settings: Settings) -> AgentSelf | None:
    """Return the local agent, or None where it does not answer or refuses to say who it is."""
    try:
        with wiring.consul(settings) as consul:
            return consul.agent_self()
    except SvcagentError:
        return None
