"""Maintenance mode with an owner, a reason and an optional end."""

from agent.maintenance.change import await_shown, disable_own_maintenance, enable_maintenance
from agent.maintenance.clients import (
    ClientView,
    RemainingInstances,
    await_absence_from_dns,
    await_absence_from_health,
    await_dns_expiry,
    client_views,
    dns_cache_time,
    judge_remaining,
)
from agent.maintenance.expiry import ExpiredMaintenance, end_expired, find_expired
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
from agent.maintenance.times import InvalidTime, iso, length, local_time, parse_end
