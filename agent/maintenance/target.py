"""What can be in maintenance, and the decision to enable or disable it. Pure."""

from dataclasses import replace
from enum import StrEnum

from agent.consul import NODE_MAINTENANCE, SERVICE_MAINTENANCE
from agent.data import dataclass
from agent.maintenance.reason import Maintenance, OwnerKind


@dataclass(frozen=True)
class Target:
    """One service of this host; without a ``service_id`` the host with all its services."""

    node: str
    service_id: str = ""
    name: str = ""

    @property
    def check_id(self) -> str:
        """The ID of the check with which Consul holds it in maintenance."""
        return f"{SERVICE_MAINTENANCE}{self.service_id}" if self.service_id else NODE_MAINTENANCE

    @property
    def argument(self) -> str:
        """The argument of ``svcagent maint`` that selects it."""
        return self.service_id or "--node"

    def __str__(self) -> str:
        return self.service_id or f"{self.node} (this host)"


class Action(StrEnum):
    ENABLE = "enable"
    REWRITE = "rewrite"
    LIFT = "lift"
    KEEP = "keep"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Decision:
    """The decision for one target. ``held``: its maintenance now; ``wanted``: afterwards; ``remedy``: for a refusal."""

    target: Target
    action: Action
    held: Maintenance | None
    wanted: Maintenance | None = None
    remedy: str = ""


def decide_enable(
    target: Target, held: Maintenance | None, wanted: Maintenance, *, is_replacing: bool, is_forced: bool
) -> Decision:
    """Decide whether to enable maintenance. Idempotent, so a command whose outcome was unknown may be repeated.

    - none now: enable
    - the same owner and reason: keep, or change the end if it differs
    - a reload's: refuse, unless replacing by force
    - another owner or reason: refuse, unless replacing
    """
    if held is None:
        return Decision(target, Action.ENABLE, None, wanted)
    if held.has_same_cause(wanted):
        if held.until == wanted.until:
            return Decision(target, Action.KEEP, held, held)
        return Decision(target, Action.REWRITE, held, replace(held, until=wanted.until))
    if held.kind is OwnerKind.RELOAD and not (is_replacing and is_forced):
        remedy = "that reload disables it itself. To take it over, add: --replace --force"
        return Decision(target, Action.REFUSE, held, remedy=remedy)
    if not is_replacing:
        return Decision(target, Action.REFUSE, held, remedy="it stays as it is. To take it over, add: --replace")
    return Decision(target, Action.REWRITE, held, wanted)


def decide_disable(target: Target, held: Maintenance | None, *, is_forced: bool) -> Decision:
    """Disable any owner's maintenance except a reload's, which the reload disables when the instance is ready."""
    if held is None:
        return Decision(target, Action.KEEP, None)
    if held.kind is OwnerKind.RELOAD and not is_forced:
        remedy = (
            "that reload disables it itself. If it has crashed, run: svcagent recover. To disable it whatever its "
            "checks say, add: --force"
        )
        return Decision(target, Action.REFUSE, held, remedy=remedy)
    return Decision(target, Action.LIFT, held)
