"""Recovery of crashed reloads: the first thing that ``register``, ``reload`` and ``recover`` do."""

import contextlib
import dataclasses
import os
from collections.abc import Collection, Iterable, Iterator

from agent.cli import context
from agent.cli.output import show_bug_of, show_warning
from agent.cli.reload_output import Printer
from agent.cli.stopped import look_for_stopped
from agent.clock import Clock, Interrupts
from agent.consul import AgentSelf, Consul
from agent.daemon.last_good import usable
from agent.definitions import Definition, Settings
from agent.engine.client import Engine
from agent.errors import BadDefinition, Fault, LockBusy, SvcagentError, Unforeseen
from agent.logs import about
from agent.reload.dependencies import Dependencies
from agent.reload.host_lock import HostLock
from agent.reload.journal import Journal, journalled
from agent.reload.probe import Prober
from agent.reload.record import ReloadResult
from agent.reload.recover import Recovery, find_leftover, read_journal, recover_undefined, restore_container


@contextlib.contextmanager
def engine_of(settings: Settings, clock: Clock) -> Iterator[Engine]:
    engine = Engine(settings.docker.host, os.environ, clock)
    try:
        yield engine
    finally:
        engine.close()


def dependencies_of(
    settings: Settings,
    consul: Consul,
    engine: Engine,
    agent: AgentSelf,
    definition: Definition,
    interrupts: Interrupts,
    *,
    is_recovery: bool = False,
) -> Dependencies:
    printer = Printer(definition.service.name)
    return Dependencies(
        consul=consul,
        engine=engine,
        agent=agent,
        state_dir=settings.state_dir,
        journal=Journal(settings.state_dir, definition.service.id),
        prober=Prober(is_agent_tls_used=agent.is_tls_used_for_checks),
        clock=context.system_clock(),
        interrupts=interrupts,
        environ=os.environ,
        drain_dns=context.drain_dns(settings, agent),
        report_event=printer.report_quietly if is_recovery else printer.report_event,
        report_pull=printer.report_pull,
        trusts_pins=settings.fleet.trust_pins,
        shares_log_tails=settings.log.share_tails,
    )


def revive_containers(settings: Settings, service_ids: Iterable[str]) -> None:
    """Start the containers that a crashed replacement left stopped; needs no Consul."""
    clock = context.system_clock()
    with engine_of(settings, clock) as engine:
        for service_id in sorted(service_ids):
            try:
                with about(service=service_id), HostLock(settings.state_dir, service_id, clock, 0.0):
                    record = read_journal(Journal(settings.state_dir, service_id), show_warning)
                    if record is not None:
                        restore_container(engine, record)
            except LockBusy:
                continue  # a reload runs
            except SvcagentError as error:
                show_warning(f"{service_id}: {error}; tried again when Consul answers", service=service_id)
            except Exception as error:  # noqa: BLE001 - a bug in one service's recovery must not stop the others
                show_bug_of(service_id, error)


def recover_usable(
    settings: Settings, names: Collection[str] | None, interrupts: Interrupts
) -> tuple[list[ReloadResult], tuple[Fault, ...]]:
    """Recover the services of good files; return the results, and the faults of the other files.

    ``names`` are names or IDs of services; None for all that are defined or have a journal.

    :raises click.BadParameter: a name is not defined and has no journal.
    """
    with context.consul(settings) as consul:
        agent = consul.agent_self()
        choice = usable(settings.services_dir, context.values(agent.address))
        services = [one.service for one in choice.definitions if one.reload is not None]
        # A faulty file may define a service that no good file defines, so such a journal is not orphaned.
        unfinished = frozenset[str]() if choice.faults else journalled(settings.state_dir)
        chosen = {one.id for one in services} | unfinished
        if names is not None:
            for name in names:
                if name not in unfinished and not any(name in (one.name, one.id) for one in services):
                    if choice.faults:
                        raise BadDefinition(list(choice.faults))
                    raise context.unknown_name(name, choice.definitions, settings.services_dir)
            chosen = {one.id for one in services if {one.id, one.name} & set(names)} | (unfinished & set(names))
        results = repair(settings, consul, agent, choice.definitions, chosen, interrupts)
        look_for_stopped(settings, consul, (one for one in choice.definitions if one.service.id in chosen))
        return results, choice.faults


def repair(
    settings: Settings,
    consul: Consul,
    agent: AgentSelf,
    definitions: Iterable[Definition],
    service_ids: Iterable[str],
    interrupts: Interrupts,
) -> list[ReloadResult]:
    """Recover these services. A failure of one, of any type, does not stop the others."""
    clock = context.system_clock()
    by_id = {one.service.id: one for one in definitions if one.reload is not None}
    results = []
    with engine_of(settings, clock) as engine:
        for service_id in sorted(service_ids):
            try:
                with about(service=service_id), HostLock(settings.state_dir, service_id, clock, 0.0) as lock:
                    if service_id in by_id:
                        deps = dependencies_of(
                            settings, consul, engine, agent, by_id[service_id], interrupts, is_recovery=True
                        )
                        recording = lock.recording(deps.report_event)
                        repaired = repair_one(by_id[service_id], dataclasses.replace(deps, report_event=recording))
                        lock.record_end(*repaired)
                        results += repaired
                    elif recover_undefined(
                        consul, engine, Journal(settings.state_dir, service_id), agent.node, service_id, show_warning
                    ):
                        show_warning(
                            f"{service_id}: an unfinished reload is rolled back; no good definition manages the "
                            "service any more"
                        )
            except LockBusy:
                continue  # a reload runs
            except SvcagentError as error:
                results.append(ReloadResult.failed(service_id, agent.node, error))
            except Exception as error:  # noqa: BLE001 - a bug in one service's recovery must not stop the others
                show_bug_of(service_id, error)
                results.append(ReloadResult.failed(service_id, agent.node, Unforeseen.of(error, "its recovery")))
    return results


def repair_one(definition: Definition, deps: Dependencies) -> list[ReloadResult]:
    """Recover one service, whose `HostLock` the caller holds; return an empty list if nothing needed recovery."""
    assert definition.reload is not None  # noqa: S101 - for mypy: the caller asks for such definitions only
    with about(service=definition.service.name):
        leftover = find_leftover(definition.service, definition.reload, deps, show_warning)
        if leftover is None:
            return []
        recovery = Recovery(definition.service, definition.reload, deps, leftover)
        with about(reload=recovery.result.id):
            return [recovery.run()]
