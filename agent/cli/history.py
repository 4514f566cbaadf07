import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from agent.cli import context
from agent.cli.fleet_input import service_of
from agent.cli.fleet_output import first_line, moment, short
from agent.cli.maint_output import shown
from agent.cli.options import Count, current, output_options
from agent.cli.output import GAP, show_document, show_line, show_table, show_warning
from agent.definitions import Settings
from agent.errors import ConsulUnreachable
from agent.fleet import Past
from agent.fleet import history as pasts
from agent.outcomes import Outcome
from agent.text import clean

SLOWEST = 3


@click.command(
    epilog="\b\nExamples:\n"
    "  svcagent history keyword-suggest\n"
    "  svcagent history keyword-suggest --host host2 --limit 5\n"
    "  svcagent --json history keyword-suggest"
)
@click.argument("name", shell_complete=context.complete_name)
@click.option("--host", metavar="NODE", help="Only this host, by its name in Consul.")
@click.option("--limit", type=Count(), default=20, show_default=True, help="Maximum number of reloads to show.")
@output_options
def history(name: str, *, host: str | None, limit: int) -> int:
    """Show past reloads of NAME on all hosts, newest first, with the seconds of each step.

    Each host keeps its last 20 reloads in Consul and its last 200 on disk. A terminal shows the error, or else the
    longest steps, as far as they fit; -v, a pipe and --json show everything. If Consul does not answer, shows what this
    host has on disk and exits 69.
    """
    settings = context.settings()
    with context.consul(settings) as consul:
        try:
            service = service_of(settings, consul, name)
            found = pasts.read(consul, service, limit, host)
            hosts = pasts.hosts(consul, service) if host and not found else ()
        except ConsulUnreachable as error:
            show_warning(f"{error}. Showing only what this host has on disk")
            found = _from_disk(settings, name, limit, host)
            _show(found, _unknown(name, host))
            return error.exit_code
    _show(found, _unknown(name, host, hosts))
    return 0


def _unknown(name: str, host: str | None, hosts: Sequence[str] = ()) -> str:
    """Return that there is no past reload, and the ``hosts`` that have one."""
    where = f" on {host}" if host else ""
    there = f"; there are some on: {', '.join(hosts)}{context.did_you_mean(host or '', hosts)}" if hosts else ""
    return f"no reload of {name}{where} is known{there}"


def _from_disk(chosen: Settings, name: str, limit: int, host: str | None) -> list[Past]:
    found = pasts.read_from_disk(context.state_directory(chosen, is_needed=False), name, limit)
    return [past for past in found if host in (None, past.node)]


def _show(found: list[Past], unknown: str) -> None:
    if current().as_json:
        show_document([_document(past) for past in found])
        return
    if not found:
        show_line(unknown)
        return
    is_short = sys.stdout.isatty() and not current().verbose
    columns: dict[str, Callable[[Past], str]] = {
        "BEGAN": lambda past: shown(past.began) if past.began else "-",
        "HOST": lambda past: past.node or "-",
        "OUTCOME": _outcome,
        **({} if is_short else {"FROM": lambda past: short(past.before)}),
        "TO": lambda past: short(past.after),
        "SECONDS": lambda past: f"{past.seconds:.1f}",
        **(
            {"DETAIL": _detail}
            if is_short
            else {"STEPS": lambda past: _steps(past.steps), "ERROR": lambda past: first_line(past.error) or "-"}
        ),
    }
    show_table(tuple(columns), [tuple(cell(past) for cell in columns.values()) for past in found])


def _outcome(past: Past) -> str:
    """Return the outcome; of a recovery also whether it restored the old version."""
    is_rolled_back = past.outcome == Outcome.RECOVERED and past.running not in ("", past.after)
    return f"{past.outcome} (rolled back)" if is_rolled_back else past.outcome


def _steps(steps: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{step} {seconds:.2f}" for step, seconds in steps) or "-"


def _detail(past: Past) -> str:
    """Return the error, or else the steps that took longest, in one line of a terminal."""
    slowest = sorted(past.steps, key=lambda step: step[1], reverse=True)[:SLOWEST]
    return clean(first_line(past.error) or _steps(slowest), shutil.get_terminal_size().columns - GAP)


def _document(past: Past) -> dict[str, Any]:
    return {
        "id": past.id,
        "host": past.node,
        "began": moment(past.began),
        "outcome": past.outcome,
        "image": past.image,
        "from": past.before or None,
        "to": past.after or None,
        "running": past.running or None,
        "seconds": round(past.seconds, 3),
        "steps": [{"step": step, "seconds": seconds} for step, seconds in past.steps],
        "error": past.error or None,
    }
