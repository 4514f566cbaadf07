import click

from agent.cli import context
from agent.cli.fleet_input import service_of
from agent.cli.fleet_output import pause_document
from agent.cli.maint_output import shown
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line
from agent.fleet import pause as pauses


@click.command(epilog="\b\nExamples:\n  svcagent resume keyword-suggest")
@click.argument("name", shell_complete=context.complete_name)
@output_options
def resume(name: str) -> None:
    """Resume the reloads of NAME on all hosts, and print who paused them.

    Does nothing if they are not paused. Each host continues with its next reload, scheduled or run by hand.
    """
    settings = context.settings()
    with context.consul(settings) as consul:
        service = service_of(settings, consul, name)
        held = pauses.clear(consul, service)
    if current().as_json:
        show_document({"service": service, "was": pause_document(held)})
    if held is None:
        show_line(f"{service}: not paused")
    elif held.is_over(context.system_clock().now()):
        show_line(f"{service}: not paused; the pause {held.describe(shown)} has expired")
    else:
        show_line(f"{service}: reloads resumed; they were paused {held.describe(shown)}")
