"""``svcagent validate``."""

import click

from agent.cli import wiring
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line
from agent.definitions import ADDRESS, ANY_ADDRESS


@click.command(
    epilog="Example: svcagent --services-dir ./services.d validate",
)
@output_options
def validate() -> None:
    """Show every fault of every definition, and change nothing.

    Faults go to standard error, each with its file, the place in it, and what would be right; the exit code is 78.
    """
    directory = wiring.settings().services_dir
    definitions = wiring.placeheld_definitions(wiring.settings())
    services = [service for definition in definitions for service in definition.services]
    if current().as_json:
        show_document({"directory": str(directory), "definitions": len(definitions), "faults": []})
    for definition in definitions:
        show_line(f"{definition.file}: {', '.join(service.name for service in definition.services) or 'no service'}")
    if any(ADDRESS in definition.names_used for definition in definitions):
        show_line(f"${{{ADDRESS}}} was taken for {ANY_ADDRESS}: only the Consul agent knows what it stands for")
    show_line(f"{len(definitions)} definitions, {len(services)} services, no faults", "green")
