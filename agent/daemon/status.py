"""The daemon's state, as one line for systemd and as a document for the status file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

LONGEST_LINE = 200
MOST_NAMED = 3


@dataclass(frozen=True)
class Doing:
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
class Status:
    """The daemon's state.

    ``trouble`` is why the last convergence did not finish. ``faults`` are those of definitions. ``objection`` is why
    changes wait for an operator's consent. ``failed`` has the services that could not be registered or deregistered,
    and why. ``unrecovered`` has the services whose crashed reload is not recovered yet, and why.
    """

    pid: int
    version: str
    began: datetime
    state_dir: str
    services_dir: str
    services: tuple[str, ...] = ()
    service_ids: tuple[str, ...] = ()
    is_ready: bool = False
    is_stopping: bool = False
    trouble: str = ""
    faults: tuple[Mapping[str, str], ...] = ()
    objection: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)
    unrecovered: Mapping[str, str] = field(default_factory=dict)
    doing: tuple[Doing, ...] = ()
    converged_at: datetime | None = None
    next_runs: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The current state, the most important part first, in at most `LONGEST_LINE` characters."""
        parts = []
        if self.is_stopping:
            parts.append("stopping")
        if self.trouble:
            parts.append(self.trouble)
        count = len(self.services)
        parts.append(f"{count} service{'' if count == 1 else 's'}" if self.is_ready else "starting")
        if self.unrecovered:
            parts.append(f"not recovered yet: {', '.join(sorted(self.unrecovered))}")
        if self.objection:
            parts.append("removals need consent")
        if self.failed:
            parts.append(f"not registered as defined: {', '.join(sorted(self.failed))}")
        if self.faults:
            files = len({one["file"] for one in self.faults})
            parts.append(f"{files} file{'' if files == 1 else 's'} with faults")
        parts += [str(one) for one in self.doing[:MOST_NAMED]]
        if len(self.doing) > MOST_NAMED:
            parts.append(f"{len(self.doing) - MOST_NAMED} more reloads")
        line = ", ".join(parts)
        return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"

    @property
    def document(self) -> dict[str, Any]:
        return {
            "pid": self.pid,
            "version": self.version,
            "since": self.began,
            "state_dir": self.state_dir,
            "services_dir": self.services_dir,
            "status": self.line,
            "is_ready": self.is_ready,
            "is_stopping": self.is_stopping,
            "trouble": self.trouble,
            "services": list(self.services),
            "service_ids": list(self.service_ids),
            "faults": list(self.faults),
            "needs_consent": self.objection,
            "failed": dict(self.failed),
            "unrecovered": dict(self.unrecovered),
            "converged_at": self.converged_at,
            "reloads": [asdict(one) for one in self.doing],
            "next_runs": dict(self.next_runs),
        }
