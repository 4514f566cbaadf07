"""What one convergence found and did, as plain data."""

from dataclasses import dataclass

from agent.consul import AgentSelf
from agent.definitions import Definition
from agent.errors import Fault, SvcagentError
from agent.maintenance import Ended, Maintenance, Target
from agent.registration import Change


@dataclass(frozen=True)
class Out:
    """A target in maintenance."""

    target: Target
    maintenance: Maintenance


@dataclass(frozen=True)
class Converged:
    """One convergence. After ``trouble``, what could not be observed is as it was last time."""

    definitions: tuple[Definition, ...] = ()
    """The definitions in force: the last good version of every file."""
    faults: tuple[Fault, ...] = ()
    agent: AgentSelf | None = None
    """None until it has answered."""
    changes: tuple[Change, ...] = ()
    """The changes that were applied."""
    refused: tuple[Change, ...] = ()
    """Services that svcagent did not register, and leaves alone."""
    failed: tuple[tuple[str, SvcagentError], ...] = ()
    """Services, by ID, that could not be registered, removed or returned to service; and why."""
    kept: tuple[str, ...] = ()
    """Services, by ID, that no good file defines any more, but a faulty file may."""
    objection: str = ""
    """Why changes were withheld that need an operator's consent; empty if none were."""
    ended: tuple[Ended, ...] = ()
    """Maintenance whose end has come: disabled, or still enabled because checks fail."""
    out: tuple[Out, ...] = ()
    """Our services that are in maintenance, and the host itself last."""
    canary: str = ""
    """The ID of a service of ours that the agent holds; empty if there is none."""
    trouble: SvcagentError | None = None
    """Why it did not finish: Consul cannot be reached or refuses the token, or another svcagent registers."""
    again_in: float | None = None
    """Seconds until it should run again even if nothing happens; None: at the next minute."""
    seconds: float = 0.0
    """How long it took."""
