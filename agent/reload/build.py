"""Build what a reload or a recovery works with from this host's settings and clients."""

import contextlib
import os
from collections.abc import Callable

from agent.clock import Clock, Interrupts
from agent.consul import AgentSelf, Consul
from agent.data import dataclass
from agent.definitions import Settings
from agent.engine.client import Engine
from agent.engine.model import PullProgress
from agent.reload.dependencies import Dependencies
from agent.reload.journal import Journal
from agent.reload.probe import Prober
from agent.reload.record import StepEvent


def engine_of(settings: Settings, clock: Clock) -> contextlib.closing[Engine]:
    return contextlib.closing(Engine(settings.docker.host, os.environ, clock))


def drain_dns(settings: Settings, agent: AgentSelf) -> tuple[tuple[str, int], ...]:
    """Return the DNS servers that clients ask: those set, or else the local agent, unless its DNS is off."""
    if not settings.drain_dns:
        return (agent.dns,) if agent.dns else ()
    split = (server.rpartition(":") for server in settings.drain_dns)
    return tuple((host.strip("[]"), int(port)) for host, _, port in split)


@dataclass(frozen=True)
class HostClients:
    """This host's settings and clients, for reloads of any of its services."""

    settings: Settings
    consul: Consul
    engine: Engine
    agent: AgentSelf
    clock: Clock
    interrupts: Interrupts

    def dependencies(
        self,
        service_id: str,
        report_event: Callable[[StepEvent], None],
        report_pull: Callable[[PullProgress], None] = lambda _progress: None,
    ) -> Dependencies:
        return Dependencies(
            consul=self.consul,
            engine=self.engine,
            agent=self.agent,
            state_dir=self.settings.state_dir,
            journal=Journal(self.settings.state_dir, service_id),
            prober=Prober(is_agent_tls_used=self.agent.is_tls_used_for_checks),
            clock=self.clock,
            interrupts=self.interrupts,
            environ=os.environ,
            drain_dns=drain_dns(self.settings, self.agent),
            report_event=report_event,
            report_pull=report_pull,
            trusts_pins=self.settings.fleet.trust_pins,
            shares_log_tails=self.settings.log.share_tails,
        )
