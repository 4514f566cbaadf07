"""``svcagent run``: which work runs when, and in which process or thread. Decisions are made elsewhere.

One asyncio event loop owns all mutable state and never waits for Consul, Docker or another host. One thread converges
the local agent, one watches it, and inotify has its own. Everything heavy or disruptive is a command in a child process
(`children`). There is no polling: an idle loop wakes once in `BEAT_SECONDS`.
"""

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.clock import Clock
from agent.consul import Consul
from agent.daemon.agent_watch import AgentWatch
from agent.daemon.converge import Convergence, ConvergenceThread
from agent.daemon.convergence_log import ConvergenceResult
from agent.daemon.files_watch import FilesWatch, StateWatch
from agent.daemon.housekeeping import STOP_SECONDS, Housekeeping
from agent.daemon.last_good import DIRECTORY
from agent.daemon.schedule import CNAMES, CONVERGENCE, RELOAD_JOB, Schedule, plans_of
from agent.daemon.scheduler import Scheduler
from agent.daemon.status import WRITE_SECONDS, DaemonState, StatusFile
from agent.daemon.subprocesses import Launcher
from agent.daemon.supervisor import Supervisor
from agent.daemon.systemd import Systemd
from agent.definitions import Definition, Settings
from agent.errors import ConsulUnreachable, LockBusy
from agent.files import FileLock
from agent.logs import WARNING, log, log_bug
from agent.reload.journal import journalled

if TYPE_CHECKING:  # slow to import, and large
    from agent.metrics.exposition import Metrics

LOCK_FILE = "daemon.lock"
BEAT_SECONDS = WRITE_SECONDS
THREAD_STOP_SECONDS = 5.0


class Daemon:
    """One host's daemon, to be `run` once. ``options`` are passed to its children before the command."""

    def __init__(self, settings: Settings, clock: Clock, environ: Mapping[str, str], options: Sequence[str]) -> None:
        self._settings = settings
        self._clock = clock
        self._environ = environ
        self._systemd = Systemd(environ)
        self._status_file = StatusFile(settings.daemon.status_file, clock)
        self.metrics: Metrics | None = None
        if settings.daemon.listen:
            from agent.metrics import exposition

            self.metrics = exposition.Metrics(clock)
        # The textfile is for hosts without a daemon. With both, everything would count twice.
        environ = {**environ, "SVCAGENT_TEXTFILE_DIR": ""}
        # Children read the last valid definitions, so that a faulty file stops no reload.
        self._launcher = Launcher([*options, "--services-dir", str(settings.state_dir / DIRECTORY)], environ)
        self._housekeeping = Housekeeping(self._launcher, self.metrics)
        self._reloads = Supervisor(
            self._launcher,
            settings.state_dir,
            clock,
            self._start_watched,
            self._begin,
            self._follow_reloads,
            self.metrics,
        )
        self._scheduler = Scheduler(clock, self._due)
        self._began = clock.now()
        self._result = ConvergenceResult()
        self._converged_at: datetime | None = None
        self._is_ready = False
        self._is_stopping = False
        self._waiting: dict[str, str] = {}
        self._bug: BaseException | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._written: Mapping[str, Any] = {}
        self._is_write_pending = False
        self._unplanned: dict[str, str] = {}
        self._cnames: list[Any] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raise the exception of a bug in any thread, task or callback."""
        self._loop = asyncio.get_running_loop()
        self._stop_requested = asyncio.Event()
        self._looked_once, self._converged_once = asyncio.Event(), asyncio.Event()
        self._loop.set_exception_handler(self._failed_in_loop)
        state_dir = self._settings.state_dir
        left_behind = journalled(state_dir) | self._reloads.interrupted()
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(signum, self._stop_requested.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._read_again)
        consul, watching = Consul(self._settings.consul), Consul(self._settings.consul)
        convergence = Convergence(self._settings, consul, self._clock, self._environ, socket.gethostname())
        self._thread = ConvergenceThread(convergence, partial(self._call_soon, self._converged))
        self._agent_watch = AgentWatch(watching, self._clock, self._thread.request)
        self._files_watch = FilesWatch(self._settings.services_dir, self._thread.request)
        self._state_watch = StateWatch(state_dir, partial(self._call_soon, self._follow_reloads), self._thread.request)
        stop_metrics = self._serve_metrics()
        log("started", version=__version__, pid=os.getpid(), services_dir=self._settings.services_dir)
        if self._settings.metrics.textfile_dir is not None:
            text = "metrics.textfile_dir is ignored: the daemon does not write it"
            log(f"{text}. Set daemon.listen, and let Prometheus scrape that address", level=WARNING)
        self._scheduler.start()
        for part in (self._thread, self._agent_watch, self._files_watch, self._state_watch):
            part.start()
        self._thread.request()
        for work in (self._resume(left_behind), self._housekeeping.sync_cnames()):
            self._tasks.add(self._start_watched(work))
        beating = self._start_watched(self._heartbeat())
        try:
            await self._stop_requested.wait()
            self._is_stopping = True
            await self._stop()
            beating.cancel()
        finally:
            await self._loop.run_in_executor(None, stop_metrics)
            self._status_file.remove()
        if self._bug is not None:
            raise self._bug

    def _serve_metrics(self) -> Callable[[], None]:
        if self.metrics is None or self._settings.daemon.listen is None:
            return lambda: None
        from agent.metrics.exposition import serve

        return serve(self.metrics, self._settings.daemon.listen)

    @property
    def status(self) -> DaemonState:
        services = [one for found in self._result.definitions for one in found.services]
        return DaemonState(
            pid=os.getpid(),
            version=__version__,
            since=self._began,
            # The reader may have another working directory.
            state_dir=str(self._settings.state_dir.absolute()),
            services_dir=str(self._settings.services_dir.absolute()),
            services=tuple(one.name for one in services),
            service_ids=tuple(one.id for one in services),
            is_ready=self._is_ready,
            is_stopping=self._is_stopping,
            trouble=str(self._result.trouble or ""),
            faults=self._result.faults,
            needs_consent=self._result.objection,
            failed={service_id: str(error) for service_id, error in self._result.failed},
            unrecovered=self._reloads.unrecovered(),
            reloads=self._reloads.status(),
            converged_at=self._converged_at,
            next_runs=self._scheduler.next_runs(),
        )

    def _changed(self) -> None:
        """Write the status soon, once for all changes in this turn of the event loop."""
        if not self._is_write_pending:
            self._is_write_pending = True
            self._loop.call_soon(self._write_status)

    def _write_status(self, *, is_due: bool = False) -> None:
        self._is_write_pending = False
        status = self.status
        self._systemd.status(status.line)
        if is_due or status.document != self._written:
            self._written = status.document
            self._status_file.write(self._written)

    async def _heartbeat(self) -> None:
        """Prove to systemd and readers of the status file that the daemon is alive, and check the clock."""
        while True:
            self._write_status(is_due=True)
            if self._systemd.watchdog_seconds is not None:
                self._systemd.notify("WATCHDOG=1")
            if not self._is_stopping:
                self._scheduler.look_at_clock()
            await asyncio.sleep(min(BEAT_SECONDS, self._systemd.watchdog_seconds or BEAT_SECONDS))

    def _due(self, job: str) -> None:
        if job == CONVERGENCE:
            self._thread.request()
        elif job == CNAMES:
            self._housekeeping.are_cnames_due.set()
        else:
            self._begin(job.removeprefix(RELOAD_JOB), "schedule")

    def _begin(self, service_id: str, why: str) -> None:
        """Start a reload, or hold it until Consul answers: without Consul it could only fail."""
        if isinstance(self._result.trouble, ConsulUnreachable):
            self._waiting[service_id] = why
        else:
            self._reloads.begin(service_id, why)

    def _plan(self, definitions: Sequence[Definition]) -> None:
        """Replace the schedule. Log once what never runs or has no valid schedule."""
        plans, unplanned = plans_of(definitions, os.uname().nodename, self._environ)
        self._scheduler.replace(plans)
        due = self._scheduler.next_runs()
        for job, plan in plans.items():
            if isinstance(plan, Schedule) and job not in due:
                unplanned[job.removeprefix(RELOAD_JOB)] = plan.why_never()
        for service_id, why in unplanned.items():
            if self._unplanned.get(service_id) != why:
                log(why, level=WARNING, service=service_id)
        self._unplanned = unplanned

    def _read_again(self) -> None:
        if self._is_stopping:
            return
        log("reading all definitions again")
        self._systemd.notify("RELOADING=1")
        self._thread.request()
        if CNAMES in self._scheduler.next_runs():
            self._housekeeping.are_cnames_due.set()
        if self._is_ready:
            self._systemd.notify("READY=1")

    def _call_soon(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function on the event loop, from another thread."""
        with suppress(RuntimeError):  # the loop has ended: this took longer than a stop waits
            self._loop.call_soon_threadsafe(function, *arguments)

    def _converged(self, found: ConvergenceResult | Exception) -> None:
        if self._is_stopping:
            return
        if isinstance(found, Exception):
            # Reloads and the other tasks continue; the convergence is retried each minute.
            log_bug("convergence: a bug in svcagent; please report it", found)
            return
        self._result = found
        self._looked_once.set()
        self._reloads.converged(found.definitions, found.out)
        self._follow_reloads()
        self._converged_at = self._clock.now()
        self._plan(found.definitions)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if found.again_in is None else self._loop.call_later(found.again_in, self._thread.request)
        is_new = any(one.service_id == found.canary for one in found.changes)
        self._agent_watch.follow(found.canary, is_new=is_new)
        self._update_metrics(found)
        if found.trouble is not None:
            return
        cnames = [(one.service.id, record) for one in found.definitions for record in one.cname]
        if cnames != self._cnames:
            self._cnames = cnames
            self._housekeeping.are_cnames_due.set()
        waiting, self._waiting = self._waiting, {}
        for service_id, why in waiting.items():
            self._begin(service_id, why)
        if not self._is_ready:
            self._is_ready = True
            self._converged_once.set()
            log("ready", services=len(self.status.services))
            self._systemd.notify("READY=1")

    def _update_metrics(self, found: ConvergenceResult) -> None:
        if self.metrics is None:
            return
        faults = Counter(fault.file for fault in found.faults)
        if found.trouble is not None:
            self.metrics.faulty(faults)
            self.metrics.consul(is_up=not isinstance(found.trouble, ConsulUnreachable))
            return
        from agent.metrics.host_series import MaintenanceSample

        reloaded = [one.service.name for one in found.definitions if one.reload is not None]
        out = [MaintenanceSample.of(one.target.name, one.maintenance) for one in found.out]
        self.metrics.converged(reloaded, faults, out, len(found.refused), needs_consent=bool(found.objection))

    async def _resume(self, left_behind: frozenset[str]) -> None:
        """Recover reloads that crashed before this daemon started, and repeat those that were interrupted.

        Then recover every crashed reload on this host. If its journal is lost, its maintenance reveals it.
        """
        if left_behind:
            if not (self._settings.state_dir / DIRECTORY).is_dir():
                # This host's first daemon: its children have no definitions until the first convergence.
                await self._looked_once.wait()
            await self._housekeeping.recover_at_start(self._converged_once)
        keeping = self._housekeeping.recover_crashed(self._reloads.crashed, self._recovered)
        self._tasks.add(self._start_watched(keeping))
        await self._converged_once.wait()
        for service_id in sorted(left_behind):
            self._begin(service_id, "resumed")

    def _recovered(self, service_id: str) -> None:
        self._thread.request()
        self._reloads.retry_recovered(service_id)

    def _follow_reloads(self) -> None:
        self._reloads.follow()
        if self._reloads.crashed():
            self._housekeeping.is_recovery_due.set()
        self._changed()

    def _start_watched(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start a task. An exception in it is a bug, and ends the daemon."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._bug = error
            self._stop_requested.set()

    def _failed_in_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Treat an exception in a callback as a bug; asyncio would only log it."""
        error = context.get("exception")
        if "handle" in context and error is not None:
            self._bug = error
            self._stop_requested.set()
        else:
            loop.default_exception_handler(context)

    async def _stop(self) -> None:
        log("stopping", reloads=len(self._reloads.status()))
        self._systemd.notify("STOPPING=1")
        self._write_status()
        for task in self._tasks:
            task.cancel()
        left, _over = await asyncio.gather(
            self._reloads.stop(STOP_SECONDS), asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        )
        if left:
            log(f"left to the journal: {', '.join(sorted(left))}", level=WARNING)
        # Last, because a hanging file system below services.d may block these.
        for watch in (self._agent_watch, self._files_watch, self._state_watch):
            watch.stop()
        await self._loop.run_in_executor(None, self._thread.stop, THREAD_STOP_SECONDS)
        self._scheduler.shutdown()
        log("stopped")


@contextmanager
def only_daemon(state_dir: Path) -> Iterator[None]:
    """Hold the state directory's daemon lock inside the block. Raise `LockBusy` if another daemon has it."""
    with FileLock(state_dir / LOCK_FILE) as lock:
        if not lock.try_acquire():
            holder = os.pread(lock.descriptor, 32, 0).decode(errors="replace").strip()
            raise LockBusy(
                f"svcagent run is already running on {state_dir} (pid {holder}); only one daemon per host. To see its "
                "state: svcagent status",
                kind="daemon-running",
            )
        with suppress(OSError):  # on a full disk: the holder's pid is only for messages
            os.ftruncate(lock.descriptor, 0)
            os.pwrite(lock.descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
