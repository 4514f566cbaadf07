"""Recovery of several services' crashed reloads: the first thing that ``register``, ``reload`` and ``recover`` do."""

from collections.abc import Callable, Iterable

from agent.clock import Clock
from agent.data import dataclass
from agent.definitions import Definition, Settings
from agent.errors import Interrupted, LockBusy, SvcagentError, UnexpectedError
from agent.logs import about
from agent.reload.build import HostClients, engine_of
from agent.reload.dependencies import Dependencies
from agent.reload.host_lock import HostLock
from agent.reload.journal import Journal
from agent.reload.record import ReloadResult, StepEvent
from agent.reload.recover import Recovery, find_leftover, read_journal, recover_undefined, restore_container


@dataclass(frozen=True)
class RepairOutput:
    """How recoveries are reported. ``warn`` gets a text and fields, the other functions the service first."""

    warn: Callable[..., None]
    report_bug: Callable[[str, Exception], None]
    report_event: Callable[[str, StepEvent], None]


def revive_containers(settings: Settings, clock: Clock, service_ids: Iterable[str], output: RepairOutput) -> None:
    """Start the containers that a crashed replacement left stopped; needs no Consul."""
    with engine_of(settings, clock) as engine:
        for service_id in sorted(service_ids):
            try:
                with about(service=service_id), HostLock(settings.state_dir, service_id, clock, 0.0):
                    record = read_journal(Journal(settings.state_dir, service_id), output.warn)
                    if record is not None:
                        restore_container(engine, record)
            except LockBusy:
                continue  # a reload runs
            except SvcagentError as error:
                output.warn(f"{service_id}: {error}; svcagent tries again when Consul answers", service=service_id)
            except Exception as error:  # noqa: BLE001 - a bug in one service's recovery must not stop the others
                output.report_bug(service_id, error)


def repair(
    clients: HostClients, definitions: Iterable[Definition], service_ids: Iterable[str], output: RepairOutput
) -> list[ReloadResult]:
    """Recover these services. A failure of one, of any type, does not stop the others."""
    by_id = {one.service.id: one for one in definitions if one.reload is not None}
    node, results = clients.agent.node, list[ReloadResult]()
    for service_id in sorted(service_ids):
        try:
            results += _repair_locked(clients, by_id.get(service_id), service_id, output)
        except LockBusy:
            continue  # a reload runs
        except SvcagentError as error:
            results.append(ReloadResult.failed(service_id, node, error))
        except Exception as error:  # noqa: BLE001 - a bug in one service's recovery must not stop the others
            output.report_bug(service_id, error)
            results.append(ReloadResult.failed(service_id, node, UnexpectedError.of(error, "its recovery")))
    return results


def _repair_locked(
    clients: HostClients, definition: Definition | None, service_id: str, output: RepairOutput
) -> list[ReloadResult]:
    state_dir = clients.settings.state_dir
    with about(service=service_id), HostLock(state_dir, service_id, clients.clock, 0.0) as lock:
        if definition is not None:
            name = definition.service.name
            report = lock.recording(lambda event: output.report_event(name, event))
            try:
                repaired = repair_one(definition, clients.dependencies(service_id, report), output)
            except Interrupted:
                lock.restore_record()
                raise
            lock.record_end(*repaired)
            return repaired
        journal = Journal(state_dir, service_id)
        if recover_undefined(clients.consul, clients.engine, journal, clients.agent.node, service_id, output.warn):
            output.warn(
                f"{service_id}: an unfinished reload is rolled back; no valid definition manages the service any more"
            )
        return []


def repair_one(definition: Definition, dependencies: Dependencies, output: RepairOutput) -> list[ReloadResult]:
    """Recover one service, whose `HostLock` the caller holds; return an empty list if nothing needed recovery."""
    assert definition.reload is not None  # noqa: S101 - for mypy: the caller asks for such definitions only
    with about(service=definition.service.name):
        leftover = find_leftover(definition.service, definition.reload, dependencies, output.warn)
        if leftover is None:
            return []
        recovery = Recovery(definition.service, definition.reload, dependencies, leftover)
        with about(reload=recovery.result.id):
            return [recovery.run()]
