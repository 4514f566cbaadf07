"""``svcagent run``: what runs when, and in which process or thread. Decisions are made elsewhere.

One event loop (asyncio) owns all mutable state, and never waits for Consul, Docker or another host. One thread
converges the local agent, one watches it, each request of the local API has a thread, and everything that is heavy or
takes a service out is a verb in a separate process (`children`).
"""

import asyncio
import os
import random
import signal
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.clock import Clock
from agent.consul import Consul
from agent.daemon.agent_watch import AgentWatch
from agent.daemon.api import RELOAD_JOB
from agent.daemon.api_server import ApiServer
from agent.daemon.backend import LiveBackend
from agent.daemon.children import Ended, Launcher, Record
from agent.daemon.chores import STOP_SECONDS, Chores
from agent.daemon.converge import Convergence
from agent.daemon.converged import Converged
from agent.daemon.files_watch import FilesWatch
from agent.daemon.good import DIRECTORY
from agent.daemon.reloads import Activity, Reloads, Wanted, is_unfinished
from agent.daemon.retries import Retries
from agent.daemon.schedule import CNAMES, CONVERGENCE, Schedule, plans_of
from agent.daemon.scheduler import Scheduler
from agent.daemon.status import Doing, Status
from agent.daemon.systemd import Systemd
from agent.daemon.underway import UnderWay
from agent.daemon.worker import Worker
from agent.definitions import Definition, Settings
from agent.errors import ConsulUnreachable
from agent.logs import INFO, WARNING, log, log_bug
from agent.maintenance import is_of_reload
from agent.reload import HostLock, journalled

if TYPE_CHECKING:  # slow to import, and large
    from agent.daemon.metrics import Metrics

TICK_SECONDS = 0.5
WORKER_STOP_SECONDS = 5.0
API_STOP_SECONDS = 2.0
"""How long observers may take to receive the result."""


class Daemon:
    """One host's daemon, to be `run` once. ``options``: passed to its children before the verb."""

    def __init__(self, settings: Settings, clock: Clock, environ: Mapping[str, str], options: Sequence[str]) -> None:
        self._settings = settings
        self._clock = clock
        self._environ = environ
        self._systemd = Systemd(environ)
        self.metrics = _metrics(clock) if settings.daemon.listen else None
        # The textfile is for hosts without a daemon; with both, everything would count twice.
        environ = {**environ, "SVCAGENT_TEXTFILE_DIR": ""}
        # Other definitions than the daemon's own also keep a child from asking the daemon to do its work.
        self._launcher = Launcher([*options, "--services-dir", str(settings.state_dir / DIRECTORY)], environ)
        self._chores = Chores(self._launcher, self.metrics)
        self._under_way = UnderWay(settings.state_dir)
        self.reloads = Reloads(
            self._launcher, self._under_way, clock, self._heard, self._reload_ended, self._start_watched
        )
        self._scheduler = Scheduler(clock, self._due)
        self._began = clock.now()
        self._found = Converged()
        self._converged_at: datetime | None = None
        self._is_ready = False
        self._is_stopping = False
        self._retries = Retries(
            lambda service_id: self._begin(Wanted(service_id, "retry")),
            jitter=lambda: random.uniform(0.8, 1.0),  # noqa: S311 - nothing is secret about a pause
        )
        self._held: dict[str, Wanted] = {}
        self._bug: BaseException | None = None
        self._tick_error = ""
        self._again: asyncio.TimerHandle | None = None
        self._unplanned: dict[str, str] = {}
        self._cnames: list[Any] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT.

        :raises Exception: a bug, in whichever thread, task or callback it was met.
        """
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._looked_once, self._converged_once = asyncio.Event(), asyncio.Event()
        self._recovered_once = asyncio.Event()
        self._loop.set_exception_handler(self._failed_in_loop)
        left_behind = journalled(self._settings.state_dir) | self._under_way.ids
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(signum, self._over.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._read_again)
        consul, watching = Consul(self._settings.consul), Consul(self._settings.consul)
        convergence = Convergence(self._settings, consul, self._clock, self._environ, socket.gethostname())
        self._worker = Worker(CONVERGENCE, convergence.run, self._converged_in_thread)
        self._agent_watch = AgentWatch(watching, self._clock, self._worker.want)
        self._files_watch = FilesWatch(self._settings.services_dir, self._worker.want)
        api = ApiServer(LiveBackend(self, self._settings), self._settings.daemon.socket, self._settings.daemon.listen)
        api.start()
        log("started", version=__version__, pid=os.getpid(), services_dir=self._settings.services_dir)
        if self._settings.metrics.textfile_dir is not None:
            said = "metrics.textfile_dir is for hosts without the daemon, and nothing is written there"
            log(f"{said}; set daemon.listen, and let Prometheus ask there", level=WARNING)
        self._worker.start()
        self._agent_watch.start()
        self._files_watch.start()
        self._worker.want()
        for work in (self._take_up(left_behind), self._keep_recovered(), self._chores.keep_cnames()):
            self._tasks.add(self._start_watched(work))
        ticking = self._start_watched(self._tick())
        try:
            await self._over.wait()
            self._is_stopping = True
            await self._stop()
            ticking.cancel()
        finally:
            await self._loop.run_in_executor(None, api.stop, API_STOP_SECONDS)
        if self._bug is not None:
            raise self._bug

    # ------------------------------------------------------------ status

    @property
    def definitions(self) -> Sequence[Definition]:
        """The definitions in force."""
        return self._found.definitions

    @property
    def status(self) -> Status:
        """Return what the daemon does now."""
        return Status(
            pid=os.getpid(),
            version=__version__,
            began=self._began,
            # The client may have another working directory.
            state_dir=str(self._settings.state_dir.absolute()),
            services_dir=str(self._settings.services_dir.absolute()),
            services=tuple(one.name for found in self._found.definitions for one in found.services),
            is_ready=self._is_ready,
            is_stopping=self._is_stopping,
            trouble=str(self._found.trouble or ""),
            faults=tuple(vars(fault) for fault in self._found.faults),
            objection=self._found.objection,
            failed={service_id: str(error) for service_id, error in self._found.failed},
            unrecovered=self._chores.unrecovered,
            doing=tuple(_doing(one) for one in self.reloads.running.values()),
            converged_at=self._converged_at,
            next_runs=self._scheduler.next_runs(),
        )

    async def _tick(self) -> None:
        """Run what is due, and report to systemd, every half second."""
        reported = self._loop.time()
        while True:
            if not self._is_stopping:
                self._run_due()
            self._systemd.status(self.status.line)
            every = self._systemd.watchdog_seconds
            if every is not None and self._loop.time() - reported >= every - TICK_SECONDS:
                reported = self._loop.time()
                self._systemd.alive()
            await asyncio.sleep(TICK_SECONDS)

    # ------------------------------------------------------------ what is due

    def _run_due(self) -> None:
        try:
            self._scheduler.tick()
        except Exception as error:  # noqa: BLE001 - a faulty schedule must not end the reloads that run
            if repr(error) != self._tick_error:
                log_bug("running what is due met a bug in svcagent; please report it", error)
            self._tick_error = repr(error)

    def _due(self, job: str) -> None:
        if job == CONVERGENCE:
            self._worker.want()
        elif job == CNAMES:
            self._chores.are_cnames_due.set()
        else:
            self._begin(Wanted(job.removeprefix(RELOAD_JOB), "schedule"))

    def _begin(self, wanted: Wanted) -> None:
        """Reload, or wait until Consul answers: without it a reload could only fail."""
        if isinstance(self._found.trouble, ConsulUnreachable):
            self._held[wanted.service_id] = wanted
        elif wanted.service_id in self._reloadable:
            self.reloads.begin(wanted)

    @property
    def _reloadable(self) -> frozenset[str]:
        return frozenset(one.service.id for one in self._found.definitions if one.reload is not None)

    def _plan(self, definitions: Sequence[Definition]) -> None:
        """Plan what is due from now on; log once what never is due or has no valid schedule."""
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
        """SIGHUP."""
        if self._is_stopping:
            return
        log("reading everything again")
        self._systemd.reloading()
        self._worker.want()
        if CNAMES in self._scheduler.next_runs():
            self._chores.are_cnames_due.set()
        if self._is_ready:
            self._systemd.ready()

    # ------------------------------------------------------------ convergence

    def _converged_in_thread(self, found: Converged | BaseException) -> None:
        with suppress(RuntimeError):  # the loop has ended: it took longer than a stop waits for
            self._loop.call_soon_threadsafe(self._converged, found)

    def _converged(self, found: Converged | BaseException) -> None:
        if self._is_stopping:
            return
        if isinstance(found, BaseException):
            # Reloads and other chores go on; the convergence is tried again each minute.
            log_bug("convergence: a bug in svcagent; please report it", found)
            return
        self._found = found
        self._looked_once.set()
        self._converged_at = self._clock.now()
        self._plan(found.definitions)
        if self._again is not None:
            self._again.cancel()
        self._again = None if found.again_in is None else self._loop.call_later(found.again_in, self._worker.want)
        is_new = any(one.service_id == found.canary for one in found.changes)
        self._agent_watch.follow(found.canary, is_new=is_new)
        self._tell_metrics(found)
        if found.trouble is not None:
            return
        if (cnames := _cnames(found.definitions)) != self._cnames:
            self._cnames = cnames
            self._chores.are_cnames_due.set()
        held, self._held = self._held, {}
        for wanted in held.values():
            self._begin(wanted)
        if not self._is_ready:
            self._is_ready = True
            self._converged_once.set()
            log("ready", services=len(self.status.services))
            self._systemd.ready()

    def _tell_metrics(self, found: Converged) -> None:
        if self.metrics is None:
            return
        faults = Counter(fault.file for fault in found.faults)
        if found.trouble is not None:
            self.metrics.faulty(faults)
            self.metrics.consul(is_up=not isinstance(found.trouble, ConsulUnreachable))
            return
        from agent.daemon.metrics import held_of

        reloaded = [one.service.name for one in found.definitions if one.reload is not None]
        out = [held_of(one.target.name, one.maintenance) for one in found.out]
        self.metrics.converged(reloaded, faults, out, len(found.refused), needs_consent=bool(found.objection))

    # ------------------------------------------------------------ verbs

    async def _take_up(self, left_behind: frozenset[str]) -> None:
        """Recover the reloads that crashed before this daemon started, and start those again that were under way.

        The journal of a crashed reload may be lost; then the maintenance that it left shows it.
        """
        if left_behind:
            if not (self._settings.state_dir / DIRECTORY).is_dir():
                # The first daemon of this host: its children have no definitions until it has converged once.
                await self._looked_once.wait()
            await self._chores.recover(self._converged_once)
        self._recovered_once.set()
        await self._converged_once.wait()
        if any(is_of_reload(one.maintenance, one.target.node) for one in self._found.out):
            await self._chores.recover(self._converged_once)
        known = self._reloadable
        for service_id in sorted(left_behind):
            if service_id in known:
                self._begin(Wanted(service_id, "taken up again"))
            else:
                self.reloads.forget(service_id)

    async def _keep_recovered(self) -> None:
        """Recover every crashed reload of this host, by whatever process, as long as the daemon runs."""
        await self._recovered_once.wait()
        await self._chores.keep_recovered(self._left_behind, self._recovered)

    def _left_behind(self) -> frozenset[str]:
        """Return the services whose reload has left a journal or maintenance, and does not run any more.

        The journal is read again after the process was looked for: a reload removes it before it ends.
        """
        state_dir = self._settings.state_dir
        out = {one.target.service_id for one in self._found.out if is_of_reload(one.maintenance, one.target.node)}
        suspects = (journalled(state_dir) | out) - self.reloads.running.keys()
        crashed = {one for one in suspects if HostLock(state_dir, one, self._clock, 0.0).holder() is None}
        return frozenset(crashed & (journalled(state_dir) | out))

    def _recovered(self, service_id: str) -> None:
        """Retry a reload whose instance was recovered: its version is still wanted."""
        self._worker.want()
        if service_id in self._reloadable and not self._retries.is_pending(service_id):
            self._retry(service_id)

    def _measure(self, update: Callable[[Mapping[str, Any]], None], record: Mapping[str, Any]) -> None:
        """Update metrics. A failure must not stop the daemon from following the reload."""
        try:
            update(record)
        except Exception as error:  # noqa: BLE001 - a bug in a metric must not stop the daemon
            log_bug("updating metrics met a bug in svcagent; please report it", error)

    def _retry(self, service_id: str, at_least: float = 0.0) -> None:
        seconds = self._retries.failed(service_id, at_least)
        log(f"tried again in {seconds:.0f} s", service=service_id)

    def _heard(self, _activity: Activity, record: Record) -> None:
        if self.metrics is not None:
            self._measure(self.metrics.reload_event, record)

    def _reload_ended(self, activity: Activity, ended: Ended) -> None:
        wanted = activity.wanted
        result = activity.result or {}
        if self.metrics is not None:
            self._measure(self.metrics.reload_ended, result)
        # A reload that ended by itself has logged why.
        log(
            str(result.get("error")) if ended.was_killed else "",
            level=WARNING if ended.was_killed else INFO,
            service=result.get("service"),
            reload=result.get("id"),
            outcome=result.get("outcome"),
            exit_code=result.get("exit_code"),
            why=wanted.why,
        )
        if self._is_stopping or activity.is_cancelled or not is_unfinished(ended):
            self._retries.over(wanted.service_id)
        else:
            self._retry(wanted.service_id, result.get("retry_after") or 0.0)

    def _start_watched(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start a task. An exception in it is a bug, and ends the daemon."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._bug = error
            self._over.set()

    def _failed_in_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Treat an exception in a callback as a bug, too: asyncio would only log it and go on."""
        error = context.get("exception")
        if "handle" in context and error is not None:
            self._bug = error
            self._over.set()
        else:
            loop.default_exception_handler(context)

    async def _stop(self) -> None:
        """Restore the services of running reloads, and end."""
        log("stopping", reloads=len(self.reloads.running))
        self._systemd.stopping()
        self._systemd.status(self.status.line)
        self._retries.stop()
        for task in self._tasks:
            task.cancel()
        left, _over = await asyncio.gather(
            self.reloads.stop(STOP_SECONDS), asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        )
        if left:
            log(f"left to the journal: {', '.join(sorted(left))}", level=WARNING)
        # Last, because a hanging file system below services.d may block these.
        self._agent_watch.stop()
        self._files_watch.stop()
        await self._loop.run_in_executor(None, self._worker.stop, WORKER_STOP_SECONDS)
        self._scheduler.shutdown()
        log("stopped")


def _metrics(clock: Clock) -> "Metrics":
    from agent.daemon.metrics import Metrics

    return Metrics(clock)


def _doing(activity: Activity) -> Doing:
    last = next((one for one in reversed(activity.records) if one.get("reload")), {})
    wanted = activity.wanted
    return Doing(
        wanted.service_id, activity.step, activity.text, activity.since, wanted.why, str(last.get("reload", ""))
    )


def _cnames(definitions: Sequence[Definition]) -> list[Any]:
    return [(one.service.id, record) for one in definitions for record in one.cname]
