"""The plan: what has to change so that the agent holds the services of services.d/. Pure.

The cases, by service ID:

- defined, not registered: create
- defined, registered with svcagent's mark, no difference: keep
- defined, registered with svcagent's mark, different: update
- defined, registered without the mark: refuse, or update to adopt it
- defined, registered under an ID that differs only by case: replace it, because Consul's catalog keeps only one of
  them; without the mark: refuse
- defined, but a service without the mark, or the node, has one of its CheckIDs: refuse, because Consul would move the
  check
- not defined, registered with the mark: remove, last
- not defined, registered without the mark: ignore
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from agent.consul import CheckState, LocalService
from agent.data import dataclass
from agent.definitions import Check, Service
from agent.registration.difference import Difference, differences, is_other_type
from agent.registration.mark import is_own, own_checks, owner, registration

NO_MAINTENANCE: Mapping[str, str] = MappingProxyType({})


DEFINITION_CHANGED = "its definition changed"
"""The reason of an update that its differences show."""


class ChangeAction(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    REMOVE = "remove"
    KEEP = "keep"
    REFUSE = "refuse"


class RefusalKind(StrEnum):
    FOREIGN_SERVICE = "not-created-by-svcagent"
    FOREIGN_CHECK = "check-id-in-use"
    UNKNOWN_NODE = "alias-node-unknown"


@dataclass(frozen=True)
class Change:
    """The change of one service, with everything that is needed to apply it. ``kind``: why it is refused."""

    action: ChangeAction
    service_id: str
    why: str
    body: Mapping[str, Any] | None = None
    """The registration, without the initial status of new checks."""
    differences: tuple[Difference, ...] = ()
    replaced_checks: Mapping[str, str] | None = None
    """Checks to deregister first: those whose type changes, with the status that the new one inherits, and those of
    another service of svcagent, with an empty status."""
    new_checks: tuple[Check, ...] = ()
    """Checks that have not run yet, of a service that clients are sent to."""
    stale_checks: tuple[str, ...] = ()
    """Checks of svcagent to deregister afterwards."""
    maintenance: str | None = None
    """The reason text of the maintenance to register the service in; None to leave maintenance as it is."""
    replaces: str = ""
    """The ID of a service of svcagent to deregister right before, because Consul treats both IDs as the same."""
    kind: RefusalKind | None = None


@dataclass(frozen=True)
class AgentState:
    """The agent's services, and all of its checks including the node's."""

    services: Mapping[str, LocalService]
    checks: Mapping[str, CheckState]


def make_plan(
    wanted: Iterable[Service],
    world: AgentState,
    only: frozenset[str] = frozenset(),
    *,
    is_adopting: bool = False,
    maintenance: Mapping[str, str] = NO_MAINTENANCE,
) -> tuple[Change, ...]:
    """Return the changes in order of service ID, removals last. ``only``: names or IDs to restrict them to.

    ``maintenance``: reason texts by service ID, for services to register in maintenance if they are not registered.
    """
    by_id = {service.id: service for service in wanted}
    chosen = [service for service in by_id.values() if not only or {service.id, service.name} & only]
    claimed = {check.id: service.id for service in chosen for check in service.checks}
    changes = sorted(
        (_wanted(service, world, claimed, is_adopting=is_adopting) for service in chosen),
        key=lambda change: change.service_id,
    )
    changes = [
        replace(change, maintenance=maintenance[change.service_id])
        if change.action is ChangeAction.CREATE and change.maintenance is None and change.service_id in maintenance
        else change
        for change in changes
    ]
    replaced = {change.replaces for change in changes}
    gone = sorted(
        found.id
        for found in world.services.values()
        if is_own(found)
        and found.id not in by_id
        and found.id not in replaced
        and (not only or {found.id, found.name} & only)
    )
    changes += [Change(ChangeAction.REMOVE, one, "no definition file defines it") for one in gone]
    return tuple(changes)


def make_removal(there: Mapping[str, LocalService], only: frozenset[str] = frozenset()) -> tuple[Change, ...]:
    """Return the removal of all services of svcagent, or of ``only`` (names or IDs); refuse services of others."""
    changes = []
    for found in sorted(there.values(), key=lambda service: service.id):
        if only and not {found.id, found.name} & only:
            continue
        if is_own(found):
            changes.append(Change(ChangeAction.REMOVE, found.id, "requested"))
        elif only:
            changes.append(_refused(found.id, RefusalKind.FOREIGN_SERVICE, f"{_whose(found)}; deregister it there"))
    return tuple(changes)


def is_current(service: Service, found: LocalService) -> bool:
    """True if the agent holds exactly what the definition says."""
    return is_own(found) and not differences(registration(service), found)


def _refused(service_id: str, kind: RefusalKind, why: str) -> Change:
    return Change(ChangeAction.REFUSE, service_id, why, kind=kind)


def nodes_followed(change: Change) -> frozenset[str]:
    checks = change.body["Checks"] if change.body is not None else ()
    return frozenset(check["AliasNode"] for check in checks if "AliasNode" in check)


def refused_for_nodes(change: Change, unknown: Iterable[str]) -> Change:
    """Refuse a change that refers to these nodes, because it would crash a Consul 1.8 agent."""
    why = (
        f"its check follows the node {', '.join(sorted(unknown))}, which is not in the catalog, and Consul 1.8's agent "
        "crashes on that; correct alias_node, or register again when the node has joined"
    )
    return _refused(change.service_id, RefusalKind.UNKNOWN_NODE, why)


def _wanted(service: Service, world: AgentState, claimed: Mapping[str, str], *, is_adopting: bool) -> Change:
    found = world.services.get(service.id)
    if found is not None and not is_own(found) and not is_adopting:
        why = f"{_whose(found)}; deregister it there, choose another id, or take it over with --adopt"
        return _refused(service.id, RefusalKind.FOREIGN_SERVICE, why)
    taken = {
        check.id: world.checks[check.id]
        for check in service.checks
        if check.id in world.checks and world.checks[check.id].service_id != service.id
    }
    foreign = sorted(check_id for check_id, check in taken.items() if not _is_of_own_service(check, world))
    if foreign:
        return _refused(service.id, RefusalKind.FOREIGN_CHECK, _not_our_check(taken[foreign[0]]))
    change = Change(
        ChangeAction.CREATE,
        service.id,
        "not registered yet",
        registration(service),
        replaced_checks=dict.fromkeys(taken, ""),
    )
    if found is not None:
        return _compared(change, service, found, claimed)
    twin = next((one for one in world.services.values() if one.id.casefold() == service.id.casefold()), None)
    return change if twin is None else _replacing(change, service, twin)


def _replacing(change: Change, service: Service, twin: LocalService) -> Change:
    """Return the change for a service whose ID differs only by case from a registered one."""
    if not is_own(twin):
        why = (
            f"Consul treats its ID as the same as {twin.id}, {_whose(twin)}; deregister that one there, or choose "
            "another id"
        )
        return _refused(service.id, RefusalKind.FOREIGN_SERVICE, why)
    is_serving = all(check.status != "critical" for check in twin.real_checks)
    return replace(
        change,
        why=f"replaces {twin.id}, which Consul treats as the same ID",
        replaces=twin.id,
        new_checks=service.checks if is_serving else (),
        maintenance=twin.maintenance.notes if twin.maintenance else None,
    )


def _compared(change: Change, service: Service, found: LocalService, claimed: Mapping[str, str]) -> Change:
    body = change.body or {}
    there = {check.id: check for check in found.real_checks}
    differs = differences(body, found)
    if not differs:
        return Change(ChangeAction.KEEP, service.id, "unchanged")
    wanted = {check["CheckID"]: check for check in body["Checks"]}
    retyped = {
        one.id: one.status for one in there.values() if one.id in wanted and is_other_type(wanted[one.id], one.type)
    }
    own = own_checks(found).keys() if is_own(found) else there.keys()
    is_serving = all(check.status != "critical" for check in there.values())
    return replace(
        change,
        action=ChangeAction.UPDATE,
        why=_why(change, found),
        differences=differs,
        replaced_checks={**(change.replaced_checks or {}), **retyped},
        new_checks=tuple(check for check in service.checks if check.id not in there) if is_serving else (),
        stale_checks=tuple(sorted(one for one in own - wanted.keys() if claimed.get(one, service.id) == service.id)),
    )


def _why(change: Change, found: LocalService) -> str:
    if not is_own(found):
        return f"adopted; it was {_whose(found)}"
    body = change.body or {}
    is_as_sent = all(found.meta.get(key) == value for key, value in body["Meta"].items())
    return "changed by hand" if is_as_sent else DEFINITION_CHANGED


def _is_of_own_service(check: CheckState, world: AgentState) -> bool:
    holder = world.services.get(check.service_id)
    return holder is not None and is_own(holder)


def _not_our_check(check: CheckState) -> str:
    whose = (
        f"the service {check.service_id}, which svcagent did not register" if check.service_id else "the node itself"
    )
    return f"the CheckID {check.id} belongs to {whose}; choose another id for this check, or deregister that one there"


def _whose(found: LocalService) -> str:
    return f"not registered by svcagent ({owner(found) or 'its meta names no owner'})"
