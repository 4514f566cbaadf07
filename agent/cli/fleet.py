import sys
from collections.abc import Iterable

import click

from agent.cli import wiring
from agent.cli.fleet_input import defined_here, lock_prefix_of, service_of
from agent.cli.fleet_output import HEADERS, document, rows, summary
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_table, show_warning, table
from agent.cli.stopped import look_for_stopped
from agent.clock import Interrupts
from agent.errors import Interrupted
from agent.fleet import HostState, Seen, Watch, observe
from agent.fleet.suspect import all_suspects, find_all_suspects


@click.command(
    epilog="\b\nExamples:\n"
    "  svcagent fleet keyword-suggest\n"
    "  svcagent fleet keyword-suggest --watch\n"
    "  svcagent --json fleet keyword-suggest"
)
@click.argument("name", shell_complete=wiring.complete_name)
@click.option("--watch", "is_watching", is_flag=True, help="Show changes until Ctrl-C; in a pipe, a line for each.")
@output_options
def fleet(name: str, *, is_watching: bool) -> int:
    """Show version, state and health of NAME on all hosts: a row for each.

    Digest, tag, state and since are what the host published last; health and the owner of its maintenance come from
    Consul's catalog. Hosts that have published nothing yet, and hosts without an instance, are shown too. A host whose
    reload disappeared is shown as suspect: no other host takes that version until the host has recovered, or you run
    svcagent quarantine clear.
    """
    if is_watching and current().as_json:
        raise click.UsageError("Give --watch or --json, not both.")
    settings, clock, interrupts = wiring.settings(), wiring.system_clock(), Interrupts()
    with wiring.consul(settings) as consul:
        service = service_of(settings, consul, name)
        lock_prefix = lock_prefix_of(settings, service)
        if is_watching:
            try:
                with interrupts.caught(), interrupts.allowed(), Watch(consul, service, lock_prefix, clock) as watch:
                    (_draw if sys.stdout.isatty() else _print_changes)(service, watch.seen())
            except Interrupted as ended:  # the usual end of a watch
                return ended.exit_code
            return 0  # standard output was closed
        view, instances = observe(consul, service, clock.now()), consul.instances(service)[1]
        suspects = find_all_suspects(consul, service, lock_prefix)
        look_for_stopped(settings, consul, defined_here(settings, service))
    if current().as_json:
        show_document(document(service, view, instances, suspects))
        return 0
    for line in summary(service, view, instances, suspects):
        show_line(line)
    if found := rows(service, view, instances, suspects):
        show_table(HEADERS, [row.cells for row in found])
    else:
        show_line(f"no host has an instance of {service} or has published a state of it")
    return 0


def _draw(service: str, moments: Iterable[Seen]) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        for seen in moments:
            lines = [Text(line) for line in summary(service, seen.view, seen.instances, _suspects(seen))]
            if seen.trouble:
                lines.append(Text(f"{seen.trouble}. What follows may be out of date", style="yellow"))
            cells = [row.cells for row in rows(service, seen.view, seen.instances, _suspects(seen))]
            shown = table(HEADERS, cells, live.console.width)
            live.update(Group(*lines, shown), refresh=True)


def _print_changes(service: str, moments: Iterable[Seen]) -> None:
    """Print every row once, then rows that change or vanish, and each new line of the summary; for a pipe."""
    before: dict[str, tuple[str, ...]] | None = None
    told: list[str] = []
    is_troubled = False
    for seen in moments:
        if seen.trouble:
            if not is_troubled:
                show_warning(f"{seen.trouble}. Waiting for it")
            is_troubled = True
            continue
        is_troubled = False
        suspects = _suspects(seen)
        lines = list(summary(service, seen.view, seen.instances, suspects))
        now = {row.host: row.cells for row in rows(service, seen.view, seen.instances, suspects)}
        for line in lines:
            if line not in told:
                show_line(line)
        if before is None:
            show_table(HEADERS, list(now.values()))
        else:
            for host in sorted(before.keys() | now.keys()):
                if now.get(host) != before.get(host):
                    show_line("\t".join(now.get(host, (host, "gone"))))
        before, told = now, lines
        if current().unprinted is not None:
            return


def _suspects(seen: Seen) -> tuple[HostState, ...]:
    """Return the suspects; none if the lock's name is unknown, because then the lock's holder is unknown too."""
    return () if seen.sessions is None else all_suspects(seen.view.hosts, seen.sessions)
