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
from agent.consul import NODE_MAINTENANCE, LocalService
from agent.daemon.schedule import RELOAD_JOB
from agent.daemon.status import DaemonStatus, read_status
from agent.definitions import Loaded, Settings
from agent.errors import DockerUnreachable
from agent.maintenance import MaintenanceTarget, parse
from agent.registration import is_own
from agent.reload.build import engine_of
from agent.reload.host_lock import HostLock
from agent.reload.journal import journalled
from agent.reload.service_status import ServiceStatus, StatusReader
from agent.reload.unfinished import find_unfinished
from agent.text import quoted_command, short_digest

_RELOAD_FIELDS = ("pid", "began", "step", "since", "text", "place", "reload")
"""The parts of a running reload's record that ``--json`` shows."""


@click.command(epilog="Examples: svcagent status; svcagent --json status keyword-suggest")
@click.argument("name", required=False, shell_complete=context.complete_name)
@output_options
def status(name: str | None) -> int:
    """Show this host's services (health, registration, container, maintenance) and the daemon.

    Also shows pauses, newer images that this host has seen, quarantined versions, crashed reloads that are not
    recovered yet, and registrations that no definition defines. Exits 69 if Docker does not answer, and 1 if Docker or
    Consul's KV refuses; shows the rest anyway. Files with faults are left out (exit code 78; with NAME only if NAME is
    in one of them).
    """
    settings = context.settings()
    loaded = context.definitions(settings, [name] if name else [])
    wanted = [
        (definition, service)
        for definition in loaded.definitions
        for service in definition.services
        if not name or name in (service.id, service.name)
    ]
    clock = context.system_clock()
    with context.consul(settings) as consul, engine_of(settings, clock) as engine:
        there, checks = consul.services_and_checks({service.id: service.name for _definition, service in wanted})
        host_maintenance = parse(checks[NODE_MAINTENANCE].notes) if NODE_MAINTENANCE in checks else None
        node = consul.agent_self().node
        reader = StatusReader(consul, engine, settings.state_dir, clock, node, host_maintenance)
        rows = [reader.read(service, there.get(service.id), definition.reload) for definition, service in wanted]
        errors = {str(error): error for row in rows for error in row.errors}
        if not any(isinstance(error, DockerUnreachable) for error in errors.values()):
            warn_of_stopped(settings, consul, engine, (definition for definition, _service in wanted))
    defined = {service.id for definition in loaded.definitions for service in definition.services}
    undefined = [] if name else [one for one in there.values() if one.id not in defined and is_own(one)]
    _show(settings, node, rows, undefined, loaded, is_all=not name)
    for text in errors:
        show_warning(text)
    return max((error.exit_code for error in errors.values()), default=0)


def _show(
    settings: Settings,
    node: str,
    rows: Sequence[ServiceStatus],
    undefined: Sequence[LocalService],
    loaded: Loaded,
    *,
    is_all: bool,
) -> None:
    clock = context.system_clock()
    daemon, ids = read_status(settings, clock), [row.service for row in rows]
    running = _running(settings, clock, ids)
    if current().as_json:
        show_document(
            {
                "services": [_document(row) for row in rows],
                "undefined": sorted(one.id for one in undefined),
                "reloads": running,
                "daemon": daemon.document,
                "daemon_problem": daemon.problem or None,
            }
        )
    show_table(
        ("SERVICE", "STATE", "REGISTRATION", "CHECKS", "CONTAINER", "DIGEST", "MAINTENANCE"),
        [_cells(row, node) for row in rows],
    )
    for warning in _unfinished(settings, clock, rows, is_all=is_all):
        show_warning(warning)
    for one in running:
        since = shown(datetime.fromisoformat(one["since"]))
        text = f", {one['text']}" if one["text"] else ""
        show_line(f"reload of {one['service']} (pid {one['pid']}): step {one['step']} since {since}{text}")
    for row in rows:
        for line in _notes(row):
            show_line(f"{row.service}: {line}")
    for service in sorted(undefined, key=lambda one: one.id):
        show_line(f"{service.id}: {_why_undefined(service, loaded)}")
    for line in _daemon_lines(daemon, set(ids), is_all=is_all):
        show_line(line)


def _why_undefined(service: LocalService, loaded: Loaded) -> str:
    if files := loaded.files_in_doubt(service.id, service.name):
        return f"{', '.join(files)} may define it and has errors: the registration is not changed. Correct that file"
    how = quoted_command(["svcagent", "deregister", service.id])
    return f"registered, but no definition defines it. To remove it, run: {how}"


def _unfinished(settings: Settings, clock: Clock, rows: Sequence[ServiceStatus], *, is_all: bool) -> Iterator[str]:
    """Yield the reloads that are not recovered yet, also those of services that are not defined any more."""
    found = [row.unfinished for row in rows]
    if is_all:
        others = sorted(journalled(settings.state_dir) - {row.service for row in rows})
        found += [find_unfinished(settings.state_dir, one, clock) for one in others]
    yield from (f"{one.what}. T{one.remedy[1:]}" for one in found if one is not None)


def _cells(row: ServiceStatus, node: str) -> tuple[str, ...]:
    held = [row.maintenance.describe()] if row.maintenance else []
    held += [f"{MaintenanceTarget(node)}: {row.host_maintenance.describe()}"] if row.host_maintenance else []
    is_there = row.state != "absent"
    return (
        row.service,
        row.state,
        {"absent": "not registered", "foreign": "not svcagent's"}.get(row.registration, row.registration),
        f"{row.passing}/{row.checks} passing" if is_there else "-",
        f"{row.container} ({row.container_state})" if row.container else "-",
        short_digest(row.digest) if row.digest else "unknown" if row.container else "-",
        "; ".join(held) or "-",
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
        "host_maintenance": details(row.host_maintenance),
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
    for service_id, why in found.get("unrecovered", {}).items():
        if is_all or service_id in ids:
            yield f"daemon: {service_id} is not recovered yet: {why}"
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
            public = {name: getattr(said, name) for name in _RELOAD_FIELDS}
            found.append({"service": service_id, **public, "is_daemons": bool(said.token)})
    return found
