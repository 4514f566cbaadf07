"""The daemon's state, as one line for systemd and as a document for the status file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from agent.errors import Fault
from agent.text import counted

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
            return f"{self.service} waiting: {self.text}"
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
