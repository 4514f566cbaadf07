"""Maintenance with an owner, a reason and an end. Lifts only what it may."""

from agent.maintenance.change import lift_expired, lift_own, put_out
from agent.maintenance.drained import await_absence_from_dns
from agent.maintenance.reason import Maintenance, OwnerKind, by_operator, by_reload, parse, render

__all__ = [
    "Maintenance",
    "OwnerKind",
    "await_absence_from_dns",
    "by_operator",
    "by_reload",
    "lift_expired",
    "lift_own",
    "parse",
    "put_out",
    "render",
]
