"""Carrying a registration plan out: each service whole before the next one starts. Doing it again is harmless."""

from collections.abc import Callable, Iterable

from agent.consul import Consul
from agent.definitions import Check, Service
from agent.registration.plan import Action, Change


def apply_plan(consul: Consul, changes: Iterable[Change], done: Callable[[Change], None]) -> None:
    """Create, update and remove; ``done`` hears of each change that was made."""
    for change in changes:
        match change.action:
            case Action.CREATE | Action.UPDATE:
                consul.register_service(dict(change.body or {}))
                for check_id in change.stale_checks:
                    consul.deregister_check(check_id)
            case Action.REMOVE:
                consul.deregister_service(change.service_id)
            case Action.KEEP | Action.REFUSE:
                continue
        done(change)


def renew_checks_as_passing(consul: Consul, service: Service, seen_passing: Iterable[Check]) -> None:
    """Make the agent show these checks as passing now, instead of after their next interval.

    Only for checks that svcagent has just seen pass itself, on a service still in maintenance: for a moment each
    check does not exist. Registering over a check keeps its old status (Consul 1.8), so it is taken away first.
    """
    for check in seen_passing:
        consul.deregister_check(check.id)
        consul.register_check({**check.registration(), "ServiceID": service.id, "Status": "passing"})
