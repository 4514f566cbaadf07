"""What becomes of a record, by what stands there: tables."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.cname import PublishedRecord, RecordOutcome, WantedRecord, ZoneView, exit_code
from agent.cname.conflicts import MEMORY, conflicting_hosts
from agent.cname.marker import Marker, render
from agent.cname.plan import decide, decide_adoption, decide_removal
from agent.fleet.cname_conflicts import ConflictClaim

TARGET = "production.chocon.service.dc1.consul."
OTHER = "production.chocon2.service.dc1.consul."
OWNER = "chocon/production/dc1"
RECORD = PublishedRecord(TARGET, 60)
NOW = datetime(2026, 5, 1, tzinfo=UTC)

WANTED = WantedRecord(
    name="*.example.test.",
    record=RECORD,
    owner=OWNER,
    gen=1,
    provider="rfc2136",
    service="chocon",
    zone="example.test.",
    file=Path("chocon.json"),
)


def marker(*, gen: int = 1, record: PublishedRecord = RECORD, owner: str = OWNER) -> tuple[str, ...]:
    return (render(Marker(owner, gen, record)),)


STANDS = ZoneView(RECORD, markers=marker())
DRIFTED = PublishedRecord(TARGET, 5)
MOVED = PublishedRecord(OTHER, 60)


@pytest.mark.parametrize(
    ("seen", "outcome", "said"),
    [
        (ZoneView(), RecordOutcome.CREATED, TARGET),
        (STANDS, RecordOutcome.IN_PLACE, TARGET),
        # Changed by other means, under our marker.
        (replace(STANDS, record=None), RecordOutcome.REPAIRED, "was missing"),
        (replace(STANDS, record=DRIFTED), RecordOutcome.REPAIRED, "TTL 5 → 60"),
        (replace(STANDS, record=MOVED), RecordOutcome.REPAIRED, f"{OTHER} → {TARGET}"),
        # Other generations.
        (ZoneView(MOVED, markers=marker(gen=0, record=MOVED)), RecordOutcome.CHANGED, f"{OTHER} → {TARGET}"),
        (ZoneView(RECORD, markers=marker(gen=0)), RecordOutcome.CHANGED, "generation 0 → 1: the record is not changed"),
        (ZoneView(None, markers=marker(gen=0)), RecordOutcome.CHANGED, "was missing"),
        (ZoneView(MOVED, markers=marker(gen=2, record=MOVED)), RecordOutcome.DEFERRED, "generation 2"),
        (ZoneView(RECORD, markers=marker(gen=2)), RecordOutcome.DEFERRED, "generation 2"),
        (ZoneView(None, markers=marker(gen=2)), RecordOutcome.DEFERRED, "generation 2"),
        # The same generation, published as something else.
        (ZoneView(MOVED, markers=marker(record=MOVED)), RecordOutcome.CONFLICT, "Raise gen"),
        (ZoneView(DRIFTED, markers=marker(record=DRIFTED)), RecordOutcome.CONFLICT, "TTL 5"),
        (ZoneView(RECORD, markers=marker(record=MOVED)), RecordOutcome.CONFLICT, OTHER),
        (ZoneView(None, markers=marker(record=MOVED)), RecordOutcome.CONFLICT, OTHER),
        # Not ours.
        (ZoneView(RECORD), RecordOutcome.CONFLICT, "svcagent cname adopt '*.example.test.'"),
        (ZoneView(MOVED), RecordOutcome.CONFLICT, OTHER),
        (ZoneView(others=("A 192.0.2.7",)), RecordOutcome.CONFLICT, "A 192.0.2.7"),
        (ZoneView(others=("A 192.0.2.7",), markers=marker()), RecordOutcome.CONFLICT, "A 192.0.2.7"),
        (ZoneView(RECORD, markers=marker(owner="web/-/dc1")), RecordOutcome.CONFLICT, "belongs to web/-/dc1"),
        (ZoneView(None, markers=marker(owner="web/-/dc1")), RecordOutcome.CONFLICT, "belongs to web/-/dc1"),
        (ZoneView(MOVED, markers=marker(owner="web/-/dc1", gen=9)), RecordOutcome.CONFLICT, "belongs to web/-/dc1"),
        (ZoneView(RECORD, markers=("hands off",)), RecordOutcome.CONFLICT, "hands off"),
        (ZoneView(RECORD, markers=(*marker(), "hands off")), RecordOutcome.CONFLICT, "hands off"),
        (ZoneView(RECORD, markers=(*marker(), *marker(gen=2))), RecordOutcome.CONFLICT, "gen=2"),
        (ZoneView(None, markers=("hands off",)), RecordOutcome.CONFLICT, "hands off"),
    ],
)
def test_what_is_done_about_a_record(seen: ZoneView, outcome: RecordOutcome, said: str) -> None:
    decision = decide(WANTED, seen)

    assert decision.outcome is outcome
    assert said in decision.why


@pytest.mark.parametrize(
    ("seen", "is_publication"),
    [
        (ZoneView(), True),
        (ZoneView(MOVED, markers=marker(gen=0, record=MOVED)), True),
        (ZoneView(RECORD, markers=marker(gen=0)), False),
        (ZoneView(DRIFTED, markers=marker(gen=0, record=DRIFTED)), False),
        (replace(STANDS, record=None), False),
        (replace(STANDS, record=MOVED), False),
    ],
)
def test_only_what_sends_clients_to_a_new_target_waits_for_it_to_answer(seen: ZoneView, is_publication: bool) -> None:
    """A repair does not: it was published before, and checks decide nothing about records."""
    decision = decide(WANTED, seen)

    assert decision.outcome.is_write
    assert decision.is_publication == is_publication


@pytest.mark.parametrize(
    ("seen", "outcome", "said"),
    [
        (ZoneView(RECORD), RecordOutcome.ADOPTED, TARGET),
        (ZoneView(DRIFTED), RecordOutcome.ADOPTED, "TTL 5"),
        (ZoneView(MOVED), RecordOutcome.CONFLICT, OTHER),
        (ZoneView(), RecordOutcome.CONFLICT, "svcagent cname sync"),
        (ZoneView(others=("A 192.0.2.7",)), RecordOutcome.CONFLICT, "A 192.0.2.7"),
        (STANDS, RecordOutcome.IN_PLACE, TARGET),
        (replace(STANDS, record=None), RecordOutcome.IN_PLACE, "svcagent cname sync"),
        (ZoneView(RECORD, markers=marker(gen=0)), RecordOutcome.IN_PLACE, "svcagent cname sync"),
        (ZoneView(RECORD, markers=marker(owner="web/-/dc1")), RecordOutcome.CONFLICT, "web/-/dc1"),
        (ZoneView(RECORD, markers=("hands off",)), RecordOutcome.CONFLICT, "hands off"),
    ],
)
def test_what_may_be_adopted(seen: ZoneView, outcome: RecordOutcome, said: str) -> None:
    """An unmarked record that points where it should, and nothing else."""
    decision = decide_adoption(WANTED, seen)

    assert decision.outcome is outcome
    assert said in decision.why


NOBODY: WantedRecord | None = None


@pytest.mark.parametrize(
    ("seen", "wanted", "owner", "outcome"),
    [
        (ZoneView(), WANTED, None, RecordOutcome.ABSENT),
        (STANDS, WANTED, None, RecordOutcome.REMOVED),
        (replace(STANDS, record=None), WANTED, None, RecordOutcome.REMOVED),
        (replace(STANDS, record=DRIFTED), WANTED, None, RecordOutcome.REMOVED),
        (replace(STANDS, record=MOVED), WANTED, None, RecordOutcome.CONFLICT),
        (ZoneView(RECORD), WANTED, None, RecordOutcome.CONFLICT),
        (ZoneView(others=("A 192.0.2.7",), markers=marker()), WANTED, None, RecordOutcome.CONFLICT),
        (ZoneView(RECORD, markers=marker(gen=2)), WANTED, None, RecordOutcome.CONFLICT),
        (ZoneView(RECORD, markers=marker(gen=0)), WANTED, None, RecordOutcome.CONFLICT),
        (ZoneView(RECORD, markers=marker(owner="web/-/dc1")), WANTED, None, RecordOutcome.CONFLICT),
        (ZoneView(RECORD, markers=marker(owner="web/-/dc1")), WANTED, "web/-/dc1", RecordOutcome.CONFLICT),
        (STANDS, NOBODY, None, RecordOutcome.CONFLICT),
        (STANDS, NOBODY, OWNER, RecordOutcome.REMOVED),
        (STANDS, NOBODY, "web/-/dc1", RecordOutcome.CONFLICT),
        (replace(STANDS, record=MOVED), NOBODY, OWNER, RecordOutcome.CONFLICT),
        (ZoneView(RECORD), NOBODY, OWNER, RecordOutcome.CONFLICT),
        (ZoneView(), NOBODY, OWNER, RecordOutcome.ABSENT),
    ],
)
def test_what_is_removable(
    seen: ZoneView, wanted: WantedRecord | None, owner: str | None, outcome: RecordOutcome
) -> None:
    """What svcagent published, as it published it, and whose owner was named."""
    assert decide_removal(WANTED.name, owner, wanted, seen).outcome is outcome


@pytest.mark.parametrize("gen", [0, 1, 2])
@pytest.mark.parametrize("held", [0, 1, 2])
@pytest.mark.parametrize("record", [RECORD, MOVED, DRIFTED, None])
@pytest.mark.parametrize("published", [RECORD, MOVED, DRIFTED])
def test_decisions_settle(gen: int, held: int, record: PublishedRecord | None, published: PublishedRecord) -> None:
    """What a host wrote it finds in place, and a host of any other definition never writes back and forth with it."""
    wanted = replace(WANTED, gen=gen)
    seen = ZoneView(record, markers=marker(gen=held, record=published))
    if decide(wanted, seen).outcome.is_write:
        seen = ZoneView(wanted.record, markers=(wanted.marker,))
        assert decide(wanted, seen).outcome is RecordOutcome.IN_PLACE
    for other in (replace(WANTED, gen=other_gen, record=MOVED) for other_gen in (0, 1, 2)):
        if decide(other, seen).outcome.is_write:
            after = ZoneView(other.record, markers=(other.marker,))
            assert not decide(wanted, after).outcome.is_write


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 0),
        ([RecordOutcome.IN_PLACE, RecordOutcome.CREATED, RecordOutcome.DEFERRED, RecordOutcome.ABSENT], 0),
        ([RecordOutcome.IN_PLACE, RecordOutcome.NOT_NOW], 75),
        ([RecordOutcome.NOT_NOW, RecordOutcome.UNREACHABLE], 69),
        ([RecordOutcome.UNKNOWN, RecordOutcome.IN_PLACE], 69),
        ([RecordOutcome.UNREACHABLE, RecordOutcome.CONFLICT], 1),
        ([RecordOutcome.NOT_NOW, RecordOutcome.REFUSED], 1),
    ],
)
def test_exit_codes(outcomes: list[RecordOutcome], code: int) -> None:
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
    assert bool(conflicting_hosts([ConflictClaim("host2", wants[0], at)], WANTED, NOW)) == is_relevant


@pytest.mark.parametrize(
    "seen",
    [
        ZoneView(markers=("a\x1b[2J\x9b31m\u202eb\nc" * 500,)),
        ZoneView(others=('TXT "a\x1b[2J\u202eb\nc"' * 500,)),
        ZoneView(record=PublishedRecord("a\x1b[2J\u202eb." * 500, 60)),
    ],
)
def test_what_others_wrote_into_the_zone_is_shown_cleaned_and_bounded(seen: ZoneView) -> None:
    why = decide(WANTED, seen).why

    assert why.isprintable()
    assert len(why) < 2000
