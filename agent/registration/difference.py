"""The differences between a registration and what the agent holds, field by field. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from agent.consul import LocalService
from agent.data import dataclass
from agent.definitions.checks import API_NAMES, KIND_OF
from agent.registration.mark import MARK, is_own, own_checks, wanted_checks

_CONSULS_OWN_ADDRESSES = frozenset({"lan_ipv4", "wan_ipv4", "lan_ipv6", "wan_ipv6"})
"""Tagged addresses that Consul itself adds to a service with an address."""

_TYPE_OF_KIND = {"args": "script", "alias_service": "alias", "alias_node": "alias"}

CHECK_TYPES: Mapping[str, str] = {API_NAMES[field]: _TYPE_OF_KIND.get(kind, kind) for field, kind in KIND_OF.items()}
"""Consul's name for the type of a check, by the field that sets the type; the first field that is given decides."""


@dataclass(frozen=True)
class Difference:
    """One field that differs. ``before`` is None for a check: Consul does not return a check's definition."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.field}: {self.after}"
        return f"{self.field}: {_shown(self.before)} → {_shown(self.after)}"


def differences(body: Mapping[str, Any], found: LocalService) -> tuple[Difference, ...]:
    """Return every field that differs on the agent, and every check that is new, changed or removed."""
    result = (*_fields(body, found), *_checks(body, found))
    if not result and found.meta.get(MARK) != body["Meta"][MARK]:
        # An earlier run was interrupted, the checks are in another order, or an adopted service differs in nothing.
        return (Difference("mark", None, "changed"),)
    return result


def _fields(body: Mapping[str, Any], found: LocalService) -> Iterator[Difference]:
    before, after = _held(found), _wanted(body)
    for name in _CONSULS_OWN_ADDRESSES - after["tagged_addresses"].keys():
        before["tagged_addresses"].pop(name, None)
    if found.meta.get(MARK) == body["Meta"][MARK] and body["EnableTagOverride"]:
        # Others may change the tags in the catalog, and Consul copies theirs to the agent.
        before.pop("tags")
        after.pop("tags")
    if "Ports" in body:
        # Releases differ in what they show as the one port of such a service. For an agent that does not show the
        # ports, only the mark is compared.
        before["port"] = 0
        before["ports"] = before["ports"] or after["ports"]
    for field in after:
        if before[field] != after[field]:
            yield from _field(field, before[field], after[field])


def _field(field: str, before: Any, after: Any) -> Iterator[Difference]:
    if not isinstance(before, dict):
        yield Difference(field, before, after)
        return
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield Difference(f"{field}.{key}", before.get(key, ""), after.get(key, ""))


def _checks(body: Mapping[str, Any], found: LocalService) -> Iterator[Difference]:
    there = {check.id: check for check in found.real_checks}
    own = own_checks(found) if is_own(found) else dict.fromkeys(there, "")
    wanted = wanted_checks(body)
    for check in body["Checks"]:
        check_id = check["CheckID"]
        state = there.get(check_id)
        if state is None:
            yield Difference(f"checks[{check_id}]", None, "new")
        elif (
            own.get(check_id) != wanted[check_id]
            or (state.name, state.notes) != (check["Name"], check.get("Notes", ""))
            or is_other_type(check, state.type)
        ):
            yield Difference(f"checks[{check_id}]", None, "changed")
    for check_id in sorted(own.keys() - wanted.keys()):
        yield Difference(f"checks[{check_id}]", None, "removed")


def is_other_type(check: Mapping[str, Any], type_there: str) -> bool:
    """True if the wanted check has another type than the one with its ID. Old agents do not report types: False."""
    return bool(type_there) and type_there != next(name for field, name in CHECK_TYPES.items() if field in check)


def _held(found: LocalService) -> dict[str, Any]:
    return {
        "name": found.name,
        "tags": list(found.tags),
        "port": found.port,
        "ports": sorted(_port(*one) for one in found.ports),
        "address": found.address,
        "meta": {key: value for key, value in found.meta.items() if key != MARK},
        "weights": {"passing": found.weights[0], "warning": found.weights[1]},
        "tagged_addresses": dict(found.tagged_addresses),
        "enable_tag_override": found.is_tag_override_enabled,
    }


def _wanted(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": body["Name"],
        "tags": body["Tags"],
        "port": body.get("Port", 0),
        "ports": sorted(_port(one["Name"], one["Port"], one["Default"]) for one in body.get("Ports", ())),
        "address": body.get("Address", ""),
        "meta": {key: value for key, value in body["Meta"].items() if key != MARK},
        "weights": {"passing": body["Weights"]["Passing"], "warning": body["Weights"]["Warning"]},
        "tagged_addresses": {
            name: (tagged["Address"], tagged.get("Port", 0)) for name, tagged in body.get("TaggedAddresses", {}).items()
        },
        "enable_tag_override": body["EnableTagOverride"],
    }


def _port(name: str, port: int, is_default: bool) -> str:  # the fields of an entry of `LocalService.ports`
    return f"{name}:{port}{' (default)' if is_default else ''}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return "not set" if value in ("", 0) else str(value)
