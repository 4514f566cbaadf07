"""What can be taken out of service, and what is to be done about it. Pure."""

from dataclasses import dataclass, replace
from enum import StrEnum

from agent.consul import NODE_MAINTENANCE, SERVICE_MAINTENANCE
from agent.maintenance.reason import Maintenance, OwnerKind


@dataclass(frozen=True)
class Target:
    """One service of this host, or with no ``service_id`` the host itself with all its services."""

    node: str
    service_id: str = ""
    name: str = ""

    @property
    def check_id(self) -> str:
        """The check by which Consul holds it out."""
        return f"{SERVICE_MAINTENANCE}{self.service_id}" if self.service_id else NODE_MAINTENANCE

    @property
    def argument(self) -> str:
        """How ``svcagent maint`` is told of it."""
        return self.service_id or "--node"

    def __str__(self) -> str:
        return self.service_id or f"{self.node} (this host)"


class Action(StrEnum):
    """What happens to one target."""

    ENABLE = "enable"
    REWRITE = "rewrite"
    LIFT = "lift"
    KEEP = "keep"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Decision:
    """What to do about one target: ``held`` is on it now, ``wanted`` comes after; ``remedy`` goes with a refusal."""

    target: Target
    action: Action
    held: Maintenance | None
    wanted: Maintenance | None = None
    remedy: str = ""


def decide_enable(
    target: Target, held: Maintenance | None, wanted: Maintenance, *, is_replacing: bool, is_forced: bool
) -> Decision:
    """Take it out, unless it belongs to somebody else.

    - in service: enable
    - out by the same person for the same reason: keep, or move the end if another one is wanted
    - out by a reload: refuse, unless replacing by force
    - out by anybody else, or for another reason: refuse, unless replacing

    Asking twice is harmless, so a command whose outcome was unknown may be repeated.
    """
    if held is None:
        return Decision(target, Action.ENABLE, None, wanted)
    if held.has_same_cause(wanted):
        if held.until == wanted.until:
            return Decision(target, Action.KEEP, held, held)
        return Decision(target, Action.REWRITE, held, replace(held, until=wanted.until))
    if held.kind is OwnerKind.RELOAD and not (is_replacing and is_forced):
        remedy = "that reload puts it back itself. To keep it out for you instead, add: --replace --force"
        return Decision(target, Action.REFUSE, held, remedy=remedy)
    if not is_replacing:
        return Decision(target, Action.REFUSE, held, remedy="it stays as it is. To take it over, add: --replace")
    return Decision(target, Action.REWRITE, held, wanted)


def decide_disable(target: Target, held: Maintenance | None, *, is_forced: bool) -> Decision:
    """Put it back, whoever took it out, except from a running reload: that one restores it when it is ready."""
    if held is None:
        return Decision(target, Action.KEEP, None)
    if held.kind is OwnerKind.RELOAD and not is_forced:
        remedy = (
            "that reload puts it back itself. If it is dead, run: svcagent recover. To put it back unseen, add: --force"
        )
        return Decision(target, Action.REFUSE, held, remedy=remedy)
    return Decision(target, Action.LIFT, held)
