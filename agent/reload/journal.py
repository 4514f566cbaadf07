"""What a reload has done so far, on disk: what recovery needs and cannot see in Consul or Docker.

One file a service, there from the first thing taken (the lock's session) until all is given back. Only the process
that has the service's `HostLock` reads or writes it.
"""

import glob
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from urllib.parse import quote, unquote

from agent.definitions import Reload, Service
from agent.errors import SvcagentError
from agent.files import write_atomically

VERSION = 1
_PREFIX, _SUFFIX = "reload-", ".journal"


class JournalDamaged(SvcagentError):
    """The file is there and does not hold a journal of this version: recovery does with what it sees."""


@dataclass(frozen=True)
class Record:
    """How far a reload came. ``step``: the last one begun. ``session``: of its lock, empty before there is one.

    ``restart_policy``: the old container's before it was replaced, empty before that. ``is_bad``: ``digest`` did not
    start or did not become ready here, and ``why``. The rest is as in the definition that the reload was begun with.
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
    is_bad: bool = False
    why: str = ""

    @classmethod
    def of(cls, service: Service, reload: Reload, reload_id: str, since: str) -> "Record":
        """A reload that has not begun."""
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

    def write(self, record: Record) -> None:
        """Replace it, synced to disk.

        :raises SvcagentError: it could not be written, so the old content stands.
        """
        write_atomically(self._file, json.dumps({"v": VERSION, **asdict(record)}), mode=0o600)

    def read(self) -> Record | None:
        """What an earlier process left; None if it left nothing.

        :raises JournalDamaged: what is there cannot be used.
        """
        try:
            return _parsed(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise JournalDamaged(f"the journal {self._file} cannot be used ({error})") from error

    def remove(self) -> None:
        """All is given back; not there is fine. Works on a full disk.

        :raises SvcagentError: it could not be removed.
        """
        try:
            self._file.unlink(missing_ok=True)
            for unfinished in self._file.parent.glob(f".{glob.escape(self._file.name)}.*"):
                unfinished.unlink(missing_ok=True)  # of a process that was killed while it wrote
        except OSError as error:
            raise SvcagentError(f"cannot remove {self._file}: {error.strerror}") from error


def _parsed(content: bytes) -> Record:
    """:raises ValueError, TypeError: it is none."""
    tree = json.loads(content)
    types = {field.name: field.type for field in fields(Record)}
    if not isinstance(tree, dict) or tree.pop("v", None) != VERSION or tree.keys() != types.keys():
        raise ValueError("not a journal of this version")
    if any(type(value) is not types[name] for name, value in tree.items()):
        raise TypeError("not the values of a journal")
    return Record(**tree)


def journalled(state_dir: Path) -> frozenset[str]:
    """The ids of the services that have a journal."""
    names = (file.name for file in state_dir.glob(f"{_PREFIX}*{_SUFFIX}"))
    return frozenset(unquote(name.removeprefix(_PREFIX).removesuffix(_SUFFIX)) for name in names)


def state_file(state_dir: Path, service_id: str, suffix: str) -> Path:
    """One service's file of a kind; an id may hold what file names may not."""
    return state_dir / f"{_PREFIX}{quote(service_id, safe='')}{suffix}"
