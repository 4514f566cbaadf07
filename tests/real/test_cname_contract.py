"""The contract of DNS providers, each on its real server: see `tests.real.cname_contract`."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.cname.provider import NOTHING, PROVIDERS, Provider, PublishedRecord, Raced, RecordPlace, ZoneView
from agent.errors import Denied, DnsUnreachable
from tests.real.cname_contract import STAGES, Stage
from tests.real.cname_fixture import OTHER_TARGET, TARGET, marked, view
from tests.support.threads import concurrently, repeating

WRITERS = 8
READS = 50


@pytest.fixture(scope="module", params=sorted(STAGES))
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with STAGES[request.param]() as running:
        yield running


@pytest.fixture
def provider(stage: Stage) -> Iterator[Provider]:
    opened = stage.provider()
    yield opened
    opened.close()


@pytest.fixture
def place(stage: Stage, number: int) -> RecordPlace:
    """A name of its own for a test."""
    return stage.place(f"www{number}")


def published(provider: Provider, place: RecordPlace, **how: Any) -> ZoneView:
    """Publish a record with its marker."""
    content = view(*marked(**how))
    provider.write(place, NOTHING, content)
    return content


def test_every_provider_is_under_contract() -> None:
    """A row of the table without a stage would be tested by nobody."""
    assert sorted(STAGES) == sorted(PROVIDERS)


def test_write_creates_record_and_marker_where_nothing_was(provider: Provider, place: RecordPlace) -> None:
    assert provider.read(place) == NOTHING

    content = published(provider, place)

    assert provider.read(place) == content


@pytest.mark.parametrize("name", ["*", "*.eu", "deep.er.still", "under_score"])
def test_names_of_every_kind(stage: Stage, provider: Provider, name: str) -> None:
    """Wildcards and deeper names have markers of their own, which do not disturb them."""
    place = stage.place(name)
    content = published(provider, place)

    assert provider.read(place) == content
    provider.write(place, content, NOTHING)


def test_writing_what_is_there_changes_nothing(stage: Stage, provider: Provider, place: RecordPlace) -> None:
    content = published(provider, place)
    before = stage.version()

    for _ in range(3):
        provider.write(place, provider.read(place), content)

    assert stage.version() == before


@pytest.mark.parametrize("other", [view(*marked(OTHER_TARGET, ttl=5, gen=1)), NOTHING])
def test_write_replaces_what_was_seen(provider: Provider, place: RecordPlace, other: ZoneView) -> None:
    content = published(provider, place)

    provider.write(place, content, other)

    assert provider.read(place) == other


@pytest.mark.parametrize("ttl", [7, None])
def test_a_lost_record_is_corrected(stage: Stage, provider: Provider, place: RecordPlace, ttl: int | None) -> None:
    content = published(provider, place)
    if ttl:
        stage.put(place.name, ttl, "CNAME", TARGET)
    else:
        stage.take(place.name, "CNAME")

    seen = provider.read(place)
    provider.write(place, seen, content)

    assert seen == ZoneView(record=PublishedRecord(TARGET, ttl) if ttl else None, markers=content.markers)
    assert provider.read(place) == content


def test_a_record_without_a_marker_can_be_marked_as_it_is(stage: Stage, provider: Provider, place: RecordPlace) -> None:
    """That is what adopting writes."""
    record, marker = marked()
    stage.put(place.name, 77, "CNAME", TARGET)

    seen = provider.read(place)
    provider.write(place, seen, view(PublishedRecord(TARGET, 77), marker))

    assert seen == ZoneView(record=PublishedRecord(TARGET, 77))
    assert provider.read(place) == ZoneView(record=PublishedRecord(TARGET, 77), markers=(marker,))
    assert record.ttl != 77


def test_other_records_are_shown(stage: Stage, provider: Provider, place: RecordPlace) -> None:
    stage.put(place.name, 60, "A", "192.0.2.1", "192.0.2.2")
    stage.put(place.name, 60, "TXT", '"hello"')

    assert provider.read(place) == ZoneView(others=("A 192.0.2.1", "A 192.0.2.2", 'TXT "hello"'))


def test_an_answer_of_a_wildcard_is_no_record(stage: Stage, provider: Provider) -> None:
    """Every name below it has an answer, and is not there."""
    wildcard = stage.place("*.wild")
    record, marker = marked()
    provider.write(wildcard, NOTHING, view(record, marker))
    below = stage.place("below.wild")

    assert provider.read(below) == NOTHING
    provider.write(below, NOTHING, view(PublishedRecord(OTHER_TARGET, 60), marker))
    assert provider.read(below).record == PublishedRecord(OTHER_TARGET, 60)
    assert provider.read(wildcard).record == record


def test_a_marker_may_be_longer_than_a_string_of_a_txt_record(provider: Provider, place: RecordPlace) -> None:
    """A string has 255 bytes, a name up to 253."""
    content = published(provider, place, target="a." * 120, owner=f"{'s' * 63}/{'t' * 63}/dc1")

    assert len(content.markers[0]) > 255
    assert provider.read(place) == content


def test_case_makes_no_difference(stage: Stage, provider: Provider, place: RecordPlace) -> None:
    stage.put(place.name.upper(), 60, "CNAME", TARGET.upper())

    assert provider.read(place) == ZoneView(record=PublishedRecord(TARGET, 60))


def test_a_stranger_at_the_markers_name_is_shown(stage: Stage, provider: Provider, place: RecordPlace) -> None:
    stage.put(place.marker, 60, "TXT", '"one"', '"two"')

    assert provider.read(place) == ZoneView(markers=("one", "two"))


@pytest.mark.parametrize("changed", ["record", "marker", "everything"])
def test_what_was_not_seen_is_left_as_it_is(stage: Stage, provider: Provider, place: RecordPlace, changed: str) -> None:
    published(provider, place)
    seen = provider.read(place)
    if changed != "marker":
        stage.put(place.name, 60, "CNAME", OTHER_TARGET)
    if changed != "record":
        stage.put(place.marker, 60, "TXT", '"mine"')
    found = provider.read(place)

    with pytest.raises(Raced):
        provider.write(place, seen, view(*marked(gen=1)))
    with pytest.raises(Raced):
        provider.write(place, seen, NOTHING)

    assert provider.read(place) == found


@pytest.mark.parametrize("is_marker", [False, True])
def test_a_name_taken_meanwhile_is_left(stage: Stage, provider: Provider, place: RecordPlace, is_marker: bool) -> None:
    if is_marker:
        stage.put(place.marker, 60, "TXT", '"mine"')
    else:
        stage.put(place.name, 60, "A", "192.0.2.1")

    with pytest.raises(Raced):
        provider.write(place, NOTHING, view(*marked()))

    assert provider.read(place) == (ZoneView(markers=("mine",)) if is_marker else ZoneView(others=("A 192.0.2.1",)))


def test_of_writers_who_saw_the_same_one_wins(stage: Stage, place: RecordPlace) -> None:
    """Where the provider compares; where it does not, more than one may believe so, and one of them is right."""
    contents = [marked(f"t{number}.example.net.", gen=number) for number in range(WRITERS)]
    providers = [stage.provider() for _ in contents]
    won: list[int] = []

    def write(number: int) -> None:
        try:
            providers[number].write(place, NOTHING, view(*contents[number]))
        except Raced:
            return
        won.append(number)

    concurrently(write, range(WRITERS))

    assert len(won) == 1 if stage.compares else len(won) <= WRITERS
    seen = providers[0].read(place)
    standing = [number for number, (record, _marker) in enumerate(contents) if record == seen.record]
    assert len(standing) == 1
    if stage.compares:
        assert standing == won
    assert seen.markers == (contents[standing[0]][1],)


def test_no_client_sees_a_record_with_the_marker_of_another(stage: Stage, place: RecordPlace) -> None:
    writer, reader = stage.provider(), stage.provider()
    contents = [marked(TARGET, gen=0), marked(OTHER_TARGET, gen=1)]
    writer.write(place, NOTHING, view(*contents[0]))

    def write() -> None:
        for before, after in (contents, reversed(contents)):
            writer.write(place, view(*before), view(*after))

    mixed, reads, end = [], 0, time.monotonic() + 20
    with repeating(write):
        while reads < READS and time.monotonic() < end:
            try:
                seen = reader.read(place)
            except Raced:
                continue
            reads += 1
            if seen not in [view(*content) for content in contents]:
                mixed.append(seen)

    assert reads
    assert not mixed


def test_preflight_changes_nothing(stage: Stage, provider: Provider, place: RecordPlace) -> None:
    """Not even the serial, whether something stands there or not."""
    before = stage.version()
    provider.preflight(place)
    assert stage.version() == before

    provider.write(place, NOTHING, view(*marked()))
    between = stage.version()
    provider.preflight(place)

    assert stage.version() == between


def test_without_rights_everything_is_denied(stage: Stage, provider: Provider, place: RecordPlace) -> None:
    powerless = stage.powerless()
    record, marker = marked()
    with pytest.raises(Denied):
        powerless.preflight(place)
    with pytest.raises(Denied):
        powerless.write(place, NOTHING, view(record, marker))
    provider.write(place, NOTHING, view(record, marker))
    with pytest.raises(Denied):
        powerless.write(place, view(record, marker), NOTHING)

    assert provider.read(place) == view(record, marker)


def test_a_server_that_is_not_there(stage: Stage, place: RecordPlace) -> None:
    nobody = stage.unreachable()

    for ask in (
        lambda: nobody.read(place),
        lambda: nobody.write(place, NOTHING, view(*marked())),
        lambda: nobody.preflight(place),
    ):
        with pytest.raises(DnsUnreachable):
            ask()
