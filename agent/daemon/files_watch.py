"""Notices that a definition has changed (inotify, by watchdog).

What has changed is found by reading, so that an event too many costs a look and no more. An event too few is made good
by the look that is taken once a minute anyway.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from agent.logs import WARNING, log

SETTLE_SECONDS = 0.2
"""Without another event: whoever writes several files, or one in several pieces, has come to an end."""
LONGEST_SECONDS = 0.5
"""After the first event, however many come after it."""

# Reading the directory is an event too, and not one of these.
_CHANGES: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]
_TEMPORARY = re.compile(r".*~|.*\.(sw[a-z]|tmp|bak|part)|4913|#.*#|\.(?!\.data$).*")
"""What editors and copying programs write beside a file; not the link ``..data`` by which Kubernetes swaps files."""


class FilesWatch(FileSystemEventHandler):
    """Calls ``changed`` on the event loop, once for all that happens at about the same time."""

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self._directory = directory
        self._loop = loop
        self._changed = changed
        self._observer = Observer()
        self._watched: tuple[int, int, Path] | None = None
        self._has_failed = False
        self._first: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch from now on."""
        self._observer.start()
        self.renew()

    def stop(self) -> None:
        """Watch no longer."""
        self._observer.stop()
        self._observer.join()

    def renew(self) -> None:
        """Watch the directory that has the name now, and the place where another may take it."""
        with suppress(OSError):
            found = self._directory.stat()
            there = (found.st_dev, found.st_ino, self._directory.resolve())
            if there == self._watched:
                return
            self._watched = there
        self._observer.unschedule_all()
        try:
            for place in {self._directory.resolve(), self._directory.parent.resolve()}:
                if place.is_dir():
                    self._observer.schedule(self, str(place), event_filter=_CHANGES)
            self._has_failed = False
        except OSError as error:
            self._watched = None
            if not self._has_failed:
                said = f"changes of {self._directory} are seen within a minute only: it cannot be watched ({error})"
                log(f"{said}. Raise fs.inotify.max_user_watches and max_user_instances", level=WARNING)
            self._has_failed = True

    def on_any_event(self, event: FileSystemEvent) -> None:
        """One event, in watchdog's thread."""
        paths = [Path(str(path)) for path in (event.src_path, event.dest_path) if path]
        if any(self._is_meant(path) for path in paths):
            self._loop.call_soon_threadsafe(self._settle)

    def _is_meant(self, path: Path) -> bool:
        if path.name == self._directory.name and path.parent == self._directory.parent.resolve():
            return True
        return path.parent == self._directory.resolve() and not _TEMPORARY.fullmatch(path.name)

    def _settle(self) -> None:
        now = self._loop.time()
        self._first = now if self._first is None else self._first
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(now + SETTLE_SECONDS, self._first + LONGEST_SECONDS), self._tell)

    def _tell(self) -> None:
        self._first = self._timer = None
        self.renew()
        self._changed()
