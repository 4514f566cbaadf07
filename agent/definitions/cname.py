"""A CNAME that points at the service's Consul DNS name. This module checks only what the file alone shows."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeGuard

from agent.definitions.faults import Finding, InvalidValue, shown
from agent.definitions.strict_model import TEXT, StrictModel, optional, required, rule, whole
from agent.definitions.values import LABEL, NON_EMPTY

MARKERS = "_svcagent"
"""The label below which svcagent stores its marker records in a zone."""

WILDCARD = "_wildcard"
"""Replaces ``*`` in the names of marker records."""

LONGEST_FIRST_LABEL = 57
"""The marker's name has ``cname-`` before the first label, and a label has at most 63 characters."""

LONGEST_NAME = 229
"""The limit of a record's complete name in characters: with the additions, its marker's name reaches at most 253."""

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")


_domain = rule(
    lambda value: _NAME.fullmatch(value) and len(value.rstrip(".")) <= 253,
    "is not a DNS name",
    'write it like "www.example.com."',
)


def _owner(value: str) -> str:
    """Accept a wildcard only as the whole first label (RFC 4592)."""
    rest = "" if value == "*" else value.removeprefix("*.")
    if "*" in rest:
        raise InvalidValue(
            f"{shown(value)} is not a DNS name: * must be the whole first label", 'write it like "*.example.com."'
        )
    if rest or value != "*":
        _domain(rest)
    first = value.partition(".")[0]
    if first.lower() == WILDCARD or MARKERS in value.lower().split("."):
        raise InvalidValue(f"{shown(value)} is reserved for svcagent's marker records", "choose another name")
    if len(first) > LONGEST_FIRST_LABEL:
        raise InvalidValue(
            f"the first label of {shown(value)} is too long for the name of its marker record",
            f"write at most {LONGEST_FIRST_LABEL} characters before the first dot",
        )
    return value


def complete(name: str, zone: str | None = None) -> str:
    """Return the complete name in lower case, with a dot at its end. One without is relative to the zone, if any."""
    folded = name.lower()
    if folded.endswith(".") or zone is None:
        return f"{folded.rstrip('.')}."
    return f"{folded}.{complete(zone)}"


def zone_finding(name: str, zone: str) -> Finding | None:
    """Return the fault of a complete name in a complete zone, both in lower case."""
    if name == zone:
        problem = f"{shown(name)} is the apex of its zone, where a CNAME cannot coexist with SOA and NS"
        return Finding("name", problem, "choose a name inside the zone")
    if not name.endswith(f".{zone}"):
        problem = f"{shown(name)} is not in the zone {shown(zone)}"
        return Finding(
            "name", problem, "correct the name or the zone; a name that ends in a dot is not relative to the zone"
        )
    return None


class Cname(StrictModel):
    """One CNAME record."""

    example = '{"name": "www.example.com."}'

    name: str = required(
        TEXT.also(_owner),
        "The record's name: complete if it ends in a dot, else relative to the zone; the first label may be *.",
    )
    tag: str | None = optional(LABEL, "Point only at instances with this tag.")
    zone: str | None = optional(
        TEXT.also(_domain), "The zone that holds the record; looked up on the DNS server if left out."
    )
    ttl: int = optional(whole(minimum=0, maximum=2**31 - 1), "The record's time to live, in seconds.", 60)
    target: str | None = optional(
        TEXT.also(_domain), "The record's target; <tag>.<service>.service.<dc>.<domain>. if left out."
    )
    provider: str | None = optional(NON_EMPTY, "The DNS provider that manages the zone.")
    gen: int = optional(
        whole(minimum=0, exclusiveMaximum=10**18),
        "The generation of this definition: if hosts disagree, the highest wins.",
        0,
    )

    @classmethod
    def across(cls, given: Mapping[str, object]) -> Iterator[Finding]:
        name, zone, target = given.get("name"), given.get("zone"), given.get("target")
        if not _is_good(name, _owner) or not (zone is None or _is_good(zone, _domain)):
            return
        if zone is None and not name.endswith("."):
            problem = f"the zone of {shown(name)} is unknown"
            yield Finding("name", problem, 'end it with a dot if it is complete, or add "zone"')
            return
        full = complete(name, zone)
        if len(full) > LONGEST_NAME:
            problem = f"{shown(full)} is too long for the name of its marker record"
            yield Finding("name", problem, f"write at most {LONGEST_NAME} characters in total")
        found = zone_finding(full, complete(zone)) if zone else None
        if found:
            yield found
        if _is_good(target, _domain) and _points_at_itself(full, complete(target)):
            yield Finding("target", f"{shown(name)} points at itself", "write another target")


def record_name(name: str, zone: str | None = None) -> str:
    """Return the complete name of a record that is named outside a definition.

    :raises InvalidValue: it is not a valid name.
    """
    _owner(name)
    if zone is None and not name.endswith("."):
        raise InvalidValue(
            f"the zone of {shown(name)} is unknown", "end the name with a dot if it is complete, or use --zone"
        )
    given = {"name": name} | ({"zone": _domain(zone)} if zone else {})
    for finding in Cname.across(given):
        raise InvalidValue(finding.problem, finding.remedy)
    return complete(name, zone)


def _is_good(value: object, check: Callable[[str], str]) -> TypeGuard[str]:
    """True if the field is valid. The field itself reports its fault."""
    try:
        return isinstance(value, str) and bool(check(value))
    except InvalidValue:
        return False


def _points_at_itself(name: str, target: str) -> bool:
    return target == name or (name.startswith("*.") and target.endswith(name[1:]))
