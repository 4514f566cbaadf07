"""Report that a definition changed, using watchdog's inotify and then the files' own attributes.

An inotify event only triggers a check: editors write temporary files, rename, and write again. After a moment without
events, all definition files are checked, and a change is reported only if one of them differs.

The watch covers services.d, its parent, and each directory with a symbolic link that leads to services.d or from it to
a file. If the kernel has no watches left, that is logged, and the convergence each minute finds the changes.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TypeAlias

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import ObservedWatch
from watchdog.observers.inotify import InotifyObserver

from agent.definitions import files_of
from agent.errors import BadDefinition
from agent.logs import WARNING, log, log_bug

QUIET_SECONDS = 0.2
"""Seconds without an event after which a writer is considered done."""
LONGEST_SECONDS = 0.5
"""Limit in seconds from the first event, however many follow."""
RENEW_SECONDS = 60.0
"""How often to renew the watches without an event. Mounts and renames far above send none."""
MOST_LINKS = 40
"""The kernel's own limit for one path."""

_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
]
"""Without read events, because the daemon itself reads these files each minute."""

Look: TypeAlias = tuple[tuple[object, ...], ...]


class FilesWatch(FileSystemEventHandler):
    """A thread from `start` to `stop`, in addition to watchdog's own. It runs ``changed``, too."""

    def __init__(self, services_dir: Path, changed: Callable[[], None]) -> None:
        self._directory = services_dir
        self._changed = changed
        self._observer: InotifyObserver | None = None
        self._watches: dict[Path, tuple[ObservedWatch, tuple[int, int]]] = {}
        self._trouble = ""
        self._news = threading.Condition()
        self._due: float | None = None
        self._is_stopping = False
        self._seen: Look = ()
        self._thread = threading.Thread(target=self._watch, name="files-watch", daemon=True)

    def start(self) -> None:
        self._renew()
        self._seen = _look(self._directory)
        self._thread.start()

    def stop(self) -> None:
        """Stop within a second."""
        with self._news:
            self._is_stopping = True
            self._news.notify()
        self._thread.join()
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()

    def on_any_event(self, _event: FileSystemEvent) -> None:
        """Called by watchdog in its own thread."""
        with self._news:
            self._due = monotonic() + QUIET_SECONDS
            self._news.notify()

    def _watch(self) -> None:
        while self._await_quiet():
            try:
                self._look_again()
            except Exception as error:  # noqa: BLE001 - without this thread, changes would wait for the next minute
                log_bug(f"watching {self._directory} met a bug in svcagent; please report it", error)

    def _look_again(self) -> None:
        self._renew()
        seen = _look(self._directory)
        if seen != self._seen:
            self._seen = seen
            self._changed()

    def _await_quiet(self) -> bool:
        """Wait for events to begin and end, or until a renewal is due. Return False to stop."""
        with self._news:
            self._news.wait_for(lambda: self._is_stopping or self._due is not None, RENEW_SECONDS)
            latest = monotonic() + LONGEST_SECONDS
            while not self._is_stopping and self._due is not None:
                left = min(self._due, latest) - monotonic()
                if left <= 0:
                    break
                self._news.wait(left)
            self._due = None
            return not self._is_stopping

    def _renew(self) -> None:
        """Watch exactly the directories that matter now. Log once if that is impossible."""
        try:
            self._renew_watches()
        except OSError as error:
            trouble = (
                f"changes in {self._directory} are noticed within a minute, not at once: it cannot be watched "
                f"({error.strerror}). Raise fs.inotify.max_user_watches and fs.inotify.max_user_instances with sysctl"
            )
            if trouble != self._trouble:
                log(trouble, level=WARNING)
            self._trouble = trouble
        else:
            if self._trouble:
                log(f"{self._directory} is watched again")
            self._trouble = ""

    def _renew_watches(self) -> None:
        if self._observer is None:
            observer = InotifyObserver()
            observer.start()
            self._observer = observer
        ended = {emitter.watch for emitter in self._observer.emitters if not emitter.should_keep_running()}
        wanted = {path: node for path in _directories(self._directory) if (node := _node(path)) is not None}
        for path, (watch, node) in list(self._watches.items()):
            # A directory that was deleted and created again may have the same inode number.
            if wanted.get(path) != node or watch in ended:
                self._observer.unschedule(watch)
                del self._watches[path]
        for path, node in wanted.items():
            if path not in self._watches:
                with suppress(FileNotFoundError):  # gone again: the parent's watch reports it
                    watch = self._observer.schedule(self, str(path), event_filter=_EVENTS)
                    self._watches[path] = (watch, node)


def _look(directory: Path) -> Look:
    """Return the attributes that change with a definition file; for a link, those of its target."""
    try:
        return tuple(_state(file) for file in files_of(directory))
    except BadDefinition as error:
        return ((str(error),),)


def _state(file: Path) -> tuple[object, ...]:
    try:
        found = file.stat()
    except OSError as error:
        return file.name, error.errno
    return file.name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _directories(services_dir: Path) -> Iterator[Path]:
    """Yield the real paths of the directories in which a change may affect a definition."""
    *above, real = _way(services_dir)
    yield from above
    yield next(one for one in real.parents if one.is_dir())
    yield real
    try:
        entries = list(os.scandir(real))
    except OSError:
        return
    for entry in entries:
        if entry.is_symlink() and entry.name.endswith(".json"):
            *above, real_file = _way(Path(entry.path))
            yield from above
            yield real_file.parent


def _way(path: Path) -> Iterator[Path]:
    """Yield the directory of each link on a path, and finally its target, as far as it exists."""
    real, left, links = Path("/"), list(path.absolute().parts[1:]), 0
    while left:
        step = real / left.pop(0)
        if step.is_symlink() and links < MOST_LINKS:
            links += 1
            yield real
            target = step.readlink()
            left[:0] = target.parts[1:] if target.is_absolute() else target.parts
            real = Path("/") if target.is_absolute() else real
        else:
            real = real.parent if step.name == ".." else step
    yield real


def _node(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
