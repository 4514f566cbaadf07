"""Maintenance mode with an owner, a reason and an optional end."""

from agent.maintenance.change import await_shown, lift_own, put_out, take_out
from agent.maintenance.clients import Left, View, await_unnamed, dns_memory, view, who_is_left
from agent.maintenance.drained import await_absence_from_dns, await_absence_from_health
from agent.maintenance.expiry import Ended, find_ended, lift_ended, lift_expired
from agent.maintenance.reason import (
    Maintenance,
    OwnerKind,
    by_operator,
    by_reload,
    is_finished_reload,
    is_of_reload,
    parse,
    render,
)
from agent.maintenance.target import Action, Decision, Target, decide_disable, decide_enable
from agent.maintenance.times import NotAMoment, for_people, iso, length, parse_end

__all__ = [
    "Action",
    "Decision",
    "Ended",
    "Left",
    "Maintenance",
    "NotAMoment",
    "OwnerKind",
    "Target",
    "View",
    "await_absence_from_dns",
    "await_absence_from_health",
    "await_shown",
    "await_unnamed",
    "by_operator",
    "by_reload",
    "decide_disable",
    "decide_enable",
    "dns_memory",
    "find_ended",
    "for_people",
    "is_finished_reload",
    "is_of_reload",
    "iso",
    "length",
    "lift_ended",
    "lift_expired",
    "lift_own",
    "parse",
    "parse_end",
    "put_out",
    "render",
    "take_out",
    "view",
    "who_is_left",
]
