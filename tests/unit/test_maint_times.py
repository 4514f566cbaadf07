"""Ends as people write them, and moments as they are shown."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.maintenance import InvalidTime, length, local_time, parse_end

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)  # 14:00 in Berlin

_moments = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # hypothesis adds the zone
_zones = st.sampled_from([UTC, BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kolkata")])


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15:30", "2026-05-01T13:30Z"),
        ("14:00", "2026-05-02T12:00Z"),  # now is not the next one
        ("9:05", "2026-05-02T07:05Z"),
        ("00:00", "2026-05-01T22:00Z"),
        (" 15:30 ", "2026-05-01T13:30Z"),
        ("2026-05-01T15:30", "2026-05-01T13:30Z"),
        ("2026-05-01 15:30", "2026-05-01T13:30Z"),
        ("2026-12-01T15:30:10", "2026-12-01T14:30:10Z"),
        ("2026-05-01T15:30Z", "2026-05-01T15:30Z"),
        ("2026-05-01T15:30:00-07:00", "2026-05-01T22:30Z"),
    ],
)
def test_an_end_is_a_time_of_day_or_iso_8601(text: str, expected: str) -> None:
    """Local unless it has a zone of its own; a time of day is its next occurrence."""
    assert parse_end(text, NOON, BERLIN) == _utc(expected)


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "24:00", "12:60", "12", "2h", "2026-05-02", "2026-13-01T00:00", "2026-05-01T25:00"),
        *("2026-05-01T13:59", "2026-05-01T12:00Z", "2001-01-01T00:00Z"),
        *("9999-12-31T23:59-12:00", "0001-01-01T00:00+12:00", "T", " "),
    ],
)
def test_what_is_no_moment_or_past_is_refused(text: str) -> None:
    """A date alone too: does it mean the day's beginning or its end?"""
    with pytest.raises(InvalidTime):
        parse_end(text, NOON, BERLIN)


def test_a_time_that_comes_twice_is_the_next_of_the_two() -> None:
    """Clocks go back on 25 October 2026 at 03:00 in Berlin: 02:30 is at 00:30 and at 01:30 UTC."""
    assert parse_end("02:30", _utc("2026-10-25T00:00Z"), BERLIN) == _utc("2026-10-25T00:30Z")
    assert parse_end("02:30", _utc("2026-10-25T00:45Z"), BERLIN) == _utc("2026-10-25T01:30Z")


def test_a_time_that_is_skipped_is_an_hour_later() -> None:
    """Clocks go forward on 29 March 2026 at 02:00 in Berlin: nobody means a time before that."""
    assert parse_end("02:30", _utc("2026-03-29T00:00Z"), BERLIN) == _utc("2026-03-29T01:30Z")


@given(now=_moments, hour=st.integers(0, 23), minute=st.integers(0, 59), zone=_zones)
def test_a_time_of_day_is_ahead_and_near(now: datetime, hour: int, minute: int, zone: tzinfo) -> None:
    """Within the next day, or the longest day of the year."""
    found = parse_end(f"{hour:02}:{minute:02}", now, zone)

    assert now < found.astimezone(UTC) <= now + timedelta(hours=25)


@given(now=_moments, text=st.text(max_size=30))
def test_any_text_is_a_moment_ahead_or_refused(now: datetime, text: str) -> None:
    with suppress(InvalidTime):
        assert parse_end(text, now, BERLIN) > now


def test_without_a_zone_it_is_the_hosts_own() -> None:
    assert parse_end("2099-01-01T12:00", NOON) == datetime(2099, 1, 1, 12).astimezone()  # the host's


@pytest.mark.parametrize(
    ("moment", "expected"),
    [("2026-05-01T12:05Z", "14:05"), ("2026-05-01T21:59Z", "23:59"), ("2026-05-01T22:00Z", "2026-05-02 00:00")],
)
def test_people_see_the_date_where_it_is_not_today(moment: str, expected: str) -> None:
    assert local_time(_utc(moment), NOON, BERLIN) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0s"), (-5, "0s"), (59, "59s"), (60, "1m"), (310, "5m 10s"), (7500, "2h 5m"), (273_600, "3d 4h")],
)
def test_a_length_has_two_units(seconds: int, expected: str) -> None:
    assert length(timedelta(seconds=seconds)) == expected
