"""Our mark on a service: whose it is, and what was sent, in one pair of its meta. Pure.

Check definitions cannot be read back from Consul, and a check says nothing of who registered it. So the mark holds a
fingerprint of the whole registration, and for every check four letters each for its ID and its definition: enough to
name the check that changed, and to tell a check of ours from one that somebody else attached to our service.
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
"""What the ID of a check begins with that stands in for another while that is exchanged."""

_LETTERS = 4
_OWNER_HINTS = ("external-source", "managed-by", "managed_by", "owner", "team", "maintainer")
"""Keys of meta by which others say whose a service is; the first is Consul's own convention."""


def registration(service: Service) -> dict[str, Any]:
    """The body to register, with our mark."""
    body = service.registration()
    return {**body, "Meta": {**body["Meta"], MARK: _mark(body)}}


def leaving(body: Mapping[str, Any], check_ids: Iterable[str]) -> dict[str, Any]:
    """The body with a mark that also owns checks which are about to go.

    Were they forgotten before they are gone, and the process killed in between, they would be taken for somebody
    else's ever after. The fingerprint is spoilt, so that the next run finishes the work.
    """
    mark = "unfinished" + body["Meta"][MARK][len("unfinished") :]
    mark += "".join(_letters(check_id) + "-" * _LETTERS for check_id in check_ids)
    return {**body, "Meta": {**body["Meta"], MARK: mark}}


def is_own(service: LocalService) -> bool:
    """Was it registered by svcagent?"""
    return MARK in service.meta


def own_checks(found: LocalService) -> dict[str, str]:
    """The checks of one of our services that are ours, by ID, each with the letters of its definition."""
    marked = dict(_marked(found.meta[MARK]))
    by_id = {check.id: _letters(check.id) for check in found.real_checks}
    return {
        check_id: marked.get(letters, "")
        for check_id, letters in by_id.items()
        if letters in marked or check_id.startswith(HOLD)
    }


def wanted_checks(body: Mapping[str, Any]) -> dict[str, str]:
    """The checks of a registration, by ID, each with the letters of its definition."""
    ids = (check["CheckID"] for check in body["Checks"])
    return {check_id: letters for check_id, (_, letters) in zip(ids, _marked(body["Meta"][MARK]), strict=True)}


def owner(service: LocalService) -> str:
    """Whose a service is, as far as its meta tells; empty if it does not."""
    found = [f"{key} {service.meta[key]!r}" for key in _OWNER_HINTS if service.meta.get(key)]
    return ", ".join(found)


def _mark(body: Mapping[str, Any]) -> str:
    fingerprint = hashlib.sha256(_text(body).encode()).hexdigest()[:16]
    checks = "".join(_letters(check["CheckID"]) + _letters(_text(check)) for check in body["Checks"])
    return f"{fingerprint}.{checks}"


def _marked(mark: str) -> list[tuple[str, str]]:
    """The letters of every check's ID and of its definition, in the order of the checks."""
    letters = mark.partition(".")[2]
    pairs = range(0, len(letters), 2 * _LETTERS)
    return [(letters[at : at + _LETTERS], letters[at + _LETTERS : at + 2 * _LETTERS]) for at in pairs]


_text = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _letters(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:3]).decode()
