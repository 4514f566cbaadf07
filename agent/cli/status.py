import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from agent.cli import context
from agent.cli.maint_output import shown
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_table, show_warning
from agent.cli.stopped import warn_of_stopped
from agent.clock import Clock
from agent.consul import LocalService
from agent.daemon.schedule import RELOAD_JOB
from agent.daemon.status_file import DaemonStatus, read_status
from agent.data import dataclass
from agent.definitions import ContainerRestart, ReloadSection, Service, Settings
from agent.engine.client import Engine
from agent.engine.model import Fetched
from agent.errors import Denied, Unreachable
from agent.fleet import SeenDigests
from agent.maintenance import parse
from agent.registration import is_current, is_own
from agent.reload.host_lock import HostLock
from agent.text import short_digest


@dataclass
class StatusRow:
    service: str
    state: str
    registration: str
    checks: str
    container: str
    digest: str
    maintenance: str


@click.command(epilog="Examples: svcagent status; svcagent --json status keyword-suggest")
@click.argument("name", required=False, shell_complete=context.complete_name)
@output_options
def status(name: str | None) -> int:
    """Show what this host's services are doing: health, registration, container, maintenance. And the daemon.

    The exit code is 69 when Docker cannot be reached, and 1 when it refuses; what Consul says is shown all the same.
    Files with faults are left out (exit code 78; with NAME only if NAME is in one of them).
    """
    settings = context.settings()
    found = context.definitions(settings, [name] if name else []).definitions
    wanted = [
        (definition, service)
        for definition in found
        for service in definition.services
        if not name or name in (service.id, service.name)
    ]
    rows, trouble = [], None
    with (
        context.consul(settings) as consul,
        contextlib.closing(Engine(settings.docker.host, os.environ, context.system_clock())) as engine,
    ):
        there = consul.services({service.id: service.name for _definition, service in wanted})
        for definition, service in wanted:
            row = _row(service, there.get(service.id))
            if definition.reload is not None:
                try:
                    fetched = SeenDigests(settings.state_dir, service.name).fetched()
                    row.container, row.digest = _container(engine, definition.reload, fetched)
                except (Unreachable, Denied) as error:
                    trouble = error
                    row.container = "unknown"
            rows.append(row)
        if trouble is None:
            warn_of_stopped(consul, engine, (definition for definition, _service in wanted))
    _show(settings, rows, [service.id for _definition, service in wanted], is_all=not name)
    if trouble is not None:
        show_warning(str(trouble))
        return trouble.exit_code
    return 0


def _show(settings: Settings, rows: Sequence[StatusRow], ids: Sequence[str], *, is_all: bool) -> None:
    daemon = read_status(settings, context.system_clock())
    running = _running(settings, context.system_clock(), ids)
    if current().as_json:
        show_document(
            {
                "services": [asdict(row) for row in rows],
                "reloads": running,
                "daemon": daemon.document,
                "daemon_problem": daemon.problem or None,
            }
        )
    show_table(
        ("SERVICE", "STATE", "REGISTRATION", "CHECKS", "CONTAINER", "DIGEST", "MAINTENANCE"),
        [tuple(asdict(row).values()) for row in rows],
    )
    for one in running:
        since = shown(datetime.fromisoformat(one["since"]))
        text = f", {one['text']}" if one["text"] else ""
        show_line(f"reload of {one['service']} (pid {one['pid']}): step {one['step']} since {since}{text}")
    for line in _daemon_lines(daemon, set(ids), is_all=is_all):
        show_line(line)


def _daemon_lines(daemon: DaemonStatus, ids: set[str], *, is_all: bool) -> Iterator[str]:
    """Yield whether the daemon runs, what it does, and its next runs for these services, or for all."""
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


def _row(service: Service, found: LocalService | None) -> StatusRow:
    if found is None:
        return StatusRow(service.id, "absent", "not registered", "-", "-", "-", "-")
    passing = sum(check.status == "passing" for check in found.real_checks)
    if found.maintenance is not None:
        state = "maintenance"
    else:
        statuses = {check.status for check in found.real_checks}
        state = next((bad for bad in ("critical", "warning") if bad in statuses), "passing")
    registration = "up to date" if is_current(service, found) else "differs" if is_own(found) else "not svcagent's"
    return StatusRow(
        service=service.id,
        state=state,
        registration=registration,
        checks=f"{passing}/{len(found.real_checks)} passing",
        container="-",
        digest="-",
        maintenance=parse(found.maintenance.notes).describe() if found.maintenance else "-",
    )


def _container(engine: Engine, reload: ReloadSection, fetched: Sequence[Fetched]) -> tuple[str, str]:
    strategy = reload.strategy
    if not isinstance(strategy, ContainerRestart):
        return "-", "-"
    found = engine.find(strategy.container)
    if found is None:
        return f"{strategy.container} (missing)", "-"
    digest = engine.digest_of(found, strategy.image, fetched) or "unknown"
    return f"{strategy.container} ({'running' if found.is_running else 'stopped'})", short_digest(digest)
