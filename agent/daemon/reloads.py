"""The reloads that the daemon runs: one at a time for each service, each a child process, with its observers.

Everything runs in the event loop's thread.
"""

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.clock import Clock
from agent.daemon.children import Child, Ended, Launcher, Record
from agent.daemon.underway import UnderWay
from agent.errors import Interrupted, SvcagentError, Unforeseen, Unreachable
from agent.logs import WARNING, log, log_bug, reemit

LOCK_TIMEOUT = "1h"
"""How long to wait for other hosts, and for a reload of this host that cron or an operator started."""
KEPT_RECORDS = 1000
"""Records kept of one reload, for observers that join later."""

MOST_STARTING = 8
"""How many may start concurrently, until they have found something to do: a hundred services that are due in the same
minute would each take half a second of a processor, and 50 MB, at the same time."""
STARTING_SECONDS = 30.0
"""After so long, a reload no longer counts as starting."""

PROGRESS = "progress"
"""The phase of records about the progress of a pull."""

RETRIED_CODES = frozenset({Unreachable.exit_code, Unforeseen.exit_code})
RETRIED_OUTCOMES = frozenset({"stranded", "environment"})

_IDLE_STEPS = ("", "check")
"""The steps in which a reload has not found anything to do yet."""


@dataclass(frozen=True)
class Wanted:
    """A requested reload. ``why``: schedule, taken up again, retry, or the client of the local API.

    ``lock_timeout``: None for the verb's own.
    """

    service_id: str
    why: str
    is_forced: bool = False
    is_in_maintenance: bool = False
    lock_timeout: str | None = LOCK_TIMEOUT

    @property
    def verb(self) -> list[str]:
        """The command line of the verb, without svcagent's own options."""
        flags = ["--force"] * self.is_forced + ["--in-maintenance"] * self.is_in_maintenance
        waits = [] if self.lock_timeout is None else ["--lock-timeout", self.lock_timeout]
        # An id may begin with a dash.
        return ["reload", *waits, *flags, "--", self.service_id]


@dataclass
class Activity:
    """A reload that runs. ``text``: its last message about the current step."""

    wanted: Wanted
    since: datetime
    step: str = ""
    text: str = ""
    records: deque[Record] = field(default_factory=lambda: deque(maxlen=KEPT_RECORDS))
    lookers_on: list[Callable[[Record], None]] = field(default_factory=list)
    result: Mapping[str, Any] | None = None
    is_cancelled: bool = False
    is_starting: bool = False

    def tell(self, record: Record) -> None:
        """Pass on a record to all observers."""
        self.records.append(record)
        for one in self.lookers_on:
            one(record)


class Reloads:
    """``tell`` is called with every record of every reload, ``tell_end`` with every result. ``start`` begins a task and
    reports what it raises, which is a bug."""

    def __init__(
        self,
        launcher: Launcher,
        under_way: UnderWay,
        clock: Clock,
        tell: Callable[[Activity, Record], None],
        tell_end: Callable[[Activity, Ended], None],
        start: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"] = asyncio.create_task,
    ) -> None:
        self._launcher = launcher
        self._under_way = under_way
        self._clock = clock
        self._tell = tell
        self._tell_end = tell_end
        self._start = start
        self._children: dict[str, Child] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._starting = asyncio.Semaphore(MOST_STARTING)
        self.running: dict[str, Activity] = {}

    def begin(self, wanted: Wanted) -> tuple[Activity, bool]:
        """Start a reload, or return the one of that service that runs; True if it was started."""
        there = self.running.get(wanted.service_id)
        if there is not None:
            return there, False
        activity = Activity(wanted, self._clock.now())
        self.running[wanted.service_id] = activity
        task = self._start(self._run(activity))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return activity, True

    def cancel(self, service_id: str) -> None:
        """Ask a reload to restore its service and to end."""
        if service_id in self.running:
            self.running[service_id].is_cancelled = True
        if service_id in self._children:
            self._children[service_id].stop()

    def forget(self, service_id: str) -> None:
        """Forget a reload that was under way when a daemon crashed, and that no definition manages any more."""
        self._remember(self._under_way.end, service_id)

    def child(self, service_id: str) -> Child | None:
        """Return the process of a service's reload, while it runs."""
        return self._children.get(service_id)

    async def stop(self, seconds: float) -> frozenset[str]:
        """Ask all reloads to restore their services and to end; return the services of those that still run then."""
        self._is_stopping = True
        for child in self._children.values():
            child.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        return frozenset(self.running)

    async def _run(self, activity: Activity) -> None:
        service_id = activity.wanted.service_id
        try:
            ended = await self._run_child(activity)
        except OSError as error:
            ended = Ended(1, {"service": service_id, "outcome": "failed", "error": f"cannot be started: {error}"})
        except Exception as error:  # noqa: BLE001 - a bug in one reload must not end the daemon and the others
            log_bug(f"{service_id}: following its reload met a bug in svcagent; please report it", error)
            text = str(Unforeseen.of(error, "following the reload"))
            ended = Ended(Unforeseen.exit_code, {"service": service_id, "outcome": "failed", "error": text})
        result = _result(activity, ended)
        is_cut_short = is_unfinished(ended) or (self._is_stopping and result["outcome"] == "interrupted")
        is_cut_short = is_cut_short and not activity.is_cancelled
        if not is_cut_short:
            self._remember(self._under_way.end, service_id)
        del self.running[service_id]
        activity.result = result
        activity.tell({"result": result})
        self._tell_end(activity, ended)

    async def _run_child(self, activity: Activity) -> Ended:
        service_id = activity.wanted.service_id
        await self._starting.acquire()
        activity.is_starting = True
        timer = asyncio.get_running_loop().call_later(STARTING_SECONDS, self._has_started, activity)
        try:
            if self._is_stopping or activity.is_cancelled:
                return Ended(-signal.SIGTERM)
            child = await self._launcher.start(activity.wanted.verb, lambda record: self._heard(activity, record))
            self._children[service_id] = child
            if self._is_stopping or activity.is_cancelled:
                child.stop()
            try:
                return await child.ended()
            finally:
                del self._children[service_id]
        finally:
            timer.cancel()
            self._has_started(activity)

    def _has_started(self, activity: Activity) -> None:
        if activity.is_starting:
            activity.is_starting = False
            self._starting.release()

    def _heard(self, activity: Activity, record: Record) -> None:
        if "step" in record:
            if activity.step in _IDLE_STEPS and record["step"] not in _IDLE_STEPS:
                self._has_started(activity)
                self._remember(self._under_way.begin, activity.wanted.service_id)
            activity.step = record["step"]
            activity.text = record.get("text", "")
        if record.get("phase") != PROGRESS:  # for observers only: in a log it would be a hundred lines for each pull
            reemit(record)
        activity.tell(record)
        self._tell(activity, record)

    def _remember(self, change: Callable[[str], None], service_id: str) -> None:
        try:
            change(service_id)
        except SvcagentError as error:
            log(f"the next daemon would not resume this reload: {error}", level=WARNING, service=service_id)


def is_unfinished(ended: Ended) -> bool:
    """True if the reload has to be tried again without waiting for its schedule.

    It was killed, met a bug, could not reach Consul, Docker or the registry, asked the registry too often, left the
    instance out of service, or failed for a reason of its environment, which may pass.
    """
    document = ended.document if isinstance(ended.document, dict) else {}
    return (
        ended.was_killed
        or ended.status in RETRIED_CODES
        or document.get("outcome") in RETRIED_OUTCOMES
        or document.get("retry_after") is not None
    )


def _result(activity: Activity, ended: Ended) -> dict[str, Any]:
    """Return the result that the reload printed, or what is known if it printed none."""
    service_id = activity.wanted.service_id
    if isinstance(ended.document, dict):
        return {"service": service_id, "outcome": "failed", "exit_code": ended.status, **ended.document}
    if ended.status == -signal.SIGTERM:
        # The signal came before the verb could handle it.
        interrupted = Interrupted(signal.SIGTERM)
        error = "SIGTERM ended the reload; nothing had been changed"
        return {"service": service_id, "outcome": "interrupted", "error": error, "exit_code": interrupted.exit_code}
    how = f"was killed by signal {-ended.status}" if ended.was_killed else f"ended with exit code {ended.status}"
    error = f"{service_id}: its reload {how}; it is recovered within a minute"
    code = 1 if ended.was_killed else ended.status
    return {"service": service_id, "outcome": "failed", "error": error, "exit_code": code}
