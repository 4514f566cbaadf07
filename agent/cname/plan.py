"""What has to be done so that a record stands as a definition says: wanted and seen → decision. Pure.

The cases, by what stands at the record's name and what its marker says. *Ours* is a marker with this owner.

- something that is no CNAME, or a CNAME without a marker, or with another owner's, or with a text that is not
  svcagent's: conflict; nothing is touched. An unmarked CNAME can be adopted if it has the right target
- nothing, and no marker: create
- ours, of a newer generation: give way
- ours, of an older generation: change
- ours, of the same generation, and it was published as something else: conflict, on every host that sees it
- ours, of the same generation and content: in place if the record is so, else repair (lost, or changed by hand)

Every host decides so by itself. Of hosts that agree the first one writes and all others find it in place; of two
generations the higher one stays; two definitions of one generation leave the zone as it is.
"""

from collections.abc import Iterable
from enum import StrEnum

from agent.cname.contest import Contender
from agent.cname.marker import Marker, parse
from agent.cname.provider import Record, Seen
from agent.cname.record import Wanted
from agent.data import dataclass
from agent.errors import DnsUnreachable, NotNow, SvcagentError
from agent.text import clean


class Outcome(StrEnum):
    """What became of one record, or would become of it."""

    IN_PLACE = "in place"
    CREATED = "created"
    CHANGED = "changed"
    REPAIRED = "repaired"
    ADOPTED = "adopted"
    REMOVED = "removed"
    ABSENT = "absent"
    GIVES_WAY = "gives way"
    CONFLICT = "conflict"
    REFUSED = "refused"
    NOT_NOW = "not now"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"

    @property
    def is_write(self) -> bool:
        """Is it reached by writing to the zone?"""
        return self in _WRITES

    @property
    def exit_code(self) -> int:
        """Of a command that ended so for one record."""
        return _EXIT_CODES.get(self, 0)


_WRITES = frozenset({Outcome.CREATED, Outcome.CHANGED, Outcome.REPAIRED, Outcome.ADOPTED, Outcome.REMOVED})
_EXIT_CODES = {
    Outcome.CONFLICT: SvcagentError.exit_code,
    Outcome.REFUSED: SvcagentError.exit_code,
    Outcome.UNREACHABLE: DnsUnreachable.exit_code,
    Outcome.UNKNOWN: DnsUnreachable.exit_code,
    Outcome.NOT_NOW: NotNow.exit_code,
}
LONGEST_RECORD = 300
"""Characters of a foreign record that a message repeats."""
_SETTLE = "Whichever is right: give it a higher gen, on every host"
_WORST_FIRST = (SvcagentError.exit_code, DnsUnreachable.exit_code, NotNow.exit_code)


@dataclass(frozen=True)
class Decision:
    """One record's line of the plan; ``why`` is for people."""

    outcome: Outcome
    why: str
    is_contested: bool = False
    """Does another definition of the same generation stand there?"""
    is_publication: bool = False
    """Will clients be sent to a target that they are not being sent to now?"""


def decide(wanted: Wanted, seen: Seen) -> Decision:
    """The cases above."""
    if seen.others:
        remedy = f"take it away, or choose another name in {wanted.file}"
        return _conflict(f"a CNAME cannot stand beside what is there: {described(seen)}; {remedy}")
    if not seen.markers:
        if seen.record is None:
            return Decision(Outcome.CREATED, f"new; → {wanted.record.target}", is_publication=True)
        return _conflict(_unmarked(wanted, seen.record))
    held = _held(seen)
    if held is None:
        return _conflict(f"its marker {wanted.place.marker} is not svcagent's: {clean('; '.join(seen.markers))}")
    if held.owner != wanted.owner:
        return _conflict(
            f"it belongs to {held.owner} (generation {held.gen}), not to {wanted.owner}; {described(seen)}. "
            f"If that one is gone: svcagent cname remove '{wanted.name}' --owner {held.owner}"
        )
    return _compared(wanted, seen, held)


def _compared(wanted: Wanted, seen: Seen, held: Marker) -> Decision:
    """What becomes of a record that is ours."""
    if held.gen > wanted.gen:
        why = f"generation {held.gen} is published (→ {held.record.target}), and {wanted.file} is of generation"
        return Decision(Outcome.GIVES_WAY, f"{why} {wanted.gen}")
    if held.gen < wanted.gen:
        why = f"generation {held.gen} → {wanted.gen}: {_difference(seen.record, wanted.record)}"
        is_publication = held.record.target != wanted.record.target
        return Decision(Outcome.CHANGED, why, is_publication=is_publication)
    if held.record != wanted.record:
        why = (
            f"generation {held.gen} was published as {_text(held.record)}, and {wanted.file} says "
            f"{_text(wanted.record)} in the same generation. {_SETTLE}"
        )
        return Decision(Outcome.CONFLICT, why, is_contested=True)
    if seen.record == wanted.record:
        return Decision(Outcome.IN_PLACE, f"→ {wanted.record.target}")
    return Decision(Outcome.REPAIRED, f"changed by other means: {_difference(seen.record, wanted.record)}")


def contested(wanted: Wanted, contenders: Iterable[Contender]) -> Decision:
    """The record stands as this host wants it, and others want something else in the same generation."""
    others = "; ".join(f"{one.node} wants {_text(one.marker.record)}" for one in contenders)
    why = f"{_text(wanted.record)} of {wanted.file} stands there, and of the same generation {wanted.gen} {others}"
    return Decision(Outcome.CONFLICT, f"{why}. {_SETTLE}")


def decide_adoption(wanted: Wanted, seen: Seen) -> Decision:
    """May the record be taken over as it stands? A marker is all that is written."""
    if seen.others or seen.markers:
        found = decide(wanted, seen)
        if found.outcome.is_write:
            return Decision(Outcome.IN_PLACE, f"svcagent's already; svcagent cname sync will see to it: {found.why}")
        return found
    if seen.record is None:
        return _conflict("nothing stands there that could be adopted; publish it: svcagent cname sync")
    if seen.record.target != wanted.record.target:
        return _conflict(
            f"what stands there is {_text(seen.record)}, and {wanted.file} says {_text(wanted.record)}; "
            "correct the one or the other first"
        )
    return Decision(Outcome.ADOPTED, f"it stood there unmarked, {_text(seen.record)}")


def decide_removal(name: str, owner: str | None, wanted: Wanted | None, seen: Seen) -> Decision:
    """May the record be taken away? Only what svcagent published, and as it published it.

    ``wanted``: this host's definition, if it has one; else ``owner`` is whose record it is meant to be.
    """
    if seen == Seen():
        return Decision(Outcome.ABSENT, "nothing stands there")
    held = _held(seen)
    if seen.others or held is None:
        return _conflict(f"svcagent did not publish it: {described(seen)}")
    expected = wanted.owner if wanted else owner
    if expected is not None and held.owner != expected:
        return _conflict(f"it belongs to {held.owner}, not to {expected}")
    if wanted and seen.markers != (wanted.marker,):
        return _conflict(
            f"it was published as {_text(held.record)} of generation {held.gen}, and {wanted.file} says "
            f"{_text(wanted.record)} of generation {wanted.gen}"
        )
    if expected is None:
        return _conflict(
            f"it belongs to {held.owner}; to take it away: svcagent cname remove '{name}' --owner {held.owner}"
        )
    if seen.record is not None and seen.record.target != held.record.target:
        return _conflict(f"somebody changed it: published as {_text(held.record)}, now {_text(seen.record)}")
    return Decision(Outcome.REMOVED, f"it was {_text(held.record)}, of {held.owner}")


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """Of a command that ended so: conflicts before silence, silence before what may pass by itself."""
    codes = {outcome.exit_code for outcome in outcomes}
    return next((code for code in _WORST_FIRST if code in codes), 0)


def described(seen: Seen) -> str:
    """What stands there, in words."""
    parts = [_text(seen.record)] if seen.record else []
    parts += [clean(one, LONGEST_RECORD) for one in seen.others]
    return ", ".join(parts) or "nothing stands there"


def _held(seen: Seen) -> Marker | None:
    return parse(seen.markers[0]) if len(seen.markers) == 1 else None


def _unmarked(wanted: Wanted, record: Record) -> str:
    if record.target == wanted.record.target:
        return (
            f"{_text(record)} stands there as it should, but without svcagent's marker; "
            f"if svcagent is to keep it: svcagent cname adopt '{wanted.name}'"
        )
    remedy = "take it away, or make it point there and adopt it"
    return f"{_text(record)} stands there, which svcagent did not publish; {wanted.record.target} is wanted. {remedy}"


def _conflict(why: str) -> Decision:
    return Decision(Outcome.CONFLICT, why)


def _text(record: Record) -> str:
    return f"CNAME {clean(record.target, LONGEST_RECORD)} (TTL {record.ttl})"


def _difference(before: Record | None, after: Record) -> str:
    if before is None:
        return f"the record was gone; → {after.target}"
    if before.target != after.target:
        return f"{before.target} → {after.target}"
    if before.ttl != after.ttl:
        return f"TTL {before.ttl} → {after.ttl}"
    return "the record stays as it is"
