"""The host to examine: its settings, definitions, and connections to its servers."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import field
from pathlib import Path

from agent.clock import Clock
from agent.consul import Consul
from agent.consul.survey import ConsulSurvey
from agent.data import dataclass
from agent.definitions import ContainerRestart, Definition, ReloadSection, Service, Settings
from agent.engine.client import Engine
from agent.engine.survey import EngineSurvey
from agent.errors import Fault


@dataclass(frozen=True)
class ReloadedContainer:
    service: Service
    reload: ReloadSection
    strategy: ContainerRestart


@dataclass(frozen=True)
class ExaminedHost:
    """One host.

    ``definitions`` are the requested ones, from files without a fault. ``faults`` are those of all files. ``names`` are
    the services or CNAMEs that the operator named; empty for all. ``root`` is where the host's file system is mounted.
    """

    settings: Settings
    definitions: tuple[Definition, ...]
    faults: tuple[Fault, ...]
    environ: Mapping[str, str]
    clock: Clock
    names: frozenset[str] = frozenset()
    root: Path = field(default=Path("/"))

    @property
    def services(self) -> tuple[Service, ...]:
        return tuple(service for definition in self.definitions for service in definition.services)

    def concerns(self, service_id: str) -> bool:
        """True unless the operator named other services only."""
        return not self.names or any(service.id == service_id for service in self.services)

    @property
    def reloads(self) -> tuple[tuple[Service, ReloadSection], ...]:
        return tuple((one.service, one.reload) for one in self.definitions if one.reload is not None)

    @property
    def containers(self) -> tuple[ReloadedContainer, ...]:
        return tuple(
            ReloadedContainer(service, reload, reload.strategy)
            for service, reload in self.reloads
            if isinstance(reload.strategy, ContainerRestart)
        )

    # One connection for each thread: the checks run concurrently.

    def consul(self) -> closing[Consul]:
        return closing(Consul(self.settings.consul))

    def engine(self) -> closing[Engine]:
        return closing(Engine(self.settings.docker.host, self.environ, self.clock))

    def consul_survey(self) -> closing[ConsulSurvey]:
        return closing(ConsulSurvey(self.settings.consul))

    def engine_survey(self) -> closing[EngineSurvey]:
        return closing(EngineSurvey(self.settings.docker.host, self.environ))
