"""The events and the result of a reload. Plain data; printing is elsewhere."""

from dataclasses import field
from enum import StrEnum
from typing import Any

from agent.data import dataclass
from agent.errors import SvcagentError
from agent.outcomes import Outcome
from agent.reload.steps import Step


class Phase(StrEnum):
    BEGIN = "begin"
    NOTE = "note"
    END = "end"
    FAILED = "failed"


@dataclass(frozen=True)
class StepEvent:
    """An event of a reload. ``seconds``: since the step began; ``text``: for a person; ``reload``: the reload's ID.

    ``place``: the position in the queue for the lock, if that changed.
    """

    step: Step
    phase: Phase
    seconds: float = 0.0
    text: str = ""
    reload: str = ""
    place: int | None = None


@dataclass
class ReloadResult:
    """How a reload ended. ``steps``: seconds by step, in order; ``engine``: seconds of parts of the restart.

    ``outcome``: None if it ended before it had one. ``kind``: that of the first failure; empty if nothing failed.
    ``running``, ``wanted``, ``newest`` (what the tag points to) and ``quarantined`` (by this reload) are digests;
    ``remark``: why ``wanted`` is; ``id``: the reload's. ``is_settled``: the new version passed the settle step; None if
    that was not reached. ``log_tail``: the last output of a failed container or command; it stays on this host.
    ``retry_after``: the seconds after which the registry may answer; None unless it refused because it was asked too
    often. Times are seconds since the epoch.
    """

    service: str
    node: str
    image: str
    id: str = ""
    outcome: Outcome | None = None
    kind: str = ""
    running: str | None = None
    wanted: str | None = None
    newest: str | None = None
    remark: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    engine: dict[str, float] = field(default_factory=dict)
    locked_at: float | None = None
    released_at: float | None = None
    quarantined: str = ""
    is_settled: bool | None = None
    log_tail: str = ""
    error: str | None = None
    exit_code: int = 0
    retry_after: float | None = None

    @classmethod
    def failed(cls, service: str, node: str, error: SvcagentError) -> "ReloadResult":
        """Return the result of a reload that could not begin."""
        return cls(
            service,
            node,
            "",
            outcome=Outcome.FAILED,
            kind=error.kind,
            error=f"{service}: {error}",
            exit_code=error.exit_code,
        )
