"""One reload of a service at a time on one host: an advisory file lock that ends with its process.

The lock file also says what its holder does and how that ended. The daemon and ``svcagent status`` follow every reload
of the host by it, however it was started. It is not synced to disk: what must survive a crash is in the journal.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from agent.clock import Clock, Deadline, poll
from agent.data import dataclass
from agent.errors import LockBusy
from agent.files import FileLock
from agent.logs import DAEMON_CHILD
from agent.reload.journal import service_of, state_file
from agent.reload.record import Phase, ReloadResult, StepEvent
from agent.text import quoted_command

SUFFIX = ".lock"
LONGEST_TEXT = 2000
"""How many characters of a message or error are in the lock file."""

_LOCKS = Path("/proc/locks")
_LONGEST_FILE = 1 << 16
_SHORT_RESULT = ("service", "id", "outcome", "exit_code", "retry_after")


@dataclass(frozen=True)
class HostReload:
    """The content of a lock file, about the last process that reloaded or recovered the service.

    ``began`` and ``since`` (of the step) are ISO 8601 times. ``step`` is empty before the first one. ``text``: the last
    message about the step; ``place``: the position in the queue. ``results``: how the reload and the recoveries before
    it ended, as ``dataclasses.asdict`` of each `ReloadResult`; empty until then. ``token``: of the daemon, if it
    started the process. ``before``: the record that this one replaced, because its end may not have been read yet.
    """

    pid: int
    began: str
    step: str = ""
    since: str = ""
    text: str = ""
    place: int | None = None
    reload: str = ""
    results: tuple[Mapping[str, Any], ...] = ()
    token: str = ""
    before: "HostReload | None" = None


class HostLock:
    """``<state directory>/reload-<service>.lock``, held inside the block."""

    def __init__(
        self,
        state_dir: Path,
        service: str,
        clock: Clock,
        timeout: float,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._path = state_file(state_dir, service, SUFFIX)
        self._service = service
        self._clock = clock
        self._timeout = timeout
        self._waiting = waiting
        self._lock = FileLock(self._path)
        self._record = HostReload(os.getpid(), "")

    def __enter__(self) -> "HostLock":
        """Acquire the lock. Raise `LockBusy` if another process still held it after ``timeout`` seconds."""
        with ExitStack() as opened:
            opened.enter_context(self._lock)
            with self._waiting():
                is_held = poll(self._lock.try_acquire, Deadline.after(self._clock, self._timeout), every=0.05)
            if not is_held:
                raise LockBusy(self._busy(), kind="reload-running")
            opened.pop_all()
        before = self.read()
        if before is not None:
            before = replace(before, text="", before=None) if before.results or before.step else before.before
        self._record = HostReload(os.getpid(), self._now(), token=os.environ.get(DAEMON_CHILD, ""), before=before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__()

    def record(self, event: StepEvent) -> None:
        """Record the step of this process's reload, and the last message about it."""
        record = self._record
        if event.phase is Phase.BEGIN:
            record = replace(record, step=str(event.step), since=self._now(), text="", place=None)
        elif event.phase is not Phase.NOTE:
            return
        place = record.place if event.place is None else event.place
        self._write(replace(record, text=event.text[:LONGEST_TEXT], place=place, reload=event.reload))

    def recording(self, report: Callable[[StepEvent], None]) -> Callable[[StepEvent], None]:
        """Return ``report`` with `record` before it."""

        def record(event: StepEvent) -> None:
            self.record(event)
            report(event)

        return record

    def record_end(self, *results: ReloadResult) -> None:
        """Record how it ended, without the output of containers and commands, which stays in the log."""
        ended = ({**asdict(one), "log_tail": "", "error": one.error and one.error[:LONGEST_TEXT]} for one in results)
        if results:
            self._write(replace(self._record, results=tuple(ended)))

    def restore_record(self) -> None:
        """Write the record again that this process found: it changed nothing that a reader must know."""
        if self._record.before is not None:
            self._write(self._record.before)

    def read(self) -> HostReload | None:
        """Return the file's content; None if there is no file, or if this version did not write it."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return _parsed(os.pread(descriptor, _LONGEST_FILE, 0))
        except OSError:  # a directory, or a pipe
            return None
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """Return the process that holds the lock, or None, without taking the lock even for a moment.

        The kernel lists its locks by process, device and inode (proc(5)). Some file systems show another device to
        programs; then the process ID that a reload writes to the file decides.
        """
        try:
            found, locks = self._path.stat(), _LOCKS.read_text().splitlines()
        except OSError:
            return None
        record = self.read()
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
        for line in locks:
            _number, kind, _advisory, _mode, pid, place, *_range = line.split()
            at, _, inode = place.rpartition(":")
            is_ours = at == device or (record is not None and pid == str(record.pid))
            if kind == "FLOCK" and inode == str(found.st_ino) and is_ours:
                return int(pid)
        return None

    def _busy(self) -> str:
        holder, record = self.holder(), self.read()
        who = f" (pid {holder})" if holder is not None else ""
        if record is not None and record.pid == holder:
            who = f" (pid {holder}, running since {record.began}, step {record.step or 'none yet'})"
        watch = quoted_command(["svcagent", "status", self._service])
        return (
            f"another reload of {self._service} runs on this host{who}. To wait for it, add --lock-timeout; to watch "
            f"it, run: {watch}"
        )

    def _write(self, record: HostReload) -> None:
        """Write one line; readers use only the first line, so the rest of a longer one does not matter.

        Space is allocated first, so that a full disk truncates no record: a shorter one or the old one is there then.
        """
        self._record = record
        shorter = replace(record, before=None)
        results = ({name: one[name] for name in _SHORT_RESULT if name in one} for one in record.results)
        shortest = replace(shorter, text="", results=tuple(results))
        for one in (record, shorter, shortest):
            line = f"{json.dumps(asdict(one), default=str)}\n".encode()
            with suppress(OSError):
                os.posix_fallocate(self._lock.descriptor, 0, len(line))
                os.pwrite(self._lock.descriptor, line, 0)
                os.ftruncate(self._lock.descriptor, len(line))
                return

    def _now(self) -> str:
        return self._clock.now().astimezone(UTC).isoformat(timespec="milliseconds")


def lock_files(state_dir: Path) -> Iterable[tuple[str, Path]]:
    """Return the services, by ID, that have been reloaded on this host, each with its lock file."""
    return [(service_of(file, SUFFIX), file) for file in sorted(state_dir.glob(f"reload-*{SUFFIX}"))]


def _parsed(content: bytes) -> HostReload | None:
    try:
        return _record_of(json.loads(content.partition(b"\n")[0]))
    except (ValueError, TypeError, RecursionError):
        return None


def _record_of(tree: Any) -> HostReload:
    """Return the record. Raise ValueError or TypeError unless all of it has the types that readers rely on."""
    if not isinstance(tree, dict):
        raise TypeError("not an object")
    record = HostReload(**{one.name: tree[one.name] for one in fields(HostReload) if one.name in tree})
    for name in ("began", "step", "since", "text", "reload", "token"):
        if not isinstance(getattr(record, name), str):
            raise TypeError(f"{name} is not a string")
    # A step has a time.
    for moment in (record.began, record.since if record.step else record.began):
        if datetime.fromisoformat(moment).tzinfo is None:
            raise ValueError("a time without a time zone")
    if type(record.pid) is not int or not (record.place is None or type(record.place) is int):
        raise TypeError("pid and place are numbers")
    before = None if record.before is None else _record_of(record.before)
    return replace(record, results=tuple(_result_of(one) for one in record.results), before=before)


def _result_of(tree: Any) -> Mapping[str, Any]:
    if not isinstance(tree, dict) or type(tree.get("exit_code", 0)) is not int:
        raise TypeError("not the result of a reload")
    if not isinstance(tree.get("retry_after"), int | float | None) or not isinstance(tree.get("outcome"), str | None):
        raise TypeError("not the result of a reload")
    return tree
