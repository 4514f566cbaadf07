"""Tells that a definition changed, a moment after it did: inotify by watchdog, and a look at the files themselves.

What inotify says is a reason to look, and no more: editors write temporary files, rename, and write again. So after a
moment of quiet all definition files are looked at, and only if one of them is not as before is it told.

Watched are services.d, the directory above it, and each directory in which a symbolic link stands that leads to
services.d or from it to a file. Where the kernel has no watches left that is told, and whoever looks each minute
anyway finds the changes.

In use::

    files_watch = FilesWatch(settings.services_dir, changed)   # changed is called in the watch's own thread
    files_watch.start()                                        # what changes from now on is told
    files_watch.stop()                                         # within a second
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
"""Without an event: whoever was writing is done."""
LONGEST_SECONDS = 0.5
"""From the first event, however many follow."""
RENEW_SECONDS = 60.0
"""How often the watches are looked after with no event: what was mounted, or renamed far above, sends none."""
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
"""Not reading: the daemon itself reads these files each minute."""

Look: TypeAlias = tuple[tuple[object, ...], ...]


class FilesWatch(FileSystemEventHandler):
    """A thread from `start` to `stop`, beside those of watchdog."""

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
        """Begin."""
        self._renew()
        self._seen = _look(self._directory)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        with self._news:
            self._is_stopping = True
            self._news.notify()
        self._thread.join()
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()

    def on_any_event(self, _event: FileSystemEvent) -> None:
        """What watchdog calls, in a thread of its own."""
        with self._news:
            self._due = monotonic() + QUIET_SECONDS
            self._news.notify()

    def _watch(self) -> None:
        while self._await_quiet():
            try:
                self._look_again()
            except Exception as error:  # noqa: BLE001 - a thread that ends would leave changes to the next minute
                log_bug(f"watching {self._directory} met a bug in svcagent; please report it", error)

    def _look_again(self) -> None:
        self._renew()
        seen = _look(self._directory)
        if seen != self._seen:
            self._seen = seen
            self._changed()

    def _await_quiet(self) -> bool:
        """Wait for events and then for their end, or until it is time to renew; False to stop."""
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
        """Watch the directories that matter now, and no others; say once if that cannot be."""
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
            # One that was deleted and made again may have the same number.
            if wanted.get(path) != node or watch in ended:
                self._observer.unschedule(watch)
                del self._watches[path]
        for path, node in wanted.items():
            if path not in self._watches:
                with suppress(FileNotFoundError):  # gone again: the directory above it tells
                    watch = self._observer.schedule(self, str(path), event_filter=_EVENTS)
                    self._watches[path] = (watch, node)


def _look(directory: Path) -> Look:
    """What tells whether a definition file is still the same; of a link, the file that it leads to."""
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
    """Those in which something may change that changes a definition, by their real paths."""
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
    """The directories of all links on the way to a path, and at the end where it leads, as far as that is there."""
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
