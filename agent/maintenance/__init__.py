"""Maintenance mode with an owner, a reason and an optional end."""

from agent.maintenance.change import await_shown, lift_own, put_out, take_out
from agent.maintenance.clients import ClientView, Left, await_unnamed, dns_memory, view, who_is_left
from agent.maintenance.drained import await_absence_from_dns, await_absence_from_health
from agent.maintenance.expiry import EndedMaintenance, find_ended, lift_ended, lift_expired
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
from agent.maintenance.target import (
    MaintenanceAction,
    MaintenanceDecision,
    MaintenanceTarget,
    decide_disable,
    decide_enable,
)
from agent.maintenance.times import NotAMoment, for_people, iso, length, parse_end
