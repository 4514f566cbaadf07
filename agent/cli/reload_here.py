"""The work of ``svcagent reload``. Slow to import (the Docker SDK), so `reload` imports it after its checks."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agent.cli import context
from agent.cli.maint_output import show_expired_maintenance
from agent.cli.options import current
from agent.cli.output import show_document, show_line, show_warning
from agent.cli.reload_output import (
    REPAIR_OUTPUT,
    Printer,
    show_quarantined,
    show_recovered,
    show_result,
    show_rolled_back,
    waiting_image,
)
from agent.cli.stopped import warn_of_stopped
from agent.cli.textfile import reload_recorded
from agent.clock import Clock, Interrupts
from agent.consul import NODE_MAINTENANCE, SERVICE_MAINTENANCE, Consul
from agent.data import dataclass
from agent.definitions import Definition, ReloadSection, Service, Settings
from agent.engine.client import Engine
from agent.errors import ConsulUnreachable, Denied, Interrupted, SvcagentError
from agent.logs import about
from agent.maintenance import end_expired
from agent.outcomes import Outcome
from agent.reload.build import HostClients, engine_of
from agent.reload.host_lock import HostLock
from agent.reload.journal import Journal
from agent.reload.record import ReloadResult
from agent.reload.recover import read_journal, restore_container
from agent.reload.reload import Reload, ReloadOptions
from agent.reload.repair import repair_one
from agent.text import short_digest

DEFAULT_LOCK_SECONDS = 3600.0


@dataclass(frozen=True)
class ReloadRequest:
    """A requested reload. ``lock_timeout`` is in seconds; None if it was not given. The caller catches signals."""

    settings: Settings
    state_dir: Path
    definition: Definition
    section: ReloadSection
    interrupts: Interrupts
    is_forced: bool
    is_in_maintenance: bool
    lock_timeout: float | None

    @property
    def service(self) -> Service:
        return self.definition.service

    @property
    def options(self) -> ReloadOptions:
        wait = DEFAULT_LOCK_SECONDS if self.lock_timeout is None else self.lock_timeout
        return ReloadOptions(wait, is_forced=self.is_forced, is_in_maintenance=self.is_in_maintenance)

    def host_lock(self, clock: Clock) -> HostLock:
        return HostLock(self.state_dir, self.service.id, clock, self.lock_timeout or 0.0, self.interrupts.allowed)


def reload_here(asked: ReloadRequest) -> int:
    """Recover a crashed reload, then reload; print both and return the exit code."""
    service, settings, clock = asked.service, asked.settings, context.system_clock()
    with (
        about(service=service.name),
        ExitStack() as last,
        # Entered before the lock, so that both run after it is released.
        rollout_notified(settings, service.name, asked.section, asked.interrupts) as notify_begun,
        reload_recorded(settings, service.name) as results,
        asked.host_lock(clock) as lock,
        _end_recorded(lock, service.name, results),
        context.consul(settings) as consul,
        engine_of(settings, clock) as engine,
    ):
        clients = _clients(asked, clock, consul, engine, Journal(asked.state_dir, service.id))
        trouble: SvcagentError | None = None
        try:
            with asked.interrupts.allowed():
                show_expired_maintenance(end_expired(consul, clock, clients.agent.node, {service.id}))
        except SvcagentError as error:
            trouble = error  # the crashed reload must be recovered first
        printer = Printer(service.name, has_container=bool(asked.section.container))
        quietly = clients.dependencies(service.id, lock.recording(Printer(service.name).report_recovery))
        repaired = repair_one(asked.definition, quietly, REPAIR_OUTPUT)
        results += repaired
        if code := show_recovered(repaired):
            if current().as_json:
                show_document(dataclasses.asdict(repaired[-1]))
            return code
        if trouble is not None:
            raise trouble
        dependencies = clients.dependencies(service.id, lock.recording(printer.report_event), printer.report_pull)
        host_reload = Reload(service, asked.section, dependencies, asked.options, notify_begun)
        last.enter_context(about(reload=host_reload.result.id))  # also for what is logged after its end
        results.append(host_reload.run())
        if results[-1].outcome is Outcome.UP_TO_DATE:
            warn_of_stopped(settings, consul, engine, [asked.definition])
        code = show_result(results[-1])
        if results[-1].outcome in (Outcome.ROLLED_BACK, Outcome.ENVIRONMENT):
            show_rolled_back(results[-1], _service_state(consul, service.id))
        show_quarantined(results[-1])
        return code


@contextmanager
def rollout_notified(
    settings: Settings, service: str, reload: ReloadSection, interrupts: Interrupts
) -> Iterator[Callable[[Consul], None]]:
    """Enclose a reload and its locks: notifications about the rollout that are still due are sent after the block.

    Yield what the reload calls when it has found a version to take.
    """
    if not settings.notify.urls:
        yield lambda _consul: None
        return
    from agent.notify.delivery import Deliveries  # most hosts send no notifications
    from agent.reload.rollout_notifier import RolloutNotifier

    clock, config = context.system_clock(), current().config
    deliveries = Deliveries(service, clock, config, show_warning, lambda: interrupts.pending is not None)
    with RolloutNotifier(settings, reload, interrupts, deliveries) as notifier:
        yield notifier.reload_begins


@contextmanager
def _end_recorded(lock: HostLock, service: str, results: list[ReloadResult]) -> Iterator[None]:
    """Record in the lock file how this reload ended, also if an error ends it before it has a result."""
    try:
        yield
    except (SvcagentError, Interrupted) as error:
        failed = ReloadResult(service, "", "", kind=error.kind, error=str(error), exit_code=error.exit_code)
        lock.record_end(*results, failed)
        raise
    lock.record_end(*results)


def check_here(asked: ReloadRequest) -> int:
    """Print whether there is a newer image, without changes; return the exit code."""
    settings, clock = asked.settings, context.system_clock()
    with asked.host_lock(clock), context.consul(settings) as consul, engine_of(settings, clock) as engine:
        clients = _clients(asked, clock, consul, engine)
        dependencies = clients.dependencies(asked.service.id, Printer(asked.service.name).report_event)
        host_reload = Reload(asked.service, asked.section, dependencies, asked.options)
        is_newer, result = host_reload.check(), host_reload.result
    if current().as_json:
        names = ("service", "node", "wanted", "newest", "remark")
        show_document({"is_newer": is_newer, **{name: getattr(result, name) for name in names}})
    elif not is_newer and result.remark:
        show_line(waiting_image(result), "yellow")
    elif is_newer:
        show_line(f"{result.service}: a newer {result.image} is available: {short_digest(result.wanted or '')}")
    else:
        show_line(f"{result.service} is up to date: {short_digest(result.wanted or '')} of {result.image}", "green")
    return 0


def _service_state(consul: Consul, service_id: str) -> str:
    try:
        checks = consul.checks()
    except SvcagentError as error:
        return f"but whether it is in service is unknown: {error}"
    is_out = NODE_MAINTENANCE in checks or f"{SERVICE_MAINTENANCE}{service_id}" in checks
    return "in maintenance; see: svcagent maint status" if is_out else "in service"


def _clients(
    asked: ReloadRequest, clock: Clock, consul: Consul, engine: Engine, journal: Journal | None = None
) -> HostClients:
    """Return this host's clients. If the agent does not answer, at least start the container of a crashed reload."""
    try:
        with asked.interrupts.allowed():
            agent = consul.agent_self()
    except (ConsulUnreachable, Denied):
        if journal is not None and (record := read_journal(journal, show_warning)):
            restore_container(engine, record)
        raise
    return HostClients(asked.settings, consul, engine, agent, clock, asked.interrupts)
