"""What has to change so that the agent holds what services.d/ says. Pure.

The cases, by service id:

- wanted and absent: create
- wanted, there, with our mark and the same fingerprint and checks: keep
- wanted, there, with our mark, otherwise different: update
- wanted, there, without our mark: refuse (somebody else's)
- there with our mark, wanted no more: remove
- there without our mark: not looked at
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.consul import LocalService
from agent.definitions import Service

# Check definitions cannot be read back from Consul, so a fingerprint of what was sent stands in the service's meta.
# It is the mark of ownership too.
MARK = "svcagent-fingerprint"


class Action(StrEnum):
    """What happens to one service."""

    CREATE = "create"
    UPDATE = "update"
    REMOVE = "remove"
    KEEP = "keep"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Change:
    """One service's line of the plan. ``body`` is what will be registered, ``stale_checks`` what goes afterwards."""

    action: Action
    service_id: str
    why: str
    body: Mapping[str, Any] | None = None
    stale_checks: tuple[str, ...] = ()


def make_plan(
    wanted: Iterable[Service], there: Mapping[str, LocalService], only: frozenset[str] = frozenset()
) -> tuple[Change, ...]:
    """The changes in order of service id; with ``only`` (names or ids of services) none but theirs."""
    by_id = {service.id: service for service in wanted}
    changes = [_wanted(service, there.get(service.id)) for service in by_id.values()]
    changes += [
        Change(Action.REMOVE, found.id, "no file of services.d defines it any more")
        for found in there.values()
        if is_own(found) and found.id not in by_id
    ]
    if only:
        names = {service.id: service.name for service in by_id.values()} | {s.id: s.name for s in there.values()}
        changes = [change for change in changes if {change.service_id, names[change.service_id]} & only]
    return tuple(sorted(changes, key=lambda change: change.service_id))


def make_removal(there: Mapping[str, LocalService], only: frozenset[str] = frozenset()) -> tuple[Change, ...]:
    """Everything of ours taken away; with ``only`` (names or ids) theirs alone, refusing what is not ours."""
    changes = []
    for found in sorted(there.values(), key=lambda service: service.id):
        if only and not {found.id, found.name} & only:
            continue
        if is_own(found):
            changes.append(Change(Action.REMOVE, found.id, "asked for"))
        elif only:
            changes.append(Change(Action.REFUSE, found.id, _not_ours(found)))
    return tuple(changes)


def is_own(service: LocalService) -> bool:
    """Was it registered by svcagent?"""
    return MARK in service.meta


def is_current(service: Service, found: LocalService) -> bool:
    """Does the agent hold exactly what the definition says?"""
    body = registration(service)
    return found.meta.get(MARK) == body["Meta"][MARK] and {check.id for check in found.real_checks} == _ids(body)


def registration(service: Service) -> dict[str, Any]:
    """The body to register, with our mark."""
    body = service.registration()
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {**body, "Meta": {**body.get("Meta", {}), MARK: fingerprint}}


def _wanted(service: Service, found: LocalService | None) -> Change:
    body = registration(service)
    if found is None:
        return Change(Action.CREATE, service.id, "not registered yet", body)
    if not is_own(found):
        return Change(Action.REFUSE, service.id, _not_ours(found))
    if is_current(service, found):
        return Change(Action.KEEP, service.id, "unchanged")
    stale = tuple(sorted({check.id for check in found.real_checks} - _ids(body)))
    why = "its definition changed" if found.meta[MARK] != body["Meta"][MARK] else "its checks were changed by hand"
    return Change(Action.UPDATE, service.id, why, body, stale)


def _ids(body: Mapping[str, Any]) -> set[str]:
    return {check["CheckID"] for check in body.get("Checks", ())}


def _not_ours(found: LocalService) -> str:
    return (
        f"registered by something other than svcagent (meta {found.meta or 'empty'}); deregister it there, "
        "or give this one another id"
    )
