"""All reloads of this host, as their lock files show them."""

from collections.abc import Iterator
from pathlib import Path

from agent.clock import Clock
from agent.daemon.reloads import IDLE_STEPS, is_unfinished
from agent.outcomes import Outcome
from agent.reload.host_lock import HostLock, HostReload, lock_files

INTERRUPTED_BY_STOP = 143
"""The exit code of a reload that SIGTERM ended: the daemon or the host was stopped, not this reload."""


class HostReloads:
    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._times: dict[str, tuple[int, int]] = {}
        self._ended: dict[str, frozenset[tuple[int, str]]] = {}
        self.running: dict[str, HostReload] = {}
        """The running reloads, by service ID."""
        self.last: dict[str, HostReload] = {}
        """The content of each lock file, by service ID."""
        self.update()

    def interrupted(self) -> frozenset[str]:
        """Return the services whose last reload found something to do and was interrupted.

        It crashed, was stopped with the daemon or the host, or ended for a temporary reason.
        """
        return frozenset(
            one for one, record in self.last.items() if one not in self.running and _is_interrupted(record)
        )

    def record_of(self, service_id: str, token: str) -> HostReload | None:
        """Return the record of the daemon's own reload; None if it did not get the host lock."""
        last = self.last.get(service_id)
        records = () if last is None else (last, last.before)
        return next((one for one in records if one is not None and one.token == token), None)

    def update(self) -> list[tuple[str, HostReload]]:
        """Read the changed files. Return service ID and record of the reloads and recoveries that have ended since.

        A record without results is of one that crashed.
        """
        ended: list[tuple[str, HostReload]] = []
        files = dict(lock_files(self._state_dir))
        for gone in self.last.keys() - files.keys():
            self.last.pop(gone)
            self.running.pop(gone, None)
            self._ended.pop(gone, None)
        for service_id, file in files.items():
            try:
                found = file.stat()
            except OSError:
                continue
            times = (found.st_mtime_ns, found.st_ino)
            if self._times.get(service_id) == times and service_id not in self.running:
                continue
            self._times[service_id] = times
            ended += self._read(service_id)
        return ended

    def _read(self, service_id: str) -> Iterator[tuple[str, HostReload]]:
        lock = HostLock(self._state_dir, service_id, self._clock, 0.0)
        holder, record = lock.holder(), lock.read()
        self.running.pop(service_id, None)
        if record is None:
            # It may have been read while it was written, which changes its time no more.
            self._times.pop(service_id, None)
            return
        self.last[service_id] = record
        ended = [] if record.before is None else [record.before]
        if record.results or holder != record.pid:
            ended += [record] if record.results or record.step else []
        elif record.step:
            self.running[service_id] = record
        known = self._ended.get(service_id, frozenset())
        self._ended[service_id] = frozenset((one.pid, one.began) for one in ended)
        yield from ((service_id, one) for one in ended if (one.pid, one.began) not in known)


def _is_interrupted(record: HostReload) -> bool:
    """True if a new daemon must repeat this reload. Operators repeat their own failed reloads."""
    if not record.results:
        return record.step not in IDLE_STEPS
    last = record.results[-1]
    if last.get("outcome") == Outcome.RECOVERED:  # the wanted version is still to be deployed
        return True
    return bool(record.token) and (last.get("exit_code") == INTERRUPTED_BY_STOP or is_unfinished(last))
