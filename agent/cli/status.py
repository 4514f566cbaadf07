from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from agent.cli import context
from agent.cli.fleet_output import pause_document, quarantine_document
from agent.cli.maint_output import details, shown
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_table, show_warning
from agent.cli.stopped import warn_of_stopped
from agent.clock import Clock
from agent.daemon.schedule import RELOAD_JOB
from agent.daemon.status import DaemonStatus, read_status
from agent.definitions import Settings
from agent.errors import DockerUnreachable
from agent.registration import is_own
from agent.reload.build import engine_of
from agent.reload.host_lock import HostLock
from agent.reload.service_status import ServiceStatus, StatusReader
from agent.text import quoted_command, short_digest


@click.command(epilog="Examples: svcagent status; svcagent --json status keyword-suggest")
@click.argument("name", required=False, shell_complete=context.complete_name)
@output_options
def status(name: str | None) -> int:
    """Show what this host's services are doing: health, registration, container, maintenance. And the daemon.

    Also shows a pause, a newer image that this host has seen, quarantined versions, and registrations that no
    definition defines. The exit code is 69 when Docker cannot be reached, and 1 when it or Consul's KV refuses; the
    rest is shown all the same. Files with faults are left out (exit code 78; with NAME only if NAME is in one of them).
    """
    settings = context.settings()
    found = context.definitions(settings, [name] if name else []).definitions
    wanted = [
        (definition, service)
        for definition in found
        for service in definition.services
        if not name or name in (service.id, service.name)
    ]
    clock = context.system_clock()
    with context.consul(settings) as consul, engine_of(settings, clock) as engine:
        there = consul.services({service.id: service.name for _definition, service in wanted})
        reader = StatusReader(consul, engine, settings.state_dir, clock.now())
        rows = [reader.read(service, there.get(service.id), definition.reload) for definition, service in wanted]
        errors = {str(error): error for row in rows for error in row.errors}
        if not any(isinstance(error, DockerUnreachable) for error in errors.values()):
            warn_of_stopped(consul, engine, (definition for definition, _service in wanted))
    defined = {service.id for definition in found for service in definition.services}
    undefined = sorted(one for one, service in there.items() if one not in defined and is_own(service) and not name)
    _show(settings, rows, undefined, is_all=not name)
    for text in errors:
        show_warning(text)
    return max((error.exit_code for error in errors.values()), default=0)


def _show(settings: Settings, rows: Sequence[ServiceStatus], undefined: Sequence[str], *, is_all: bool) -> None:
    clock = context.system_clock()
    daemon, ids = read_status(settings, clock), [row.service for row in rows]
    running = _running(settings, clock, ids)
    if current().as_json:
        show_document(
            {
                "services": [_document(row) for row in rows],
                "undefined": undefined,
                "reloads": running,
                "daemon": daemon.document,
                "daemon_problem": daemon.problem or None,
            }
        )
    show_table(
        ("SERVICE", "STATE", "REGISTRATION", "CHECKS", "CONTAINER", "DIGEST", "MAINTENANCE"), list(map(_cells, rows))
    )
    for one in running:
        since = shown(datetime.fromisoformat(one["since"]))
        text = f", {one['text']}" if one["text"] else ""
        show_line(f"reload of {one['service']} (pid {one['pid']}): step {one['step']} since {since}{text}")
    for row in rows:
        for line in _notes(row):
            show_line(f"{row.service}: {line}")
    for service_id in undefined:
        how = quoted_command(["svcagent", "deregister", service_id])
        show_line(f"{service_id}: registered, but no valid definition defines it. To remove it, run: {how}")
    for line in _daemon_lines(daemon, set(ids), is_all=is_all):
        show_line(line)


def _cells(row: ServiceStatus) -> tuple[str, ...]:
    is_there = row.state != "absent"
    return (
        row.service,
        row.state,
        {"absent": "not registered", "foreign": "not svcagent's"}.get(row.registration, row.registration),
        f"{row.passing}/{row.checks} passing" if is_there else "-",
        f"{row.container} ({row.container_state})" if row.container else "-",
        short_digest(row.digest) if row.digest else "unknown" if row.container else "-",
        row.maintenance.describe() if row.maintenance else "-",
    )


def _notes(row: ServiceStatus) -> Iterator[str]:
    why = quoted_command(["svcagent", "why", row.service])
    if row.pause is not None:
        yield f"reloads are paused {row.pause.describe(shown)}"
    if row.has_newer:
        yield f"a newer image was seen: {row.newest}. For what blocks it, run: {why}"
    for one in row.quarantined:
        since = f" since {shown(one.since)}" if one.since else ""
        yield f"{one.digest} is quarantined{since}, {one.node or 'unknown host'}: {one.why.partition(chr(10))[0]}"


def _document(row: ServiceStatus) -> dict[str, object]:
    return asdict(row) | {
        "maintenance": details(row.maintenance),
        "pause": pause_document(row.pause),
        "quarantined": [quarantine_document(one) for one in row.quarantined],
        "has_newer": row.has_newer,
        "errors": [{"kind": error.kind, "error": str(error)} for error in row.errors],
    }


def _daemon_lines(daemon: DaemonStatus, ids: set[str], *, is_all: bool) -> Iterator[str]:
    found = daemon.document
    if found is None:
        yield f"daemon: {daemon.problem}"
        return
    since = shown(datetime.fromisoformat(found["since"]))
    yield f"daemon: runs since {since} (pid {found['pid']}): {found['status']}"
    if daemon.problem:
        yield f"daemon: {daemon.problem}"
    runs = {job: datetime.fromisoformat(at) for job, at in found["next_runs"].items()}
    for job, at in sorted(runs.items(), key=lambda item: item[1]):
        if is_all or (job.startswith(RELOAD_JOB) and job.removeprefix(RELOAD_JOB) in ids):
            yield f"next {job}: {shown(at)}"


def _running(settings: Settings, clock: Clock, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the running reloads of these services on this host, as far as this user may see them."""
    found = []
    for service_id in ids:
        lock = HostLock(settings.state_dir, service_id, clock, 0.0)
        said, holder = lock.read(), lock.holder()
        if said is not None and said.step and not said.results and holder == said.pid:
            found.append({"service": service_id, **asdict(said)})
    return found
