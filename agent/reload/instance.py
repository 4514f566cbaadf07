"""This host's instance of a service, as Consul's catalog and the local agent show it."""

import ipaddress
from collections.abc import Callable

from agent.consul import Consul, Instance, LocalService
from agent.definitions import Service
from agent.maintenance import Maintenance, parse
from agent.registration import AgentState, ChangeAction, apply_change, make_plan


def own_instance(instances: tuple[Instance, ...], node: str, service_id: str) -> Instance | None:
    return next((one for one in instances if one.node == node and one.service_id == service_id), None)


def maintenance_of(shown: LocalService | Instance | None) -> Maintenance | None:
    return parse(shown.maintenance.notes) if shown is not None and shown.maintenance is not None else None


def ip_of(address: str) -> str | None:
    """Return the address if it is numeric: Consul accepts host names, but connections show numbers."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return None


def register_again(consul: Consul, service: Service, note: Callable[[str], None]) -> LocalService | None:
    """Register a service that the agent forgot in a restart; return None if another service has the ID.

    It is in service immediately, so it must have been seen ready right before.
    """
    plan = make_plan([service], AgentState(*consul.services_and_checks()), frozenset({service.id}))
    for change in plan:
        if change.action is ChangeAction.CREATE:
            note("the service was missing from the Consul agent; it is registered again")
            apply_change(consul, change, lambda _check: "passing")
    return consul.services().get(service.id)
