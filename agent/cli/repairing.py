"""What ``register``, ``reload`` and ``recover`` do first: bring to its end what an earlier process left behind."""

import contextlib
import os
from collections.abc import Iterable, Iterator

from agent.cli import wiring
from agent.cli.output import show_warning
from agent.cli.reload_output import Printer
from agent.clock import Clock, Interrupts
from agent.consul import AgentSelf, Consul
from agent.definitions import Definition, Settings
from agent.engine import Engine
from agent.errors import LockBusy, SvcagentError
from agent.logs import about
from agent.reload import (
    Edges,
    HostLock,
    Journal,
    Prober,
    Recovery,
    Result,
    abandon,
    find_leftover,
    read_journal,
    revive,
)


@contextlib.contextmanager
def engine_of(settings: Settings, clock: Clock) -> Iterator[Engine]:
    """A connection to this host's engine, closed at the end."""
    engine = Engine(settings.docker.host, os.environ, clock)
    try:
        yield engine
    finally:
        engine.close()


def edges_of(
    settings: Settings,
    consul: Consul,
    engine: Engine,
    agent: AgentSelf,
    definition: Definition,
    interrupts: Interrupts,
    *,
    is_recovery: bool = False,
) -> Edges:
    """The outside world of one definition's reload, or of its recovery."""
    printer = Printer(definition.service.name)
    return Edges(
        consul=consul,
        engine=engine,
        agent=agent,
        state_dir=settings.state_dir,
        journal=Journal(settings.state_dir, definition.service.id),
        prober=Prober(is_agent_tls_used=agent.is_tls_used_for_checks),
        clock=wiring.system_clock(),
        interrupts=interrupts,
        environ=os.environ,
        drain_dns=wiring.drain_dns(settings, agent),
        tell=printer.tell_quietly if is_recovery else printer.tell,
        tell_pull=printer.tell_pull,
        trusts_pins=settings.fleet.trust_pins,
        shares_log_tails=settings.log.share_tails,
    )


def revive_containers(settings: Settings, service_ids: Iterable[str]) -> None:
    """Before Consul can be asked: what a journal tells of a container that does not run is put right at once."""
    clock = wiring.system_clock()
    with engine_of(settings, clock) as engine:
        for service_id in sorted(service_ids):
            try:
                with about(service=service_id), HostLock(settings.state_dir, service_id, clock, 0.0):
                    record = read_journal(Journal(settings.state_dir, service_id), show_warning)
                    if record is not None:
                        revive(engine, record)
            except LockBusy:
                continue  # a living reload's
            except SvcagentError as error:
                show_warning(f"{service_id}: {error}; tried again when Consul is there", service=service_id)


def repair(
    settings: Settings,
    consul: Consul,
    agent: AgentSelf,
    definitions: Iterable[Definition],
    service_ids: Iterable[str],
    interrupts: Interrupts,
) -> list[Result]:
    """Bring to its end what is left of these services; one that fails keeps none of the others from it."""
    clock = wiring.system_clock()
    by_id = {one.service.id: one for one in definitions if one.reload is not None}
    results = []
    with engine_of(settings, clock) as engine:
        for service_id in sorted(service_ids):
            try:
                with about(service=service_id), HostLock(settings.state_dir, service_id, clock, 0.0):
                    if service_id in by_id:
                        edges = edges_of(
                            settings, consul, engine, agent, by_id[service_id], interrupts, is_recovery=True
                        )
                        results += repair_one(by_id[service_id], edges)
                    elif abandon(
                        consul, engine, Journal(settings.state_dir, service_id), agent.node, service_id, show_warning
                    ):
                        show_warning(
                            f"{service_id}: what a dead reload left of it is seen to; none is defined any more"
                        )
            except LockBusy:
                continue  # a living reload's
            except SvcagentError as error:
                results.append(Result.failed(service_id, agent.node, error))
    return results


def repair_one(definition: Definition, edges: Edges) -> list[Result]:
    """The same for one service, whose `HostLock` the caller has; empty when nothing was left."""
    assert definition.reload is not None  # noqa: S101 - for mypy: the caller asks for such definitions only
    with about(service=definition.service.name):
        leftover = find_leftover(definition.service, definition.reload, edges, show_warning)
        if leftover is None:
            return []
        recovery = Recovery(definition.service, definition.reload, edges, leftover)
        with about(reload=recovery.result.id):
            return [recovery.run()]
