"""Decide what to do about one record, from what is wanted and what was seen. No I/O.

The cases, by the records at the name and their marker. *Ours* is a marker with this owner.

- other records than a CNAME, or a CNAME with no marker, another owner's, or an invalid one: conflict, no change. A
  CNAME without a marker can be adopted if it has the right target
- no record and no marker: create
- ours, of a newer generation: defer to it
- ours, of an older generation: change
- ours, of the same generation, but published with other content: conflict, on every host that sees it
- ours, of the same generation and content: in place, or repair if the record is lost or was changed by hand

Every host decides for itself. Among hosts that agree, the first one writes and the others find the record in place. Of
two generations the higher one wins; two definitions of one generation leave the zone unchanged.
"""

from collections.abc import Iterable
from enum import StrEnum

from agent.cname.conflicts import ConflictingHost
from agent.cname.marker import Marker, parse
from agent.cname.provider import PublishedRecord, ZoneView
from agent.cname.record import WantedRecord
from agent.data import dataclass
from agent.errors import DnsUnreachable, SvcagentError, TemporaryRefusal
from agent.text import clean


class RecordOutcome(StrEnum):
    """The result for one record, actual or planned, with a command's exit code. ``is_write``: it writes to the zone."""

    exit_code: int
    is_write: bool

    def __new__(cls, value: str, exit_code: int = 0, is_write: bool = False) -> "RecordOutcome":
        found = str.__new__(cls, value)
        found._value_, found.exit_code, found.is_write = value, exit_code, is_write
        return found

    IN_PLACE = "in place"
    CREATED = "created", 0, True
    CHANGED = "changed", 0, True
    REPAIRED = "repaired", 0, True
    ADOPTED = "adopted", 0, True
    REMOVED = "removed", 0, True
    ABSENT = "absent"
    DEFERRED = "deferred"
    CONFLICT = "conflict", SvcagentError.exit_code
    REFUSED = "refused", SvcagentError.exit_code
    NOT_NOW = "not now", TemporaryRefusal.exit_code
    UNREACHABLE = "unreachable", DnsUnreachable.exit_code
    UNKNOWN = "unknown", DnsUnreachable.exit_code


LONGEST_RECORD = 300
"""Characters of a foreign record that a message quotes."""
_SETTLE = "Raise gen in the correct definition, on every host"
_WORST_FIRST = (SvcagentError.exit_code, DnsUnreachable.exit_code, TemporaryRefusal.exit_code)


@dataclass(frozen=True)
class RecordDecision:
    outcome: RecordOutcome
    why: str
    is_definition_conflict: bool = False
    """True if another definition of the same generation is published."""
    is_publication: bool = False
    """True if clients will be sent to a target that they are not sent to now."""


def decide(wanted: WantedRecord, seen: ZoneView) -> RecordDecision:
    """Return the decision by the cases above."""
    if seen.others:
        remedy = f"Remove them, or choose another name in {wanted.file}"
        return _conflict(f"a CNAME cannot coexist with the existing records: {described(seen)}. {remedy}")
    if not seen.markers:
        if seen.record is None:
            return RecordDecision(RecordOutcome.CREATED, f"new; → {wanted.record.target}", is_publication=True)
        return _conflict(_unmarked(wanted, seen.record))
    held = _marker_of(seen)
    if held is None:
        return _conflict(f"its marker {wanted.place.marker} is not svcagent's: {clean('; '.join(seen.markers))}")
    if held.owner != wanted.owner:
        return _conflict(
            f"it belongs to {held.owner} (generation {held.gen}), not to {wanted.owner}: {described(seen)}. "
            f"If that service no longer exists: svcagent cname remove '{wanted.name}' --owner {held.owner}"
        )
    return _decide_own(wanted, seen, held)


def _decide_own(wanted: WantedRecord, seen: ZoneView, held: Marker) -> RecordDecision:
    if held.gen > wanted.gen:
        why = f"generation {held.gen} is published (→ {held.record.target}), but {wanted.file} has generation"
        return RecordDecision(RecordOutcome.DEFERRED, f"{why} {wanted.gen}")
    if held.gen < wanted.gen:
        why = f"generation {held.gen} → {wanted.gen}: {_difference(seen.record, wanted.record)}"
        is_publication = held.record.target != wanted.record.target
        return RecordDecision(RecordOutcome.CHANGED, why, is_publication=is_publication)
    if held.record != wanted.record:
        why = (
            f"generation {held.gen} is published as {_text(held.record)}, but {wanted.file} defines "
            f"{_text(wanted.record)} with the same generation. {_SETTLE}"
        )
        return RecordDecision(RecordOutcome.CONFLICT, why, is_definition_conflict=True)
    if seen.record == wanted.record:
        return RecordDecision(RecordOutcome.IN_PLACE, f"→ {wanted.record.target}")
    return RecordDecision(
        RecordOutcome.REPAIRED, f"another program changed it: {_difference(seen.record, wanted.record)}"
    )


def definition_conflict(wanted: WantedRecord, hosts: Iterable[ConflictingHost]) -> RecordDecision:
    """Return the conflict for a record that is published as wanted, while others want another of its generation."""
    others = "; ".join(f"{one.node} wants {_text(one.marker.record)}" for one in hosts)
    why = f"{_text(wanted.record)} of {wanted.file} is published, but with the same generation {wanted.gen} {others}"
    return RecordDecision(RecordOutcome.CONFLICT, f"{why}. {_SETTLE}")


def decide_adoption(wanted: WantedRecord, seen: ZoneView) -> RecordDecision:
    """Decide whether the record may be adopted as it is. Only a marker is written."""
    if seen.others or seen.markers:
        found = decide(wanted, seen)
        if found.outcome.is_write:
            return RecordDecision(
                RecordOutcome.IN_PLACE,
                f"it already belongs to svcagent; to update it: svcagent cname sync ({found.why})",
            )
        return found
    if seen.record is None:
        return _conflict("the record does not exist. To publish it: svcagent cname sync")
    if seen.record.target != wanted.record.target:
        return _conflict(
            f"the record is {_text(seen.record)}, but {wanted.file} defines {_text(wanted.record)}. "
            "Correct one of the two first"
        )
    return RecordDecision(RecordOutcome.ADOPTED, f"it had no marker: {_text(seen.record)}")


def decide_removal(name: str, owner: str | None, wanted: WantedRecord | None, seen: ZoneView) -> RecordDecision:
    """Decide whether the record may be removed: only if svcagent published it, and it is unchanged since.

    ``wanted`` is this host's definition, if it has one; otherwise ``owner`` is the expected owner.
    """
    if seen == ZoneView():
        return RecordDecision(RecordOutcome.ABSENT, "the record does not exist")
    held = _marker_of(seen)
    if seen.others or held is None:
        return _conflict(f"svcagent did not publish it: {described(seen)}")
    expected = wanted.owner if wanted else owner
    if expected is not None and held.owner != expected:
        return _conflict(f"it belongs to {held.owner}, not to {expected}")
    if wanted and seen.markers != (wanted.marker,):
        return _conflict(
            f"it is published as {_text(held.record)} of generation {held.gen}, but {wanted.file} defines "
            f"{_text(wanted.record)} of generation {wanted.gen}"
        )
    if expected is None:
        return _conflict(
            f"it belongs to {held.owner}. To remove it: svcagent cname remove '{name}' --owner {held.owner}"
        )
    if seen.record is not None and seen.record.target != held.record.target:
        return _conflict(f"another program changed it: published as {_text(held.record)}, now {_text(seen.record)}")
    return RecordDecision(RecordOutcome.REMOVED, f"it was {_text(held.record)}, of {held.owner}")


def exit_code(outcomes: Iterable[RecordOutcome]) -> int:
    """Return a command's exit code. Errors take precedence over unreachable servers, those over refusals."""
    codes = {outcome.exit_code for outcome in outcomes}
    return next((code for code in _WORST_FIRST if code in codes), 0)


def described(seen: ZoneView) -> str:
    """Return the records as text."""
    parts = [_text(seen.record)] if seen.record else []
    parts += [clean(one, LONGEST_RECORD) for one in seen.others]
    return ", ".join(parts) or "the record does not exist"


def _marker_of(seen: ZoneView) -> Marker | None:
    return parse(seen.markers[0]) if len(seen.markers) == 1 else None


def _unmarked(wanted: WantedRecord, record: PublishedRecord) -> str:
    if record.target == wanted.record.target:
        return (
            f"{_text(record)} exists as defined, but without svcagent's marker. "
            f"To let svcagent manage it: svcagent cname adopt '{wanted.name}'"
        )
    return (
        f"{_text(record)} exists, which svcagent did not publish; the definition has {wanted.record.target}. Remove "
        f"the record, or correct its target and run: svcagent cname adopt '{wanted.name}'"
    )


def _conflict(why: str) -> RecordDecision:
    return RecordDecision(RecordOutcome.CONFLICT, why)


def _text(record: PublishedRecord) -> str:
    return f"CNAME {clean(record.target, LONGEST_RECORD)} (TTL {record.ttl})"


def _difference(before: PublishedRecord | None, after: PublishedRecord) -> str:
    if before is None:
        return f"the record was missing; → {after.target}"
    if before.target != after.target:
        return f"{before.target} → {after.target}"
    if before.ttl != after.ttl:
        return f"TTL {before.ttl} → {after.ttl}"
    return "the record is not changed"
