"""All reloads of this host: the daemon's own, those of others, retries and recovery.

Everything runs in the event loop's thread. Outcomes come from lock files and exit codes, never from logs.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.clock import Clock
from agent.daemon.convergence_log import HeldMaintenance
from agent.daemon.host_reloads import HostReloads
from agent.daemon.reloads import Reloads, Retries, RunningReload, is_unfinished
from agent.daemon.status import ReloadStatus
from agent.daemon.subprocesses import EndedProcess, Launcher
from agent.definitions import Definition
from agent.logs import INFO, WARNING, log, log_bug
from agent.maintenance import is_of_reload
from agent.outcomes import Outcome
from agent.reload.host_lock import HostLock, HostReload
from agent.reload.journal import journalled

if TYPE_CHECKING:  # slow to import, and large
    from agent.metrics.exposition import Metrics


class Supervisor:
    """Follows all reloads, and runs the daemon's own.

    ``start`` begins a task and reports its exceptions. ``begin`` gets each reload to retry. ``changed`` is called when
    a child begins or ends.
    """

    def __init__(
        self,
        launcher: Launcher,
        state_dir: Path,
        clock: Clock,
        start: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        begin: Callable[[str, str], None],
        changed: Callable[[], None],
        metrics: "Metrics | None",
    ) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._changed = changed
        self._metrics = metrics
        self._children = Reloads(launcher, clock, self._child_ended, start)
        self._on_host = HostReloads(state_dir, clock)
        self._retries = Retries(
            lambda service_id: begin(service_id, "retry"),
            jitter=lambda: random.uniform(0.8, 1.0),  # noqa: S311 - a pause is no secret
        )
        self._names: dict[str, str] = {}
        self._reloadable: frozenset[str] = frozenset()
        self._out: frozenset[str] = frozenset()
        self._results: dict[str, Mapping[str, Any]] = {}

    def converged(self, definitions: Sequence[Definition], out: Sequence[HeldMaintenance]) -> None:
        """Update the definitions in force, and what is in maintenance."""
        self._names = {one.service.id: one.service.name for one in definitions}
        self._reloadable = frozenset(one.service.id for one in definitions if one.reload is not None)
        self._out = frozenset(one.target.service_id for one in out if is_of_reload(one.maintenance, one.target.node))

    def begin(self, service_id: str, why: str) -> None:
        """Run a reload, unless one of the service is running or nothing defines it any more."""
        if service_id in self._reloadable and self._children.begin(service_id, why):
            self._changed()

    def interrupted(self) -> frozenset[str]:
        """Return the services whose last reload found something to do and was interrupted."""
        return self._on_host.interrupted()

    def crashed(self) -> frozenset[str]:
        """Return the services whose reload left a journal or maintenance, and is not running.

        The journal is read again after the process check, because a reload removes it before it ends.
        """
        suspects = (journalled(self._state_dir) | self._out) - self._children.running.keys()
        locks = {one: HostLock(self._state_dir, one, self._clock, 0.0) for one in suspects}
        crashed = {one for one, lock in locks.items() if lock.holder() is None}
        return frozenset(crashed & (journalled(self._state_dir) | self._out))

    def unrecovered(self) -> dict[str, str]:
        """Return the services whose crashed reload is not recovered yet, and why."""
        results = {one: self._results.get(one, {}) for one in sorted(self.crashed())}
        return {one: str(got.get("error") or "its reload crashed").partition("\n")[0] for one, got in results.items()}

    def status(self) -> tuple[ReloadStatus, ...]:
        found = []
        for service_id in sorted(self._children.running.keys() | self._on_host.running.keys()):
            record, own = self._on_host.running.get(service_id), self._children.running.get(service_id)
            if record is not None:
                why = own.why if own is not None and own.token == record.token else ""
                since = datetime.fromisoformat(record.since)
                found.append(ReloadStatus(service_id, record.step, record.text, since, why, record.pid, record.reload))
            elif own is not None:
                pid = None if own.child is None else own.child.pid
                found.append(ReloadStatus(service_id, "", "", own.since, own.why, pid))
        return tuple(found)

    def follow(self) -> None:
        """Update from the lock files of this host's reloads."""
        for service_id, record in self._on_host.update():
            self._ended(service_id, record)
        running = self._on_host.running
        for service_id, record in running.items():
            self._children.reached(service_id, record.step)
        self._measure(lambda metrics: metrics.reloads_run((self._name(one), record) for one, record in running.items()))

    def retry_recovered(self, service_id: str) -> None:
        """Retry a reload whose instance was recovered: its version is still wanted."""
        if service_id in self._reloadable and not self._retries.is_pending(service_id):
            self._retry(service_id)

    async def stop(self, seconds: float) -> frozenset[str]:
        """Stop the daemon's own reloads. Return the services of those still running after ``seconds``."""
        self._retries.stop()
        return await self._children.stop(seconds)

    def _ended(self, service_id: str, record: HostReload) -> None:
        crashed = {"service": self._name(service_id), "exit_code": 1, "error": "its reload crashed"}
        for result in record.results or (crashed,):
            before = self._results.get(service_id, {})
            self._results[service_id] = result
            # Recovery is retried until it succeeds; the same result of a further attempt is not counted again.
            if not (
                result.get("outcome") == before.get("outcome") == Outcome.STRANDED
                and result.get("id") == before.get("id")
            ):
                self._count(result)

    def _child_ended(self, reload: RunningReload, ended: EndedProcess) -> None:
        service_id = reload.service_id
        self._changed()
        record = self._on_host.record_of(service_id, reload.token)
        if record is not None and record.results:
            result = record.results[-1]
        else:
            result = {"service": self._name(service_id), "exit_code": ended.status}
            if record is None:
                self._count(result)
        # A reload that ended by itself has logged why.
        is_killed = ended.status < 0
        log(
            f"its reload was killed by signal {-ended.status}; svcagent recovers it" if is_killed else "",
            level=WARNING if is_killed else INFO,
            service=result.get("service"),
            reload=result.get("id"),
            outcome=result.get("outcome"),
            exit_code=ended.status,
            why=reload.why,
        )
        if self._children.is_stopping or not is_unfinished(result):
            self._retries.reset(service_id)
        else:
            self._retry(service_id, result.get("retry_after") or 0.0)

    def _retry(self, service_id: str, at_least: float = 0.0) -> None:
        seconds = self._retries.failed(service_id, at_least)
        log(f"the reload is retried in {seconds:.0f} s", service=service_id)

    def _name(self, service_id: str) -> str:
        return self._names.get(service_id, service_id)

    def _count(self, result: Mapping[str, Any]) -> None:
        self._measure(lambda metrics: metrics.reload_ended(result))

    def _measure(self, update: "Callable[[Metrics], None]") -> None:
        """Update metrics. A failure must not stop the daemon from following the reload."""
        if self._metrics is None:
            return
        try:
            update(self._metrics)
        except Exception as error:  # noqa: BLE001 - a bug in a metric must not stop the daemon
            log_bug("updating metrics: a bug in svcagent; please report it", error)
