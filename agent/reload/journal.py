"""The journal: what a reload has done so far, on disk, unless recovery can see it in Consul or Docker.

There is one file per service, from the creation of the lock's session until everything is restored. Only the process
that holds the service's `HostLock` reads or writes it.
"""

import glob
import json
from dataclasses import MISSING, asdict, field, fields, replace
from pathlib import Path
from typing import get_origin
from urllib.parse import quote, unquote

from agent.data import dataclass
from agent.definitions import ReloadSection, Service
from agent.errors import SvcagentError
from agent.files import NotRegularFile, read_regular, write_atomically
from agent.reload.progress import Progress

VERSION = 1
_PREFIX, _SUFFIX = "reload-", ".journal"


class JournalDamaged(SvcagentError):
    """The file does not hold a journal of this version: recovery uses what Consul and Docker show."""


@dataclass(frozen=True)
class JournalRecord:
    """How far a reload came. ``step``: the last one begun. ``session``: the lock's, empty before there is one.

    ``restart_policy``: the old container's before its replacement, empty until then. ``before``: the checks' statuses
    before the drain, by ID. ``blame``: what is known about the fault of ``digest`` (`steps.Blame`), with ``why`` it
    failed and the ``signature`` of that failure. The rest is from the definition at the reload's beginning.
    """

    reload_id: str
    service_id: str
    service: str
    container: str
    lock: str
    max_parallel: int
    image: str
    since: str
    digest_before: str = ""
    digest: str = ""
    step: str = ""
    session: str = ""
    is_replacing: bool = False
    restart_policy: str = ""
    before: dict[str, str] = field(default_factory=dict)
    blame: str = "none"
    why: str = ""
    signature: str = ""

    @classmethod
    def of(cls, service: Service, reload: ReloadSection, reload_id: str, since: str) -> "JournalRecord":
        """Return the record of a reload that has not begun."""
        return cls(
            reload_id=reload_id,
            service_id=service.id,
            service=service.name,
            container=reload.container,
            lock=reload.lock_prefix(service.name),
            max_parallel=reload.max_parallel,
            image=reload.image,
            since=since,
        )


class Journal:
    """``<state directory>/reload-<service id>.journal``."""

    def __init__(self, state_dir: Path, service_id: str) -> None:
        self._file = state_file(state_dir, service_id, _SUFFIX)

    def write(self, record: JournalRecord) -> None:
        """Replace the journal and sync it to disk. Raise `SvcagentError` if that fails; the old content stays then."""
        write_atomically(self._file, json.dumps({"v": VERSION, **asdict(record)}), mode=0o600)

    def read(self) -> JournalRecord | None:
        """Return what an earlier process left, or None. Raise `JournalDamaged` if the file cannot be used."""
        try:
            return _parsed(read_regular(self._file))
        except FileNotFoundError:
            return None
        except (OSError, NotRegularFile, ValueError, TypeError, RecursionError) as error:
            raise JournalDamaged(f"the journal {self._file} is invalid ({error})") from error

    def remove(self) -> None:
        """Remove the journal, if there is one, even on a full disk. Raise `SvcagentError` if that fails."""
        try:
            self._file.unlink(missing_ok=True)
            for unfinished in self._file.parent.glob(f".{glob.escape(self._file.name)}.*"):
                unfinished.unlink(missing_ok=True)  # left by a process that was killed during a write
        except OSError as error:
            raise SvcagentError(f"cannot remove {self._file}: {error.strerror}", kind="cannot-write") from error


class JournalEntry:
    """The record of the running reload or recovery."""

    def __init__(self, journal: Journal, record: JournalRecord, progress: Progress) -> None:
        self._journal = journal
        self._progress = progress
        self.record = record

    def update(self, **changes: object) -> None:
        """Change the record; the next `save` with a change writes it."""
        self.record = replace(self.record, **changes)  # type: ignore[arg-type]  # the keys are its own fields

    def save(self, *, required: bool = False, **changes: object) -> None:
        """Change the record, also on disk. Raise `SvcagentError` if it cannot be written, and ``required``.

        A step that restores the instance continues without a journal if it cannot be written.
        """
        before = self.record
        self.update(**changes)
        if self.record == before:
            return
        try:
            self._journal.write(self.record)
        except SvcagentError as error:
            if required:
                raise
            self._progress.note(f"continuing without a journal: {error}")
        except Exception as error:
            if required:
                raise
            self._progress.note(f"continuing without a journal: {self._progress.unexpected(error, 'writing it')}")

    def remove(self) -> None:
        self._journal.remove()


def _parsed(content: bytes) -> JournalRecord:
    """:raises ValueError, TypeError, RecursionError: the content is not a journal."""
    tree = json.loads(content)
    types = {one.name: get_origin(one.type) or one.type for one in fields(JournalRecord)}
    if not isinstance(tree, dict) or tree.pop("v", None) != VERSION:
        raise ValueError("not a journal of this version")
    if tree.pop("is_bad", False):  # as releases before 1.0 wrote it
        tree["blame"] = "open"
    optional = {
        one.name for one in fields(JournalRecord) if one.default is not MISSING or one.default_factory is not MISSING
    }
    if not types.keys() - optional <= tree.keys() <= types.keys():
        raise ValueError("not a journal of this version")
    if any(type(value) is not types[name] for name, value in tree.items()):
        raise TypeError("not the values of a journal")
    if not all(isinstance(status, str) for status in tree.get("before", {}).values()):
        raise TypeError("not the values of a journal")
    return JournalRecord(**tree)


def journalled(state_dir: Path) -> frozenset[str]:
    """Return the IDs of the services that have a journal."""
    return frozenset(service_of(file, _SUFFIX) for file in state_dir.glob(f"{_PREFIX}*{_SUFFIX}"))


def state_file(state_dir: Path, service_id: str, suffix: str) -> Path:
    """Return the path of a service's file; an ID may contain characters that file names may not."""
    return state_dir / f"{_PREFIX}{quote(service_id, safe='')}{suffix}"


def service_of(file: Path, suffix: str) -> str:
    """Return the ID of the service whose `state_file` this is."""
    return unquote(file.name.removeprefix(_PREFIX).removesuffix(suffix))
