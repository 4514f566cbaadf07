"""The daemon's state: one line for systemd, and the status file that other commands read.

Readers detect the file of an ended daemon: it has the process ID and start time, and is rewritten every half minute.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.definitions import Settings
from agent.errors import Fault, SvcagentError
from agent.files import NotRegularFile, read_regular, write_atomically
from agent.logs import WARNING, log
from agent.text import counted

VERSION = 1
MODE = 0o640
DIRECTORY_MODE = 0o750
WRITE_SECONDS = 30.0
"""How often it is written if nothing changes."""
STALE_SECONDS = 90.0
"""Without an update for this long, the daemon hangs, or its machine was suspended."""
LONGEST_LINE = 200
MOST_NAMED = 3


@dataclass(frozen=True)
class ReloadStatus:
    """A running reload. ``text`` is its last message; ``why`` is empty if the daemon did not start it."""

    service: str
    step: str
    text: str
    since: datetime
    why: str
    pid: int | None = None
    id: str = ""

    def __str__(self) -> str:
        if self.step == "acquire" and self.text:
            return f"{self.service} waits: {self.text}"
        return f"{self.service}: {self.step or 'starting'}"


@dataclass(frozen=True)
class DaemonState:
    """The daemon's state; its fields are those of the status file.

    ``trouble`` is why the last convergence did not finish. ``faults`` are those of definitions. ``needs_consent`` is
    why changes wait for an operator's consent. ``failed`` has the services that could not be registered or
    deregistered, and why. ``unrecovered`` has the services whose crashed reload is not recovered yet, and why.
    """

    pid: int
    version: str
    since: datetime
    state_dir: str
    services_dir: str
    services: tuple[str, ...] = ()
    service_ids: tuple[str, ...] = ()
    is_ready: bool = False
    is_stopping: bool = False
    trouble: str = ""
    faults: tuple[Fault, ...] = ()
    needs_consent: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)
    unrecovered: Mapping[str, str] = field(default_factory=dict)
    reloads: tuple[ReloadStatus, ...] = ()
    converged_at: datetime | None = None
    next_runs: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The current state, the most important part first, in at most `LONGEST_LINE` characters."""
        files = len({one.file for one in self.faults})
        parts = [
            "stopping" if self.is_stopping else "",
            self.trouble,
            counted(len(self.services), "service") if self.is_ready else "starting",
            f"not recovered yet: {', '.join(sorted(self.unrecovered))}" if self.unrecovered else "",
            "removals need consent" if self.needs_consent else "",
            f"not registered as defined: {', '.join(sorted(self.failed))}" if self.failed else "",
            f"{counted(files, 'file')} with faults" if files else "",
            *map(str, self.reloads[:MOST_NAMED]),
            f"{len(self.reloads) - MOST_NAMED} more reloads" if len(self.reloads) > MOST_NAMED else "",
        ]
        line = ", ".join(filter(None, parts))
        return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"

    @property
    def document(self) -> dict[str, Any]:
        return {**asdict(self), "status": self.line}


class StatusFile:
    """The daemon's side. The directory of ``path`` is created if its parent exists."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._problem = ""

    def write(self, document: Mapping[str, Any]) -> None:
        """Write the status and the time. A failure is logged once, and stops nothing."""
        tree = {"v": VERSION, "at": self._clock.now(), "started": started(os.getpid()), **document}
        try:
            if not self._path.parent.exists():
                self._path.parent.mkdir(DIRECTORY_MODE)
            write_atomically(self._path, json.dumps(tree, default=str, indent=1) + "\n", MODE)
            self._problem = ""
        except (OSError, SvcagentError) as error:
            if str(error) != self._problem:
                log(f"cannot write the status file for svcagent status: {error}", level=WARNING)
            self._problem = str(error)

    def remove(self) -> None:
        with suppress(OSError):
            self._path.unlink()


@dataclass(frozen=True)
class DaemonStatus:
    """The daemon of these directories, according to the file.

    ``document`` is None if no such daemon runs or its state is unknown. ``problem`` is the reason, or says that the
    status is stale. ``is_unknown``: a daemon may be running. ``is_elsewhere``: a daemon runs with other directories.
    """

    document: Mapping[str, Any] | None
    problem: str = ""
    is_unknown: bool = False
    is_elsewhere: bool = False


def read_status(settings: Settings, clock: Clock) -> DaemonStatus:
    """Read the status file of the daemon that has the same directories as this process."""
    path = settings.daemon.status_file
    try:
        tree = json.loads(read_regular(path))
        if tree["v"] != VERSION:
            raise ValueError("another version wrote it")  # noqa: TRY301 - handled like all unusable content
        pid, at = int(tree["pid"]), datetime.fromisoformat(tree["at"])
        theirs = [Path(tree["state_dir"]).resolve(), Path(tree["services_dir"]).resolve()]
        is_gone = not _is_hidden(pid) and started(pid) != tree["started"]
        age = (clock.now() - at).total_seconds()
    except (FileNotFoundError, NotADirectoryError):
        return DaemonStatus(None, "does not run")
    except PermissionError as error:
        how = "run as root, or as a member of the file's group"
        return DaemonStatus(None, f"unknown: {path} cannot be read: {error.strerror}; {how}", is_unknown=True)
    except (OSError, NotRegularFile, ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        return DaemonStatus(None, f"unknown: {path} is invalid: {error}", is_unknown=True)
    if is_gone:
        return DaemonStatus(None, f"does not run: process {pid} has ended; its last status is from {tree['at']}")
    if theirs != [settings.state_dir.resolve(), settings.services_dir.resolve()]:
        places = f"{tree['state_dir']} and {tree['services_dir']}"
        return DaemonStatus(None, f"runs, but with other directories: {places}", is_elsewhere=True)
    if age > STALE_SECONDS:
        hangs = f"has not updated its status for {age:.0f} s; it may hang. Run: systemctl status svcagent"
        return DaemonStatus(tree, hangs)
    return DaemonStatus(tree)


def _is_hidden(pid: int) -> bool:
    """True if the process exists and /proc does not show it to this user, because it is mounted with hidepid."""
    if Path(f"/proc/{pid}").exists():
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks since boot; empty if there is no such process in /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
