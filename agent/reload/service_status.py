"""What one service of this host is doing: health, registration, container, maintenance, and what blocks its reloads."""

from dataclasses import replace
from pathlib import Path

from agent.clock import Clock
from agent.consul import Consul, LocalService
from agent.data import dataclass
from agent.definitions import ContainerRestart, ReloadSection, Service
from agent.engine.client import Engine
from agent.errors import SvcagentError
from agent.fleet import Pause, Quarantine, SeenDigests, pause, quarantine
from agent.maintenance import Maintenance, parse
from agent.registration import is_current, is_own
from agent.reload.unfinished import UnfinishedReload, find_unfinished


@dataclass(frozen=True)
class ServiceStatus:
    """One service. None is what is unknown or does not apply.

    ``state``: passing, warning, critical, maintenance or absent. ``registration``: up to date, differs, foreign (others
    registered it) or absent. ``maintenance`` is its own, ``host_maintenance`` that of the host. ``container_state``:
    running, stopped, missing or unknown. ``digest`` is what it runs, ``newest`` what the tag last stood for, as far as
    this host saw. ``quarantined``: the entries of these two. ``errors`` are those of Docker and of Consul's KV.
    """

    service: str
    state: str = "absent"
    registration: str = "absent"
    passing: int = 0
    checks: int = 0
    maintenance: Maintenance | None = None
    host_maintenance: Maintenance | None = None
    container: str | None = None
    container_state: str | None = None
    digest: str | None = None
    newest: str | None = None
    pause: Pause | None = None
    quarantined: tuple[Quarantine, ...] = ()
    unfinished: UnfinishedReload | None = None
    errors: tuple[SvcagentError, ...] = ()

    @property
    def has_newer(self) -> bool:
        return None not in (self.digest, self.newest) and self.digest != self.newest


class StatusReader:
    """Reads the status of services of this host (``node``, in ``host_maintenance``), and changes nothing."""

    def __init__(
        self,
        consul: Consul,
        engine: Engine,
        state_dir: Path,
        clock: Clock,
        node: str,
        host_maintenance: Maintenance | None,
    ) -> None:
        self._consul = consul
        self._engine = engine
        self._state_dir = state_dir
        self._clock = clock
        self._node = node
        self._host_maintenance = host_maintenance

    def read(self, service: Service, found: LocalService | None, reload: ReloadSection | None) -> ServiceStatus:
        """Return the status of a service, which the agent has as ``found``."""
        status = ServiceStatus(service.id) if found is None else _health(service, found)
        if found is not None and self._host_maintenance is not None:
            status = replace(status, state="maintenance", host_maintenance=self._host_maintenance)
        if reload is None:
            return status
        unfinished = find_unfinished(self._state_dir, service.id, self._clock, status.maintenance, self._node)
        status = replace(status, unfinished=unfinished)
        if isinstance(reload.strategy, ContainerRestart):
            status = self._with_container(status, service, reload.strategy)
        return self._with_blocks(status, service)

    def _with_container(self, status: ServiceStatus, service: Service, strategy: ContainerRestart) -> ServiceStatus:
        seen = SeenDigests(self._state_dir, service.name)
        status = replace(status, container=strategy.container, newest=seen.latest(strategy.image) or None)
        try:
            found = self._engine.find(strategy.container)
            digest = None if found is None else self._engine.digest_of(found, strategy.image, seen.fetched())
        except SvcagentError as error:
            return replace(status, container_state="unknown", errors=(*status.errors, error))
        state = "missing" if found is None else "running" if found.is_running else "stopped"
        return replace(status, container_state=state, digest=digest)

    def _with_blocks(self, status: ServiceStatus, service: Service) -> ServiceStatus:
        try:
            entries = quarantine.read_all(self._consul, service.name)
            held = pause.find(self._consul, service.name, self._clock.now())
        except SvcagentError as error:
            return replace(status, errors=(*status.errors, error))
        quarantined = dict.fromkeys(entries[one] for one in (status.digest, status.newest) if one in entries)
        return replace(status, pause=held, quarantined=tuple(quarantined))


def _health(service: Service, found: LocalService) -> ServiceStatus:
    statuses = [check.status for check in found.real_checks]
    worst = next((bad for bad in ("critical", "warning") if bad in statuses), "passing")
    return ServiceStatus(
        service.id,
        state=worst if found.maintenance is None else "maintenance",
        registration="up to date" if is_current(service, found) else "differs" if is_own(found) else "foreign",
        passing=statuses.count("passing"),
        checks=len(statuses),
        maintenance=None if found.maintenance is None else parse(found.maintenance.notes),
    )
