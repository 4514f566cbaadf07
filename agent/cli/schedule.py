import os
import shlex
import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import islice

import click

from agent.cli import context
from agent.cli.options import Count, current, output_options
from agent.cli.output import show_document, show_table, show_warning
from agent.daemon.schedule import Schedule, schedule_of
from agent.daemon.status import read_status
from agent.data import dataclass
from agent.definitions import EXAMPLE_ADDRESS, Definition, Settings, durations
from agent.errors import SvcagentError
from agent.fleet import pause
from agent.maintenance import length


@dataclass(frozen=True)
class Timetable:
    """A service's next runs, in the time zone of its schedule, and why there are none."""

    definition: Definition
    schedule: Schedule | None
    runs: tuple[datetime, ...]
    why: str
    state: str
    """``paused``, ``no daemon`` or ``unknown`` if these runs do not take place, or may not; else empty."""
    held: str
    """The reason; empty if they take place."""


@click.command(
    epilog="\b\nExamples:\n  svcagent schedule\n  svcagent schedule keyword-suggest --count 20\n"
    "  svcagent --json schedule"
)
@click.argument("name", required=False, shell_complete=context.complete_name)
@click.option("--count", type=Count(), default=5, show_default=True, help="Number of runs to show for each service.")
@output_options
def schedule(name: str | None, *, count: int) -> None:
    """Show when svcagent run will reload this host's services next, or why it never will.

    Times are in the time zone of each service's definition and include its jitter, which is constant for one service
    on one host. IN shows "paused" if reloads of the service are paused, "no daemon" if no daemon runs on this host,
    and "unknown" if that cannot be determined. Does not read crontabs. Files with faults are left out (exit code 78;
    with NAME only if NAME is in one of them).
    """
    settings, now = context.settings(), context.system_clock().now()
    found = context.definitions(settings, [name] if name else [], lambda: EXAMPLE_ADDRESS).definitions
    daemon = read_status(settings, context.system_clock())
    without = f"{'whether the daemon runs is' if daemon.is_unknown else 'the daemon'} {daemon.problem}"
    no_daemon = ("unknown" if daemon.is_unknown else "no daemon", without)
    held = partial(_pause, settings, now) if daemon.document is not None else lambda _: no_daemon
    timetables = [
        _timetable(one, now, count, held)
        for one in found
        if not name or any(name in (service.name, service.id) for service in one.services)
    ]
    if current().as_json:
        show_document([document for one in timetables for document in _documents(one)])
    if daemon.document is None and any(one.runs for one in timetables):
        remedy = "" if daemon.is_unknown else "; nothing starts these runs. To start it: systemctl start svcagent"
        show_warning(without + remedy)
    for one in timetables:
        if one.runs and daemon.document is not None and one.held:
            show_warning(f"{one.definition.service.id}: {one.held}", service=one.definition.service.id)
    show_table(("SERVICE", "RUN", "IN", "SCHEDULE"), [row for one in timetables for row in _rows(one, now)])


def _pause(settings: Settings, now: datetime, definition: Definition) -> tuple[str, str]:
    name = definition.service.name
    try:
        with context.consul(settings) as consul:
            found = pause.find(consul, name, now)
    except SvcagentError as error:
        return "unknown", f"unknown whether its reloads are paused: {error}"
    if found is None:
        return "", ""
    return "paused", f"paused {found.describe()}. To resume, run: svcagent resume {shlex.quote(name)}"


def _timetable(
    definition: Definition, now: datetime, count: int, held: Callable[[Definition], tuple[str, str]]
) -> Timetable:
    found = schedule_of(definition, os.uname().nodename, os.environ)
    if found is None:
        what = "reload section" if definition.reload is None else "reload.schedule"
        return Timetable(definition, None, (), f"{definition.file} has no {what}", "", "")
    runs = tuple(run.astimezone(found.zone) for run in islice(found.runs(now), count))
    state, why = held(definition) if runs else ("", "")
    return Timetable(definition, found, runs, "" if runs else found.why_never(), state, why)


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
    return [(service_id, _shown(run), one.state or length(run - now), how) for run in one.runs]


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
            "held": one.held or None,
        }
        for service in one.definition.services
    ]
