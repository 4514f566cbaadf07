"""Watch the daemon's directories by inotify: services.d for changed definitions, the state directory for reloads.

What inotify does not report (a mount, a directory that was replaced, a target of a symbolic link that was written) is
found by the convergence each minute.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TypeAlias

from watchdog import events
from watchdog.observers.inotify import InotifyObserver

from agent.definitions import definition_files
from agent.errors import BadDefinition
from agent.logs import INFO, WARNING, log, log_bug
from agent.registration import LAST_SEEN_FILE

QUIET_SECONDS = 0.2
"""Seconds without an event after which a writer is considered done."""
LONGEST_SECONDS = 0.5
"""Limit in seconds from the first event, however many follow."""
RENEW_SECONDS = 60.0
"""How often to check, without an event, that the directory that is there now is watched."""

_EVENTS: list[type[events.FileSystemEvent]] = [
    events.DirDeletedEvent,
    events.FileClosedEvent,
    events.FileCreatedEvent,
    events.FileDeletedEvent,
    events.FileModifiedEvent,
    events.FileMovedEvent,
]
"""Without read events, because the daemon itself reads these files each minute."""

FileAttributes: TypeAlias = tuple[tuple[object, ...], ...]


class FilesWatch(events.FileSystemEventHandler):
    """Calls ``changed`` in its own thread after a definition file has changed.

    An event only triggers a check: editors write temporary files, rename, and write again. After a moment without
    events the attributes of all files are compared.
    """

    def __init__(self, services_dir: Path, changed: Callable[[], None]) -> None:
        self._directory = services_dir
        self._changed = changed
        self._observer = InotifyObserver()
        self._watched: tuple[int, int] | None = None
        self._trouble = ""
        self._news = threading.Condition()
        self._due: float | None = None
        self._is_stopping = False
        self._seen: FileAttributes = ()
        self._thread = threading.Thread(target=self._watch, name="files-watch", daemon=True)

    def start(self) -> None:
        self._observer.start()
        self._renew()
        self._seen = _attributes(self._directory)
        self._thread.start()

    def stop(self) -> None:
        """Stop within a second."""
        with self._news:
            self._is_stopping = True
            self._news.notify()
        self._thread.join()
        self._observer.stop()
        self._observer.join()

    def on_any_event(self, _event: events.FileSystemEvent) -> None:
        """Called by watchdog in its own thread."""
        with self._news:
            self._due = monotonic() + QUIET_SECONDS
            self._news.notify()

    def _watch(self) -> None:
        while self._await_quiet():
            try:
                self._renew()
                seen = _attributes(self._directory)
                if seen != self._seen:
                    self._seen = seen
                    self._changed()
            except Exception as error:  # noqa: BLE001 - without this thread, changes would wait for the next minute
                log_bug(f"watching {self._directory}: a bug in svcagent; please report it", error)

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
        """Watch the directory that is there now. Log once if that is impossible."""
        try:
            found = self._directory.stat()
        except OSError:
            return  # the convergence reports it
        trouble = ""
        try:
            # A directory that was deleted and created again may have the same inode number; its old watch has ended.
            is_watched = any(one.should_keep_running() for one in self._observer.emitters)
            if not is_watched or self._watched != (found.st_dev, found.st_ino):
                self._observer.unschedule_all()
                self._observer.schedule(self, str(self._directory.resolve()), event_filter=_EVENTS)
                self._watched = found.st_dev, found.st_ino
        except OSError as error:
            trouble = (
                f"changes in {self._directory} are noticed within a minute: it cannot be watched "
                f"({error.strerror}). Raise fs.inotify.max_user_watches and fs.inotify.max_user_instances with sysctl"
            )
        if trouble != self._trouble:
            log(trouble or f"{self._directory} is watched again", level=WARNING if trouble else INFO)
        self._trouble = trouble


class StateWatch(events.FileSystemEventHandler):
    """Watches the state directory. Callbacks run in watchdog's thread.

    ``reloads_changed``: a reload of this host began, reached another step or ended. ``noted``: a command recorded a
    change of maintenance or registration.
    """

    def __init__(self, state_dir: Path, reloads_changed: Callable[[], None], noted: Callable[[], None]) -> None:
        self._state_dir = state_dir
        self._reloads_changed = reloads_changed
        self._noted = noted
        self._observer = InotifyObserver()

    def start(self) -> None:
        """Start watching. Without inotify, changes are noticed at the next convergence."""
        self._observer.start()
        try:
            self._observer.schedule(self, str(self._state_dir), event_filter=_EVENTS)
        except OSError as error:
            log(f"reloads are noticed within a minute: {self._state_dir} cannot be watched: {error}", level=WARNING)

    def stop(self) -> None:
        self._observer.stop()
        self._observer.join()

    def on_any_event(self, event: events.FileSystemEvent) -> None:
        for path in {event.src_path, event.dest_path}:
            name = Path(str(path)).name
            if name.startswith("reload-"):
                self._reloads_changed()
            elif name == LAST_SEEN_FILE:
                self._noted()


def _attributes(directory: Path) -> FileAttributes:
    """Return the attributes that change with a definition file; for a link, those of its target."""
    try:
        return tuple(_attributes_of(file) for file in definition_files(directory))
    except BadDefinition as error:
        return ((str(error),),)


def _attributes_of(file: Path) -> tuple[object, ...]:
    try:
        found = file.stat()
    except OSError as error:
        return file.name, error.errno
    return file.name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
