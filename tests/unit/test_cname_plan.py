"""What becomes of a record, by what stands there: tables."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.cname import Outcome, Record, Seen, Wanted, exit_code
from agent.cname.conflicts import MEMORY, relevant
from agent.cname.marker import Marker, render
from agent.cname.plan import decide, decide_adoption, decide_removal
from agent.fleet.cname_conflicts import Claim

TARGET = "production.chocon.service.dc1.consul."
OTHER = "production.chocon2.service.dc1.consul."
OWNER = "chocon/production/dc1"
RECORD = Record(TARGET, 60)
NOW = datetime(2026, 5, 1, tzinfo=UTC)

WANTED = Wanted(
    name="*.example.test.",
    record=RECORD,
    owner=OWNER,
    gen=1,
    provider="rfc2136",
    service="chocon",
    zone="example.test.",
    file=Path("chocon.json"),
)


def marker(*, gen: int = 1, record: Record = RECORD, owner: str = OWNER) -> tuple[str, ...]:
    return (render(Marker(owner, gen, record)),)


STANDS = Seen(RECORD, markers=marker())
DRIFTED = Record(TARGET, 5)
MOVED = Record(OTHER, 60)


@pytest.mark.parametrize(
    ("seen", "outcome", "said"),
    [
        (Seen(), Outcome.CREATED, TARGET),
        (STANDS, Outcome.IN_PLACE, TARGET),
        # Changed by other means, under our marker.
        (replace(STANDS, record=None), Outcome.REPAIRED, "was gone"),
        (replace(STANDS, record=DRIFTED), Outcome.REPAIRED, "TTL 5 → 60"),
        (replace(STANDS, record=MOVED), Outcome.REPAIRED, f"{OTHER} → {TARGET}"),
        # Other generations.
        (Seen(MOVED, markers=marker(gen=0, record=MOVED)), Outcome.CHANGED, f"{OTHER} → {TARGET}"),
        (Seen(RECORD, markers=marker(gen=0)), Outcome.CHANGED, "generation 0 → 1: the record stays"),
        (Seen(None, markers=marker(gen=0)), Outcome.CHANGED, "was gone"),
        (Seen(MOVED, markers=marker(gen=2, record=MOVED)), Outcome.GIVES_WAY, "generation 2"),
        (Seen(RECORD, markers=marker(gen=2)), Outcome.GIVES_WAY, "generation 2"),
        (Seen(None, markers=marker(gen=2)), Outcome.GIVES_WAY, "generation 2"),
        # The same generation, published as something else.
        (Seen(MOVED, markers=marker(record=MOVED)), Outcome.CONFLICT, "higher gen"),
        (Seen(DRIFTED, markers=marker(record=DRIFTED)), Outcome.CONFLICT, "TTL 5"),
        (Seen(RECORD, markers=marker(record=MOVED)), Outcome.CONFLICT, OTHER),
        (Seen(None, markers=marker(record=MOVED)), Outcome.CONFLICT, OTHER),
        # Not ours.
        (Seen(RECORD), Outcome.CONFLICT, "svcagent cname adopt '*.example.test.'"),
        (Seen(MOVED), Outcome.CONFLICT, OTHER),
        (Seen(others=("A 192.0.2.7",)), Outcome.CONFLICT, "A 192.0.2.7"),
        (Seen(others=("A 192.0.2.7",), markers=marker()), Outcome.CONFLICT, "A 192.0.2.7"),
        (Seen(RECORD, markers=marker(owner="web/-/dc1")), Outcome.CONFLICT, "belongs to web/-/dc1"),
        (Seen(None, markers=marker(owner="web/-/dc1")), Outcome.CONFLICT, "belongs to web/-/dc1"),
        (Seen(MOVED, markers=marker(owner="web/-/dc1", gen=9)), Outcome.CONFLICT, "belongs to web/-/dc1"),
        (Seen(RECORD, markers=("hands off",)), Outcome.CONFLICT, "hands off"),
        (Seen(RECORD, markers=(*marker(), "hands off")), Outcome.CONFLICT, "hands off"),
        (Seen(RECORD, markers=(*marker(), *marker(gen=2))), Outcome.CONFLICT, "gen=2"),
        (Seen(None, markers=("hands off",)), Outcome.CONFLICT, "hands off"),
    ],
)
def test_what_is_done_about_a_record(seen: Seen, outcome: Outcome, said: str) -> None:
    decision = decide(WANTED, seen)

    assert decision.outcome is outcome
    assert said in decision.why


@pytest.mark.parametrize(
    ("seen", "is_publication"),
    [
        (Seen(), True),
        (Seen(MOVED, markers=marker(gen=0, record=MOVED)), True),
        (Seen(RECORD, markers=marker(gen=0)), False),
        (Seen(DRIFTED, markers=marker(gen=0, record=DRIFTED)), False),
        (replace(STANDS, record=None), False),
        (replace(STANDS, record=MOVED), False),
    ],
)
def test_only_what_sends_clients_to_a_new_target_waits_for_it_to_answer(seen: Seen, is_publication: bool) -> None:
    """A repair does not: it was published before, and checks decide nothing about records."""
    decision = decide(WANTED, seen)

    assert decision.outcome.is_write
    assert decision.is_publication == is_publication


@pytest.mark.parametrize(
    ("seen", "outcome", "said"),
    [
        (Seen(RECORD), Outcome.ADOPTED, TARGET),
        (Seen(DRIFTED), Outcome.ADOPTED, "TTL 5"),
        (Seen(MOVED), Outcome.CONFLICT, OTHER),
        (Seen(), Outcome.CONFLICT, "svcagent cname sync"),
        (Seen(others=("A 192.0.2.7",)), Outcome.CONFLICT, "A 192.0.2.7"),
        (STANDS, Outcome.IN_PLACE, TARGET),
        (replace(STANDS, record=None), Outcome.IN_PLACE, "svcagent cname sync"),
        (Seen(RECORD, markers=marker(gen=0)), Outcome.IN_PLACE, "svcagent cname sync"),
        (Seen(RECORD, markers=marker(owner="web/-/dc1")), Outcome.CONFLICT, "web/-/dc1"),
        (Seen(RECORD, markers=("hands off",)), Outcome.CONFLICT, "hands off"),
    ],
)
def test_what_may_be_adopted(seen: Seen, outcome: Outcome, said: str) -> None:
    """An unmarked record that points where it should, and nothing else."""
    decision = decide_adoption(WANTED, seen)

    assert decision.outcome is outcome
    assert said in decision.why


NOBODY: Wanted | None = None


@pytest.mark.parametrize(
    ("seen", "wanted", "owner", "outcome"),
    [
        (Seen(), WANTED, None, Outcome.ABSENT),
        (STANDS, WANTED, None, Outcome.REMOVED),
        (replace(STANDS, record=None), WANTED, None, Outcome.REMOVED),
        (replace(STANDS, record=DRIFTED), WANTED, None, Outcome.REMOVED),
        (replace(STANDS, record=MOVED), WANTED, None, Outcome.CONFLICT),
        (Seen(RECORD), WANTED, None, Outcome.CONFLICT),
        (Seen(others=("A 192.0.2.7",), markers=marker()), WANTED, None, Outcome.CONFLICT),
        (Seen(RECORD, markers=marker(gen=2)), WANTED, None, Outcome.CONFLICT),
        (Seen(RECORD, markers=marker(gen=0)), WANTED, None, Outcome.CONFLICT),
        (Seen(RECORD, markers=marker(owner="web/-/dc1")), WANTED, None, Outcome.CONFLICT),
        (Seen(RECORD, markers=marker(owner="web/-/dc1")), WANTED, "web/-/dc1", Outcome.CONFLICT),
        (STANDS, NOBODY, None, Outcome.CONFLICT),
        (STANDS, NOBODY, OWNER, Outcome.REMOVED),
        (STANDS, NOBODY, "web/-/dc1", Outcome.CONFLICT),
        (replace(STANDS, record=MOVED), NOBODY, OWNER, Outcome.CONFLICT),
        (Seen(RECORD), NOBODY, OWNER, Outcome.CONFLICT),
        (Seen(), NOBODY, OWNER, Outcome.ABSENT),
    ],
)
def test_what_may_be_removed(seen: Seen, wanted: Wanted | None, owner: str | None, outcome: Outcome) -> None:
    """What svcagent published, as it published it, and whose owner was named."""
    assert decide_removal(WANTED.name, owner, wanted, seen).outcome is outcome


@pytest.mark.parametrize("gen", [0, 1, 2])
@pytest.mark.parametrize("held", [0, 1, 2])
@pytest.mark.parametrize("record", [RECORD, MOVED, DRIFTED, None])
@pytest.mark.parametrize("published", [RECORD, MOVED, DRIFTED])
def test_decisions_come_to_rest(gen: int, held: int, record: Record | None, published: Record) -> None:
    """What a host wrote it finds in place, and a host of any other definition never writes back and forth with it."""
    wanted = replace(WANTED, gen=gen)
    seen = Seen(record, markers=marker(gen=held, record=published))
    if decide(wanted, seen).outcome.is_write:
        seen = Seen(wanted.record, markers=(wanted.marker,))
        assert decide(wanted, seen).outcome is Outcome.IN_PLACE
    for other in (replace(WANTED, gen=other_gen, record=MOVED) for other_gen in (0, 1, 2)):
        if decide(other, seen).outcome.is_write:
            after = Seen(other.record, markers=(other.marker,))
            assert not decide(wanted, after).outcome.is_write


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 0),
        ([Outcome.IN_PLACE, Outcome.CREATED, Outcome.GIVES_WAY, Outcome.ABSENT], 0),
        ([Outcome.IN_PLACE, Outcome.NOT_NOW], 75),
        ([Outcome.NOT_NOW, Outcome.UNREACHABLE], 69),
        ([Outcome.UNKNOWN, Outcome.IN_PLACE], 69),
        ([Outcome.UNREACHABLE, Outcome.CONFLICT], 1),
        ([Outcome.NOT_NOW, Outcome.REFUSED], 1),
    ],
)
def test_exit_codes(outcomes: list[Outcome], code: int) -> None:
    """What a person must see to comes first."""
    assert exit_code(outcomes) == code


@pytest.mark.parametrize(
    ("wants", "at", "is_relevant"),
    [
        (marker(record=MOVED), NOW, True),
        (marker(record=DRIFTED), NOW, True),
        (marker(), NOW, False),
        (marker(gen=0, record=MOVED), NOW, False),
        (marker(gen=2, record=MOVED), NOW, False),
        (marker(record=MOVED), NOW - MEMORY + timedelta(seconds=1), True),
        (marker(record=MOVED), NOW - MEMORY, False),
        (("of a later version",), NOW, False),
    ],
)
def test_which_words_of_other_hosts_count(wants: tuple[str, ...], at: datetime, is_relevant: bool) -> None:
    """Those of this generation that want something else, for a day."""
    assert bool(relevant([Claim("host2", wants[0], at)], WANTED, NOW)) == is_relevant


@pytest.mark.parametrize(
    "seen",
    [
        Seen(markers=("a\x1b[2J\x9b31m\u202eb\nc" * 500,)),
        Seen(others=('TXT "a\x1b[2J\u202eb\nc"' * 500,)),
        Seen(record=Record("a\x1b[2J\u202eb." * 500, 60)),
    ],
)
def test_what_others_wrote_into_the_zone_is_shown_cleaned_and_bounded(seen: Seen) -> None:
    why = decide(WANTED, seen).why

    assert why.isprintable()
    assert len(why) < 2000
