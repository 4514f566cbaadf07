"""Follow a service in Consul KV and the catalog with blocking queries.

Each kind of document has its own connection and thread, which ends with the process.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from agent.clock import Clock
from agent.consul import LONGEST_WAIT, Consul, Instance, KvPair
from agent.data import dataclass
from agent.errors import SvcagentError, Unreachable
from agent.fleet import host_state, pause, quarantine, rollout
from agent.fleet.document import key
from agent.fleet.view import FleetView

RETRY_SECONDS = 1.0

Read: TypeAlias = Callable[[Consul, int | None], tuple[int, Any]]


@dataclass(frozen=True)
class FleetSnapshot:
    """The service at one moment.

    ``sessions`` are those that hold its lock; None if its prefix is unknown. ``trouble`` is why this may be out of
    date, if Consul does not answer.
    """

    view: FleetView
    instances: tuple[Instance, ...]
    sessions: frozenset[str] | None = None
    trouble: str = ""


class FleetWatch:
    def __init__(self, consul: Consul, service: str, lock_prefix: str | None, clock: Clock) -> None:
        self._consul = consul
        self._clock = clock
        self._news: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._stopping = threading.Event()
        self._reads: dict[str, Read] = {
            "instances": lambda own, index: own.instances(service, index, LONGEST_WAIT),
            "hosts": _query(Consul.kv_tree, key(service, host_state.FOLDER, ""), host_state.parse_all),
            "quarantine": _query(Consul.kv_tree, key(service, quarantine.FOLDER, ""), quarantine.parse_all),
            "pause": _query(Consul.kv_get, key(service, pause.FOLDER), pause.parse),
            "pin": _query(Consul.kv_get, key(service, rollout.FOLDER), rollout.parse),
        }
        if lock_prefix is not None:
            self._reads["sessions"] = _query(Consul.kv_tree, f"{lock_prefix}/", _sessions)

    def __enter__(self) -> "FleetWatch":
        for name, read in self._reads.items():
            arguments = (name, read, self._consul.another())
            threading.Thread(target=self._follow, args=arguments, name=f"watch-{name}", daemon=True).start()
        return self

    def __exit__(self, *_ended: object) -> None:
        self._stopping.set()

    def seen(self) -> Iterator[FleetSnapshot]:
        """Yield the service once it is known, and after each change. Raise `SvcagentError` if Consul refuses."""
        parts: dict[str, Any] = {}
        troubles: dict[str, SvcagentError] = {}
        while True:
            wait = self._until_pause_ends(parts.get("pause"))
            for name, found in self._arrived(wait):
                if isinstance(found, Unreachable):
                    troubles[name] = found
                elif isinstance(found, SvcagentError):
                    raise found
                else:
                    troubles.pop(name, None)
                    parts[name] = found
            trouble = str(next(iter(troubles.values()), ""))
            if len(parts) == len(self._reads) or trouble:
                yield self._snapshot(parts, trouble)

    def _snapshot(self, parts: Mapping[str, Any], trouble: str) -> FleetSnapshot:
        known = dict(parts)
        instances, sessions = known.pop("instances", ()), known.pop("sessions", None)
        view = replace(FleetView(), **known)
        if view.pause is not None and view.pause.is_over(self._clock.now()):
            view = replace(view, pause=None)
        return FleetSnapshot(view, instances, sessions, trouble)

    def _arrived(self, wait: float | None) -> Iterator[tuple[str, Any]]:
        """Wait for the first item, then yield all that have arrived."""
        try:
            yield self._news.get(timeout=wait)
            while True:
                yield self._news.get_nowait()
        except Empty:
            return

    def _until_pause_ends(self, held: pause.Pause | None) -> float | None:
        """Return the seconds until the pause ends, because Consul does not report that."""
        if held is None or held.until is None or held.is_over(self._clock.now()):
            return None
        return min((held.until - self._clock.now()).total_seconds(), threading.TIMEOUT_MAX)

    def _follow(self, name: str, read: Read, consul: Consul) -> None:
        index: int | None = None
        while not self._stopping.is_set():
            try:
                new_index, found = read(consul, index)
            except SvcagentError as error:
                self._news.put((name, error))
                index = None
                self._stopping.wait(RETRY_SECONDS)
                continue
            if new_index != index:
                self._news.put((name, found))
            # Consul's documentation: reset an index that goes backwards.
            index = new_index if index is None or new_index >= index else None
        consul.close()


def _query(query: Callable[..., tuple[int, Any]], name: str, parse: Callable[[Any], Any]) -> Read:
    """Return a blocking query for a key or a prefix; the result is None for a key that does not exist."""

    def read(consul: Consul, index: int | None) -> tuple[int, Any]:
        new_index, found = query(consul, name, index, LONGEST_WAIT)
        return new_index, None if found is None else parse(found)

    return read


def _sessions(pairs: tuple[KvPair, ...]) -> frozenset[str]:
    """Return the sessions that hold keys of a lock: its holders, and contenders, which are alive as well."""
    return frozenset(pair.session for pair in pairs if pair.session is not None)
