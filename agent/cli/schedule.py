"""``svcagent schedule``."""

import os
import sys
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import click

from agent.cli import wiring
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_table
from agent.daemon.schedule import Schedule, schedule_of
from agent.definitions import ANY_ADDRESS, Definition, durations
from agent.maintenance import length


@dataclass(frozen=True)
class Timetable:
    """A service's next runs, in the zone of its schedule, and why there are none."""

    definition: Definition
    schedule: Schedule | None
    runs: tuple[datetime, ...]
    why: str


@click.command(
    epilog="\b\nExamples:\n  svcagent schedule\n  svcagent schedule keyword-suggest --count 20\n"
    "  svcagent --json schedule"
)
@click.argument("name", required=False, shell_complete=wiring.complete_name)
@click.option("--count", type=click.IntRange(min=1), default=5, show_default=True, help="How many runs of a service.")
@output_options
def schedule(name: str | None, *, count: int) -> None:
    """Show when svcagent run will reload this host's services next, or why it never will.

    Times are in the time zone of each service's definition and include its jitter, which is always the same for one
    service on one host. Asks neither Consul nor a running daemon, and does not read cron's own tables. Files with
    faults are left out (exit code 78; with NAME only if NAME is in one of them).
    """
    settings, now = wiring.settings(), wiring.system_clock().now()
    found = wiring.definitions(settings, [name] if name else [], lambda: ANY_ADDRESS).definitions
    timetables = [
        _timetable(one, now, count)
        for one in found
        if not name or any(name in (service.name, service.id) for service in one.services)
    ]
    if current().as_json:
        show_document([document for one in timetables for document in _documents(one)])
    show_table(("SERVICE", "RUN", "IN", "SCHEDULE"), [row for one in timetables for row in _rows(one, now)])


def _timetable(definition: Definition, now: datetime, count: int) -> Timetable:
    found = schedule_of(definition, os.uname().nodename, os.environ)
    if found is None:
        what = "reload section" if definition.reload is None else "reload.schedule"
        return Timetable(definition, None, (), f"{definition.file} has no {what}")
    runs = tuple(run.astimezone(found.zone) for run in islice(found.runs(now), count))
    return Timetable(definition, found, runs, "" if runs else found.why_never())


def _rows(one: Timetable, now: datetime) -> list[tuple[str, ...]]:
    if one.schedule is None:
        return [(service.id, "-", "-", one.why) for service in one.definition.services]
    service_id = one.definition.service.id
    if not one.runs:
        return [(service_id, "never", "-", one.why)]
    how = one.schedule.expression
    if one.schedule.offset:
        how += f" + {durations.text(one.schedule.offset.total_seconds())}"
    if one.schedule.windows:
        how += f" in {', '.join(window.text for window in one.schedule.windows)}"
    return [(service_id, _shown(run), length(run - now), how) for run in one.runs]


def _shown(run: datetime) -> str:
    return f"{run:%a %Y-%m-%d %H:%M:%S %Z}" if sys.stdout.isatty() else run.isoformat(timespec="milliseconds")


def _documents(one: Timetable) -> list[dict[str, object]]:
    reload = one.definition.reload
    return [
        {
            "service": service.id,
            "schedule": reload and reload.schedule,
            "timezone": one.schedule and str(one.schedule.zone),
            "offset_seconds": one.schedule and one.schedule.offset.total_seconds(),
            "windows": [window.text for window in reload.windows] if reload else [],
            "runs": [run.isoformat(timespec="milliseconds") for run in one.runs],
            "why": one.why or None,
        }
        for service in one.definition.services
    ]
