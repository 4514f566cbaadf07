"""A reload of this host whose process has ended, and which recovery has not finished or rolled back yet."""

import os
from pathlib import Path

from agent.clock import Clock
from agent.data import dataclass
from agent.maintenance import Maintenance, is_of_reload
from agent.reload.host_lock import HostLock
from agent.reload.journal import Journal, JournalDamaged, JournalRecord, journalled
from agent.text import quoted_command


@dataclass(frozen=True)
class UnfinishedReload:
    """``id`` and ``step`` (the last one begun) are empty if the journal is lost.

    ``has_crashed``: its process ended without a result; otherwise it failed to restore or to clean up something.
    """

    service: str
    id: str
    step: str
    has_crashed: bool

    @property
    def what(self) -> str:
        reload = f"reload {self.id}" if self.id else "a reload"
        return f"{reload} of {self.service} " + (
            f"crashed{f' at step {self.step}' if self.step else ''}"
            if self.has_crashed
            else f"is not finished{f' (last step: {self.step})' if self.step else ''}"
        )

    @property
    def remedy(self) -> str:
        command = quoted_command(["svcagent", "recover", self.service])
        return f"to finish it or roll it back, run: {command}"

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def find_unfinished(
    state_dir: Path, service_id: str, clock: Clock, held: Maintenance | None = None, node: str = ""
) -> UnfinishedReload | None:
    """Return the unfinished reload of a service on this host (``node``); None if there is none or one runs.

    ``held`` is the service's maintenance: without a journal it alone shows the reload. Nothing is known to a user who
    may not read the state directory.
    """
    if not os.access(state_dir, os.R_OK | os.X_OK):
        return None
    reload_id = held.owner if held is not None and is_of_reload(held, node) else ""
    lock = HostLock(state_dir, service_id, clock, 0.0)
    if lock.holder() is not None:
        return None
    if service_id in journalled(state_dir):
        record = _read(Journal(state_dir, service_id))
        if lock.holder() is not None:  # it began meanwhile
            return None
        if record is None:
            return UnfinishedReload(service_id, reload_id, "", has_crashed=True)
        said = lock.read()
        has_ended = said is not None and any(one.get("id") == record.reload_id for one in said.results)
        return UnfinishedReload(record.service, record.reload_id, record.step, has_crashed=not has_ended)
    return UnfinishedReload(service_id, reload_id, "", has_crashed=True) if reload_id else None


def _read(journal: Journal) -> JournalRecord | None:
    try:
        return journal.read()
    except JournalDamaged:
        return None
