"""The reloads that the daemon runs: one at a time per service, each in a child process.

Everything runs in the event loop's thread.
"""

import asyncio
import secrets
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.clock import Clock
from agent.daemon.subprocesses import Child, EndedProcess, Launcher
from agent.errors import UnexpectedError, Unreachable
from agent.logs import ERROR, log, log_bug
from agent.outcomes import RETRIED

LOCK_TIMEOUT = "1h"
"""How long to wait for other hosts, and for a reload that cron or an operator started on this host."""

MOST_STARTING = 8
"""How many may start concurrently, until they have found something to do. A hundred services due in the same minute
would each take half a second of CPU time and 50 MB at the same time.
"""
STARTING_SECONDS = 30.0
"""Seconds after which a reload no longer counts as starting."""

IDLE_STEPS = ("", "check")
"""The steps in which a reload has not found anything to do yet."""

RETRY_SECONDS = (30.0, 60.0, 120.0, 300.0, 600.0)
"""Pauses between attempts; the last one repeats."""
RETRIED_CODES = frozenset({Unreachable.exit_code, UnexpectedError.exit_code})


@dataclass
class RunningReload:
    """A reload that the daemon runs. ``why`` is schedule, resumed or retry.

    ``child`` is None until its process has started. ``token`` is in the records of that process, because process
    IDs are used again.
    """

    service_id: str
    why: str
    since: datetime
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    child: Child | None = None
    is_starting: bool = False


class Retries:
    """Retries reloads that were killed or failed for a temporary reason: their schedule may be a day away.

    One timer per service. ``begin`` is called with the service's ID on the event loop.

    ``jitter`` returns the factor by which pauses differ between hosts.
    """

    def __init__(
        self,
        begin: Callable[[str], None],
        pauses: Sequence[float] = RETRY_SECONDS,
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._jitter = jitter
        self._begin = begin
        self._pauses = pauses
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def failed(self, service_id: str, at_least: float = 0.0) -> float:
        """Count a failure. Return the seconds until the next attempt, at least ``at_least``."""
        self._cancel(service_id)
        count = self._failures.get(service_id, 0)
        self._failures[service_id] = count + 1
        factor = self._jitter()
        # A server's own minimum is spread upwards, so that no host retries too early.
        pause = max(self._pauses[min(count, len(self._pauses) - 1)] * factor, at_least * (2 - factor))
        self._timers[service_id] = asyncio.get_running_loop().call_later(pause, self._try, service_id)
        return pause

    def is_pending(self, service_id: str) -> bool:
        """True if a retry is scheduled."""
        return service_id in self._timers

    def reset(self, service_id: str) -> None:
        """Forget a service: its reload ended in a way that a retry does not change."""
        self._cancel(service_id)
        self._failures.pop(service_id, None)

    def stop(self) -> None:
        for service_id in list(self._timers):
            self._cancel(service_id)

    def _try(self, service_id: str) -> None:
        del self._timers[service_id]
        self._begin(service_id)

    def _cancel(self, service_id: str) -> None:
        if service_id in self._timers:
            self._timers.pop(service_id).cancel()


class Reloads:
    """``report_end`` is called when a reload has ended. ``start`` begins a task and reports its exceptions (bugs)."""

    def __init__(
        self,
        launcher: Launcher,
        clock: Clock,
        report_end: Callable[[RunningReload, EndedProcess], None],
        start: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"] = asyncio.create_task,
    ) -> None:
        self._launcher = launcher
        self._clock = clock
        self._report_end = report_end
        self._start = start
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_stopping = False
        self._starting = asyncio.Semaphore(MOST_STARTING)
        self.running: dict[str, RunningReload] = {}

    def begin(self, service_id: str, why: str) -> bool:
        """Start a reload. False if one of that service runs already."""
        if service_id in self.running:
            return False
        reload = self.running[service_id] = RunningReload(service_id, why, self._clock.now())
        task = self._start(self._run(reload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def reached(self, service_id: str, step: str) -> None:
        """Let another reload start if this one has found something to do."""
        if service_id in self.running and step not in IDLE_STEPS:
            self._has_started(self.running[service_id])

    async def stop(self, seconds: float) -> frozenset[str]:
        """Ask all reloads to restore their services and end. Return the services of those still running then."""
        self.is_stopping = True
        for reload in self.running.values():
            if reload.child is not None:
                reload.child.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        return frozenset(self.running)

    async def _run(self, reload: RunningReload) -> None:
        service_id = reload.service_id
        try:
            ended = await self._run_child(reload)
        except OSError as error:
            log(f"{service_id}: cannot start the reload: {error}", level=ERROR, service=service_id)
            ended = EndedProcess(1)
        except Exception as error:  # noqa: BLE001 - a bug in one reload must not end the daemon and the others
            log_bug(f"{service_id}: following its reload: a bug in svcagent; please report it", error)
            ended = EndedProcess(UnexpectedError.exit_code)
        del self.running[service_id]
        self._report_end(reload, ended)

    async def _run_child(self, reload: RunningReload) -> EndedProcess:
        await self._starting.acquire()
        reload.is_starting = True
        timer = asyncio.get_running_loop().call_later(STARTING_SECONDS, self._has_started, reload)
        try:
            if self.is_stopping:
                return EndedProcess(-signal.SIGTERM)
            # An ID may begin with a dash.
            verb = ["reload", "--lock-timeout", LOCK_TIMEOUT, "--", reload.service_id]
            reload.child = await self._launcher.start(verb, reload.token)
            if self.is_stopping:
                reload.child.stop()
            return await reload.child.ended()
        finally:
            timer.cancel()
            self._has_started(reload)

    def _has_started(self, reload: RunningReload) -> None:
        if reload.is_starting:
            reload.is_starting = False
            self._starting.release()


def is_unfinished(result: Mapping[str, Any]) -> bool:
    """True if the reload must be retried before its next schedule.

    It was killed, met a bug, could not reach Consul, Docker or the registry, was throttled by the registry, left the
    instance out of service, or failed because of its environment, which may recover. ``result`` is
    ``dataclasses.asdict`` of its `ReloadResult`; without one it has only ``exit_code``, negative for a signal.
    """
    code = result.get("exit_code", 1)
    return (
        code < 0 or code in RETRIED_CODES or result.get("outcome") in RETRIED or result.get("retry_after") is not None
    )
