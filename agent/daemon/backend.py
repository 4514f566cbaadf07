"""What the local API answers with: the daemon, asked from the threads of requests.

Whatever changes belongs to the event loop, so each question is carried there and its answer brought back.
"""

import asyncio
import dataclasses
import queue
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agent.daemon.api import RELOAD_JOB, Record
from agent.daemon.reloads import Activity, Reloads, Wanted
from agent.daemon.status import Status
from agent.definitions import Definition, Settings, defining
from agent.errors import NotFound, NotNow
from agent.fleet import history

if TYPE_CHECKING:
    from agent.daemon.metrics import Metrics

ANSWER_SECONDS = 5.0
KEPT_HISTORY = 50

T = TypeVar("T")


class Source(Protocol):
    """What the daemon lets be seen; for its event loop's thread alone, but for ``metrics``."""

    @property
    def status(self) -> Status:
        """What it does now."""

    @property
    def definitions(self) -> Sequence[Definition]:
        """Those in force."""

    @property
    def reloads(self) -> Reloads:
        """Those that run."""

    @property
    def metrics(self) -> "Metrics | None":
        """None where they are off."""


class LiveBackend:
    """A `Backend`, made on the event loop's thread."""

    def __init__(self, source: Source, settings: Settings) -> None:
        self._source = source
        self._settings = settings
        self._loop = asyncio.get_running_loop()

    def status(self) -> Mapping[str, Any]:
        """The status document."""
        return self._ask(lambda: self._source.status.document)

    def schedule(self, name: str | None) -> Sequence[Mapping[str, Any]]:
        """What runs next, and when, the first one first; of ``name`` its reload alone."""

        def runs() -> Mapping[str, datetime]:
            found = self._source.status.next_runs
            if name is None:
                return found
            job = f"{RELOAD_JOB}{self._definition(name).service.id}"
            return {job: found[job]} if job in found else {}

        return [{"job": job, "at": at} for job, at in sorted(self._ask(runs).items(), key=lambda item: item[1])]

    def history(self, name: str) -> Sequence[Mapping[str, Any]]:
        """Past reloads of this host, the newest first."""
        service = self._ask(lambda: self._definition(name)).service.name
        past = history.read_from_disk(self._settings.state_dir, service, KEPT_HISTORY)
        return [dataclasses.asdict(one) for one in past]

    def metrics(self) -> tuple[bytes, str] | None:
        """The metrics, None where they are off."""
        return None if self._source.metrics is None else self._source.metrics.render()

    def reload(
        self, name: str, *, force: bool, in_maintenance: bool, lock_timeout: float | None, asker: str
    ) -> "Looking":
        """Start a reload, or look on at the one that runs."""

        def begin() -> Looking:
            definition = self._definition(name)
            if definition.reload is None:
                raise NotFound(f"{definition.file} has no reload section for {name}")
            if self._source.status.is_stopping:
                raise NotNow("the daemon is stopping; ask again when it runs again")
            waits = None if lock_timeout is None else f"{lock_timeout:.3f}s"
            wanted = Wanted(definition.service.id, asker, force, in_maintenance, waits)
            activity, is_new = self._source.reloads.begin(wanted)
            return Looking(activity, is_started_here=is_new, reloads=self._source.reloads, loop=self._loop)

        return self._ask(begin)

    def cancel(self, name: str) -> None:
        """Ask the one that runs to put back and to end."""

        def cancel() -> None:
            running = self._source.reloads.running
            # What defined it may be gone since it was begun.
            service_id = name if name in running else self._definition(name).service.id
            if service_id not in running:
                raise NotFound(f"the daemon does not reload {name} just now")
            self._source.reloads.cancel(service_id)

        self._ask(cancel)

    def _definition(self, name: str) -> Definition:
        """The one that holds the service of that name or id.

        :raises NotFound: there is none.
        """
        found = defining(self._source.definitions, name)
        if found is not None:
            return found
        names = ", ".join(sorted({each.name for one in self._source.definitions for each in one.services})) or "none"
        raise NotFound(f"the daemon knows no service {name!r}; there is: {names}")

    def _ask(self, question: Callable[[], T]) -> T:
        async def answer() -> T:
            return question()

        asked = asyncio.run_coroutine_threadsafe(answer(), self._loop)
        try:
            return asked.result(ANSWER_SECONDS)
        except TimeoutError as error:
            asked.cancel()
            raise NotNow("the daemon is busy; ask again") from error


class Looking:
    """One looker-on: a `Subscription`."""

    def __init__(
        self, activity: Activity, *, is_started_here: bool, reloads: Reloads, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._activity = activity
        self._reloads = reloads
        self._loop = loop
        self._records: queue.SimpleQueue[Record] = queue.SimpleQueue()
        self.is_started_here = is_started_here
        for record in activity.records:
            self._records.put(record)
        activity.lookers_on.append(self._records.put)

    @property
    def since(self) -> datetime:
        """When it was started."""
        return self._activity.since

    @property
    def why(self) -> str:
        """Who or what wanted it."""
        return self._activity.wanted.why

    @property
    def pid(self) -> int | None:
        """Of its process."""
        child = self._reloads.child(self._activity.wanted.service_id)
        return None if child is None else child.pid

    @property
    def is_forced(self) -> bool:
        """Does it run with ``--force``?"""
        return self._activity.wanted.is_forced

    @property
    def is_in_maintenance(self) -> bool:
        """Does it run with ``--in-maintenance``?"""
        return self._activity.wanted.is_in_maintenance

    def get(self, timeout: float) -> Record | None:
        """The next record; None if none comes in time."""
        try:
            return self._records.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Look on no more."""
        with suppress(RuntimeError):  # the loop has ended, and the reloads with it
            self._loop.call_soon_threadsafe(self._activity.lookers_on.remove, self._records.put)
