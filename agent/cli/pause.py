from dataclasses import replace

import click

from agent.cli import wiring
from agent.cli.fleet_input import service_of
from agent.cli.fleet_output import pause_document
from agent.cli.maint_input import end_of, operator
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
@click.argument("name", shell_complete=wiring.complete_name)
@click.option("--reason", required=True, help="Why, for others to read.")
@click.option("--for", "duration", type=wiring.GoDuration(), help="An end: 90m, 2h. Without one, until resumed.")
@click.option(
    "--until", metavar="TIME", help="An end: HH:MM (the next one), or ISO 8601; local time unless it has a zone."
)
@click.option("--replace", "is_replacing", is_flag=True, help="Replace another operator's pause.")
@output_options
def pause(name: str, *, reason: str, duration: float | None, until: str | None, is_replacing: bool) -> None:
    """Stop the reloads of NAME on all hosts.

    Hosts that wait for the lock stop when they get it; a host that has drained already finishes. If you paused it
    before for the same reason, only the end is changed. If another operator did, prints who and why, and exits 1.
    """
    now = wiring.system_clock().now().replace(microsecond=0)
    why = " ".join(reason.split())
    if not why:
        raise click.BadParameter("give a reason: others will read it", param_hint="--reason")
    end = end_of(duration, until, now)
    settings = wiring.settings()
    with wiring.consul(settings) as consul:
        service = service_of(settings, consul, name)
        wanted = Pause(operator(), consul.agent_self().node, why, now, end)
        held = pauses.put(consul, service, wanted, now, is_replacing=is_replacing)
    stands = replace(wanted, since=held.since) if held is not None and held.has_same_cause(wanted) else wanted
    if current().as_json:
        show_document({"service": service, "pause": pause_document(stands), "was": pause_document(held)})
    before = f"; before it was paused {held.describe(shown)}" if held is not None and held != stands else ""
    already = " already" if held == stands else ""
    show_line(f"{service}: paused{already}{f' until {shown(stands.until)}' if stands.until else ''}{before}")
