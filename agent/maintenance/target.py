"""What can be in maintenance, and the decision to enable or disable it. Pure."""

from dataclasses import replace
from enum import StrEnum

from agent.consul import maintenance_check_id
from agent.data import dataclass
from agent.maintenance.reason import Maintenance, OwnerKind


@dataclass(frozen=True)
class MaintenanceTarget:
    """One service of this host; without a ``service_id`` the host with all its services."""

    node: str
    service_id: str = ""
    name: str = ""

    @property
    def check_id(self) -> str:
        return maintenance_check_id(self.service_id)

    @property
    def argument(self) -> str:
        """The argument of ``svcagent maint`` that selects it."""
        return self.service_id or "--node"

    def __str__(self) -> str:
        return self.service_id or f"{self.node} (this host)"


class MaintenanceAction(StrEnum):
    ENABLE = "enable"
    REWRITE = "rewrite"
    DISABLE = "disable"
    KEEP = "keep"
    REFUSE = "refuse"


@dataclass(frozen=True)
class MaintenanceDecision:
    """The decision for one target. ``held``: its maintenance now; ``wanted``: afterwards; ``remedy``: for a refusal."""

    target: MaintenanceTarget
    action: MaintenanceAction
    held: Maintenance | None
    wanted: Maintenance | None = None
    remedy: str = ""


def decide_enable(
    target: MaintenanceTarget, held: Maintenance | None, wanted: Maintenance, *, is_replacing: bool, is_forced: bool
) -> MaintenanceDecision:
    """Decide whether to enable maintenance. Idempotent, so a command whose outcome was unknown may be repeated.

    - none now: enable
    - the same owner and reason: keep, or change the end if it differs
    - a reload's: refuse, unless replacing by force
    - another owner or reason: refuse, unless replacing
    """
    if held is None:
        return MaintenanceDecision(target, MaintenanceAction.ENABLE, None, wanted)
    if held.has_same_cause(wanted):
        if held.until == wanted.until:
            return MaintenanceDecision(target, MaintenanceAction.KEEP, held, held)
        return MaintenanceDecision(target, MaintenanceAction.REWRITE, held, replace(held, until=wanted.until))
    if held.kind is OwnerKind.RELOAD and not (is_replacing and is_forced):
        remedy = "The reload will disable it. To replace it, add: --replace --force"
        return MaintenanceDecision(target, MaintenanceAction.REFUSE, held, remedy=remedy)
    if not is_replacing:
        return MaintenanceDecision(
            target, MaintenanceAction.REFUSE, held, remedy="Not changed. To replace it, add: --replace"
        )
    return MaintenanceDecision(target, MaintenanceAction.REWRITE, held, wanted)


def decide_disable(target: MaintenanceTarget, held: Maintenance | None, *, is_forced: bool) -> MaintenanceDecision:
    """Disable any owner's maintenance except a reload's, which the reload disables when the instance is ready."""
    if held is None:
        return MaintenanceDecision(target, MaintenanceAction.KEEP, None)
    if held.kind is OwnerKind.RELOAD and not is_forced:
        remedy = (
            "The reload will disable it. If the reload has crashed, run: svcagent recover. To disable maintenance "
            "although checks fail, add: --force"
        )
        return MaintenanceDecision(target, MaintenanceAction.REFUSE, held, remedy=remedy)
    return MaintenanceDecision(target, MaintenanceAction.DISABLE, held)
