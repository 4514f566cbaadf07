"""Carrying a registration plan out: each service whole before the next one starts. Doing it again is harmless.

Killed at any moment, the next run finishes: what is there is always either marked as ours or not there at all.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.consul import Consul
from agent.definitions import Check, Service
from agent.registration.mark import HOLD, leaving
from agent.registration.plan import Action, Change


def apply_plan(
    consul: Consul, changes: Iterable[Change], done: Callable[[Change], None], probe: Callable[[Check], str]
) -> None:
    """Create, update and remove services; call ``done`` after each change that was made.

    ``probe`` returns the status that a check has now. It is called for checks that are new on a service which clients
    are being sent to: with Consul's default, critical, they would take it out of service until their first run.
    """
    for change in changes:
        match change.action:
            case Action.CREATE | Action.UPDATE:
                _register(consul, change, probe)
            case Action.REMOVE:
                consul.deregister_service(change.service_id)
            case Action.KEEP | Action.REFUSE:
                continue
        done(change)


def renew_checks(consul: Consul, service: Service, statuses: Mapping[str, str]) -> None:
    """Make the agent show these checks, by ID, with these statuses until it has run them again.

    Only for a service in maintenance: for a moment each check does not exist. Registering over a check keeps its old
    status (Consul 1.8), so it is deregistered first.
    """
    for check in service.checks:
        if check.id in statuses:
            consul.deregister_check(check.id)
            consul.register_check({**check.registration(), "ServiceID": service.id, "Status": str(statuses[check.id])})


def _register(consul: Consul, change: Change, probe: Callable[[Check], str]) -> None:
    body = _with_statuses(change, probe)
    replaced = change.replaced_checks or {}
    stale = list(change.stale_checks)
    if change.action is Action.UPDATE and "critical" in replaced.values():
        # Between taking a failing check away and putting the other one there, clients would be sent to the service.
        hold = {"ID": HOLD + change.service_id, "Name": "being exchanged", "TTL": "1h", "Status": "critical"}
        consul.register_check({**hold, "ServiceID": change.service_id})
        stale.append(hold["ID"])
    for check_id in replaced:
        # Registered over, the old check would run on beside the new one (Consul 1.8).
        consul.deregister_check(check_id)
    if stale:
        consul.register_service(leaving(body, stale))
        for check_id in stale:
            consul.deregister_check(check_id)
    consul.register_service(body)


def _with_statuses(change: Change, probe: Callable[[Check], str]) -> dict[str, Any]:
    """The body, with the status that each check begins with where that is known.

    Consul heeds it for checks that are not there yet, and keeps the status of all others.
    """
    known = {
        **{check_id: status for check_id, status in (change.replaced_checks or {}).items() if status},
        **{check.id: str(probe(check)) for check in change.new_checks},
    }
    body = dict(change.body or {})
    body["Checks"] = [
        {"Status": known[check["CheckID"]], **check} if check["CheckID"] in known else check for check in body["Checks"]
    ]
    return body
