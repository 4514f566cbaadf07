"""What one convergence found and did, as plain data."""

from dataclasses import dataclass

from agent.consul import AgentSelf
from agent.definitions import Definition
from agent.errors import Fault, SvcagentError
from agent.maintenance import Ended, Maintenance, Target
from agent.registration import Change


@dataclass(frozen=True)
class Out:
    """What is out of service; whose it is, since when and until when is in its maintenance."""

    target: Target
    maintenance: Maintenance


@dataclass(frozen=True)
class Converged:
    """One convergence. After ``trouble``, what could not be seen is as it was seen last."""

    definitions: tuple[Definition, ...] = ()
    """What the daemon goes by: of every file the last good version."""
    faults: tuple[Fault, ...] = ()
    agent: AgentSelf | None = None
    """None until it was seen."""
    changes: tuple[Change, ...] = ()
    """What was carried out."""
    refused: tuple[Change, ...] = ()
    """Services that are somebody else's to change."""
    failed: tuple[tuple[str, SvcagentError], ...] = ()
    """Services, by ID, that the agent would not take, give up or put back; and why."""
    kept: tuple[str, ...] = ()
    """Services, by ID, that no good file defines any more, and a faulty one may."""
    objection: str = ""
    """Why changes were withheld that need an operator's consent; empty if none were."""
    ended: tuple[Ended, ...] = ()
    """Maintenances whose end has come: those lifted, and those that stay on because checks fail."""
    out: tuple[Out, ...] = ()
    """Services of ours, and the host itself last."""
    canary: str = ""
    """The ID of a service of ours that the agent holds; empty if there is none."""
    trouble: SvcagentError | None = None
    """Why it did not come to its end: Consul cannot be reached, refuses the token, another svcagent registers."""
    again_in: float | None = None
    """Seconds until it should run again even if nothing happens; None: at the next minute."""
    seconds: float = 0.0
    """How long it took."""
