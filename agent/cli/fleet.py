import sys
from collections.abc import Iterable

import click

from agent.cli import context
from agent.cli.fleet_input import defined_here, lock_prefix_of, service_of
from agent.cli.fleet_output import HEADERS, ShownFleet, document, rows, summary
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_table, show_warning, table
from agent.cli.stopped import check_for_stopped
from agent.clock import Interrupts
from agent.errors import Interrupted
from agent.fleet import FleetSnapshot, FleetWatch, observe
from agent.fleet.suspect import all_suspects, find_all_suspects


@click.command(
    epilog="\b\nExamples:\n"
    "  svcagent fleet keyword-suggest\n"
    "  svcagent fleet keyword-suggest --watch\n"
    "  svcagent --json fleet keyword-suggest"
)
@click.argument("name", shell_complete=context.complete_name)
@click.option("--watch", "is_watching", is_flag=True, help="Show changes until Ctrl-C; in a pipe, one line for each.")
@output_options
def fleet(name: str, *, is_watching: bool) -> int:
    """Show version, state and health of NAME on all hosts, one row for each.

    Each host publishes its digest, tag, state and since; health and the owner of its maintenance come from Consul's
    catalog. Hosts that have not published a state yet and hosts without an instance are included. A version whose
    reload disappeared is suspect: no other host takes it until that host has recovered, or you run
    svcagent quarantine clear.
    """
    if is_watching and current().as_json:
        raise click.UsageError("Give --watch or --json, not both.")
    settings, clock, interrupts = context.settings(), context.system_clock(), Interrupts()
    with context.consul(settings) as consul:
        service = service_of(settings, consul, name)
        lock_prefix = lock_prefix_of(settings, service)
        if is_watching:
            try:
                with (
                    interrupts.caught(),
                    interrupts.allowed(),
                    FleetWatch(consul, service, lock_prefix, clock) as watch,
                ):
                    (_draw if sys.stdout.isatty() else _print_changes)(service, watch.seen())
            except Interrupted as ended:  # the usual end of a watch
                return ended.exit_code
            return 0  # standard output was closed
        view, instances = observe(consul, service, clock.now()), consul.instances(service)[1]
        found = ShownFleet(service, view, instances, find_all_suspects(consul, service, lock_prefix))
        check_for_stopped(settings, consul, defined_here(settings, service))
    if current().as_json:
        show_document(document(found))
        return 0
    for line in summary(found):
        show_line(line)
    if hosts := rows(found):
        show_table(HEADERS, hosts)
    else:
        show_line(f"no host has an instance of {service} or has published a state of it")
    return 0


def _draw(service: str, moments: Iterable[FleetSnapshot]) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        for seen in moments:
            found = _shown(service, seen)
            lines = [Text(line) for line in summary(found)]
            if seen.trouble:
                lines.append(Text(f"{seen.trouble}. The rows below may be out of date", style="yellow"))
            live.update(Group(*lines, table(HEADERS, rows(found), live.console.width)), refresh=True)


def _print_changes(service: str, moments: Iterable[FleetSnapshot]) -> None:
    """Print every row once, then rows that change or vanish, and each new line of the summary; for a pipe."""
    before: dict[str, tuple[str, ...]] | None = None
    lines_before: list[str] = []
    is_troubled = False
    for seen in moments:
        if seen.trouble:
            if not is_troubled:
                show_warning(f"{seen.trouble}. Retrying")
            is_troubled = True
            continue
        is_troubled = False
        found = _shown(service, seen)
        lines, now = list(summary(found)), {row[0]: row for row in rows(found)}
        for line in lines:
            if line not in lines_before:
                show_line(line)
        if before is None:
            show_table(HEADERS, list(now.values()))
        else:
            for host in sorted(before.keys() | now.keys()):
                if now.get(host) != before.get(host):
                    show_line("\t".join(now.get(host, (host, "gone"))))
        before, lines_before = now, lines
        if current().output_error is not None:
            return


def _shown(service: str, seen: FleetSnapshot) -> ShownFleet:
    """Show no suspects if the lock's name is unknown, because then the lock's holder is unknown too."""
    suspects = () if seen.sessions is None else all_suspects(seen.view.hosts, seen.sessions)
    return ShownFleet(service, seen.view, seen.instances, suspects)
