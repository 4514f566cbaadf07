"""svcagent's mark on a service, in one pair of its meta: the service is svcagent's, and this was registered. Pure.

Consul does not return check definitions, and a check does not show who registered it. So the mark holds a fingerprint
of the whole registration and, for every check, four letters each for its ID and its definition. That suffices to name
the check that changed, and to distinguish svcagent's checks from those that others attached to the service.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from agent.consul import LocalService
from agent.definitions import Service

MARK = "svcagent-fingerprint"
HOLD = "svcagent:hold:"
"""The ID prefix of the temporary check that keeps a service critical while a failing check is replaced."""

_LETTERS = 4
_OWNER_HINTS = ("external-source", "managed-by", "managed_by", "owner", "team", "maintainer")
"""Meta keys with which other tools name a service's owner; the first is Consul's own convention."""


def registration(service: Service) -> dict[str, Any]:
    body = service.registration()
    return {**body, "Meta": {**body["Meta"], MARK: _mark(body)}}


def leaving(body: Mapping[str, Any], check_ids: Iterable[str]) -> dict[str, Any]:
    """Return the body with a mark that also owns checks which are about to be deregistered.

    If the mark dropped them first and the process were killed in between, they would count as another owner's for good.
    The fingerprint is made invalid, so that the next run finishes the work.
    """
    mark = "unfinished" + body["Meta"][MARK][len("unfinished") :]
    mark += "".join(_letters(check_id) + "-" * _LETTERS for check_id in check_ids)
    return {**body, "Meta": {**body["Meta"], MARK: mark}}


def is_own(service: LocalService) -> bool:
    return MARK in service.meta


def own_checks(found: LocalService) -> dict[str, str]:
    """Return svcagent's checks of one of its services, by ID, each with the letters of its definition."""
    marked = dict(_marked(found.meta[MARK]))
    by_id = {check.id: _letters(check.id) for check in found.real_checks}
    return {
        check_id: marked.get(letters, "")
        for check_id, letters in by_id.items()
        if letters in marked or check_id.startswith(HOLD)
    }


def wanted_checks(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the checks of a registration, by ID, each with the letters of its definition."""
    ids = (check["CheckID"] for check in body["Checks"])
    return {check_id: letters for check_id, (_, letters) in zip(ids, _marked(body["Meta"][MARK]), strict=True)}


def owner(service: LocalService) -> str:
    """Return the owner that a service's meta names; empty if it names none."""
    found = [f"{key} {service.meta[key]!r}" for key in _OWNER_HINTS if service.meta.get(key)]
    return ", ".join(found)


def _mark(body: Mapping[str, Any]) -> str:
    fingerprint = hashlib.sha256(_text(body).encode()).hexdigest()[:16]
    checks = "".join(_letters(check["CheckID"]) + _letters(_text(check)) for check in body["Checks"])
    return f"{fingerprint}.{checks}"


def _marked(mark: str) -> list[tuple[str, str]]:
    """Return the letters of every check's ID and definition, in the order of the checks."""
    letters = mark.partition(".")[2]
    pairs = range(0, len(letters), 2 * _LETTERS)
    return [(letters[at : at + _LETTERS], letters[at + _LETTERS : at + 2 * _LETTERS]) for at in pairs]


_text = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _letters(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:3]).decode()
