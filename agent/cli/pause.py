from dataclasses import replace

import click

from agent.cli import context
from agent.cli.fleet_input import service_of
from agent.cli.fleet_output import pause_document
from agent.cli.maint_input import end_of, operator, reason_options
from agent.cli.maint_output import shown
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line
from agent.fleet import Pause
from agent.fleet import pause as pauses


@click.command(
    epilog="\b\nExamples:\n"
    '  svcagent pause keyword-suggest --reason "release party" --for 2h\n'
    '  svcagent pause keyword-suggest --reason "looking into errors"\n'
    "  svcagent resume keyword-suggest"
)
@click.argument("name", shell_complete=context.complete_name)
@reason_options("resumed")
@click.option("--replace", "is_replacing", is_flag=True, help="Replace another operator's pause.")
@output_options
def pause(name: str, *, reason: str, duration: float | None, until: str | None, is_replacing: bool) -> None:
    """Stop the reloads of NAME on all hosts.

    A host that waits for the lock stops when it gets it; a host that has already drained finishes its reload. If you
    paused NAME before with the same reason, only the end changes. If another operator did, prints the owner and the
    reason, and exits 1.
    """
    now = context.system_clock().now().replace(microsecond=0)
    end = end_of(duration, until, now)
    settings = context.settings()
    with context.consul(settings) as consul:
        service = service_of(settings, consul, name)
        wanted = Pause(operator(), consul.agent_self().node, reason, now, end)
        held = pauses.put(consul, service, wanted, now, is_replacing=is_replacing)
    pause_now = replace(wanted, since=held.since) if held is not None and held.has_same_cause(wanted) else wanted
    if current().as_json:
        show_document({"service": service, "pause": pause_document(pause_now), "was": pause_document(held)})
    before = f"; this replaces the pause {held.describe(shown)}" if held is not None and held != pause_now else ""
    state = "already paused" if held == pause_now else "paused"
    show_line(f"{service}: {state}{f' until {shown(pause_now.until)}' if pause_now.until else ''}{before}")
