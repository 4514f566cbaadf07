"""What one convergence found and did."""

from dataclasses import dataclass

from agent.definitions import Definition
from agent.errors import Fault, SvcagentError
from agent.maintenance import ExpiredMaintenance, Maintenance, MaintenanceTarget
from agent.registration import Change


@dataclass(frozen=True)
class HeldMaintenance:
    target: MaintenanceTarget
    maintenance: Maintenance


@dataclass(frozen=True)
class ConvergenceResult:
    """One convergence. With ``trouble``, what could not be observed is unchanged since the last one."""

    definitions: tuple[Definition, ...] = ()
    """The definitions in force: the last valid version of every file."""
    faults: tuple[Fault, ...] = ()
    changes: tuple[Change, ...] = ()
    """The changes that were applied."""
    refused: tuple[Change, ...] = ()
    """Services of others, which svcagent did not register and leaves alone."""
    failed: tuple[tuple[str, SvcagentError], ...] = ()
    """IDs of services that could not be registered, deregistered or returned to service; and why."""
    kept: tuple[str, ...] = ()
    """IDs of services that no valid file defines any more, but a faulty file may."""
    objection: str = ""
    """Why changes wait for an operator's consent; empty if none do."""
    ended: tuple[ExpiredMaintenance, ...] = ()
    """Expired maintenance: disabled, or still enabled because checks fail."""
    out: tuple[HeldMaintenance, ...] = ()
    """Our services in maintenance; the host itself is last."""
    canary: str = ""
    """The ID of a service of ours in the agent; empty if there is none."""
    trouble: SvcagentError | None = None
    """Why it did not finish: Consul is unreachable or refuses the token, or another svcagent registers."""
    again_in: float | None = None
    """Seconds until the next run, if no event comes earlier; None: at the next minute."""
