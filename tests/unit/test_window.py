"""Windows of time: what is open when, by clocks that jump twice a year."""

from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.definitions import Window
from agent.definitions.windows import window as parse
from agent.errors import SvcagentError
from agent.reload import window as module
from agent.reload.window import WindowState, window_state, zone
from tests.support.kinds import raises_kind

LONDON = ZoneInfo("Europe/London")
# 2026: clocks go from 01:00 to 02:00 on Sunday 29 March, and from 02:00 back to 01:00 on Sunday 25 October.


def windows(*texts: str) -> tuple[Window, ...]:
    return tuple(parse(text) for text in texts)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


OPEN = [
    # An ordinary week; London is at UTC+1 in June. 1 June 2026 is a Monday.
    ("01:00-05:00", "2026-06-01 00:00"),
    ("01:00-05:00", "2026-06-01 03:59"),
    ("22:00-06:00", "2026-06-01 21:00"),
    ("22:00-06:00", "2026-06-02 04:59"),
    ("00:00-24:00", "2026-06-01 12:00"),
    ("00:00-24:00", "2026-06-01 22:59"),
    ("Mon 00:00-24:00", "2026-06-01 22:59"),
    ("Mon-Fri 01:00-05:00", "2026-06-05 01:00"),
    ("Fri-Mon 01:00-05:00", "2026-06-01 01:00"),
    # A window over midnight belongs to the day on which it begins, also from Sunday to Monday.
    ("Fri 22:00-06:00", "2026-06-06 04:59"),
    ("Sun 22:00-06:00", "2026-06-01 04:59"),
    # The clock jumps from 01:00 to 02:00: what began before, and what would have begun in between.
    ("00:30-01:30", "2026-03-29 00:59"),
    ("01:30-03:00", "2026-03-29 01:00"),
    ("Sat 23:00-02:30", "2026-03-29 01:29"),
    # The hour from 01:00 comes twice.
    ("01:15-01:45", "2026-10-25 00:30"),
    ("01:15-01:45", "2026-10-25 01:30"),
    ("00:30-01:30", "2026-10-25 01:15"),
    ("Sat 23:00-01:30", "2026-10-25 01:15"),
]


@pytest.mark.parametrize(("text", "moment"), OPEN)
def test_open(text: str, moment: str) -> None:
    assert window_state(windows(text), LONDON, utc(moment)) == WindowState(is_open=True)


CLOSED = [
    ("01:00-05:00", "2026-06-01 04:00", "2026-06-02 00:00"),
    ("01:00-05:00", "2026-05-31 23:59", "2026-06-01 00:00"),
    ("22:00-06:00", "2026-06-01 05:00", "2026-06-01 21:00"),
    ("Mon 00:00-24:00", "2026-06-01 23:00", "2026-06-07 23:00"),
    ("Mon-Fri 01:00-05:00", "2026-06-05 04:00", "2026-06-08 00:00"),
    ("Sat,Sun 00:00-24:00", "2026-06-05 22:59", "2026-06-05 23:00"),
    ("Fri 22:00-06:00", "2026-06-07 02:00", "2026-06-12 21:00"),
    ("Sun 22:00-06:00", "2026-06-02 02:00", "2026-06-07 21:00"),
    # A window inside the hour that is skipped does not open that day.
    ("01:15-01:45", "2026-03-29 00:00", "2026-03-30 00:15"),
    ("01:15-01:45", "2026-03-29 01:20", "2026-03-30 00:15"),
    ("Sun 01:15-01:45", "2026-03-28 12:00", "2026-04-05 00:15"),
    # One that would begin there opens when the clock jumps over its beginning.
    ("01:30-03:00", "2026-03-29 00:59", "2026-03-29 01:00"),
    # One that would end there ends then.
    ("00:30-01:30", "2026-03-29 01:00", "2026-03-29 23:30"),
    # A window inside the hour that comes twice opens twice, and so does one that reaches into it.
    ("01:15-01:45", "2026-10-25 00:00", "2026-10-25 00:15"),
    ("01:15-01:45", "2026-10-25 00:45", "2026-10-25 01:15"),
    ("01:15-01:45", "2026-10-25 01:45", "2026-10-26 01:15"),
    ("00:30-01:30", "2026-10-25 00:30", "2026-10-25 01:00"),
    ("Sat 23:00-01:30", "2026-10-25 00:30", "2026-10-25 01:00"),
]


@pytest.mark.parametrize(("text", "moment", "opens_at"), CLOSED)
def test_closed(text: str, moment: str, opens_at: str) -> None:
    """A closed window says when it opens, in its own zone."""
    found = window_state(windows(text), LONDON, utc(moment))

    assert not found.is_open
    assert found.opens_at is not None
    assert found.opens_at.tzinfo is LONDON
    assert found.opens_at.astimezone(UTC) == utc(opens_at)


def test_without_windows_it_is_always_open() -> None:
    assert window_state((), LONDON, utc("2026-03-29 01:00")) == WindowState(is_open=True)


def test_one_open_window_of_several_is_enough_and_the_next_of_all_counts() -> None:
    both = windows("Mon 01:00-02:00", "Tue 10:00-11:00")

    assert window_state(both, UTC, utc("2026-06-02 10:30")).is_open
    assert window_state(both, UTC, utc("2026-06-01 03:00")).opens_at == utc("2026-06-02 10:00")
    assert window_state(both, UTC, utc("2026-06-02 12:00")).opens_at == utc("2026-06-08 01:00")


CHANGES = [utc("2026-03-29 01:00"), utc("2026-10-25 01:00"), utc("2026-06-01 00:00")]
TIMES = st.integers(0, 1439)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CHANGES), st.integers(-1600, 1600), TIMES, TIMES)
def test_the_next_opening_is_the_first_open_minute(change: datetime, offset: int, begin: int, end: int) -> None:
    if begin == end:
        return
    text = f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"
    now = change + timedelta(minutes=offset)

    def shown_by_clock(moment: datetime) -> bool:
        local = moment.astimezone(LONDON)
        minute = local.hour * 60 + local.minute
        return begin <= minute < end if begin < end else minute >= begin or minute < end

    minutes = (now + timedelta(minutes=more) for more in range(3 * 1440))
    first = next(minute for minute in minutes if shown_by_clock(minute))
    found = window_state(windows(text), LONDON, now)

    assert found.is_open == (first == now)
    assert found.is_open or (found.opens_at is not None and found.opens_at.astimezone(UTC) == first)


def test_the_zone_is_the_definitions_else_the_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name comes first, then TZ, then /etc/localtime, then UTC."""
    localtime = tmp_path / "localtime"
    monkeypatch.setattr(module, "_LOCALTIME", localtime)
    noon = utc("2026-06-01 12:00")

    assert zone(None, {}) is UTC
    assert zone("Asia/Tokyo", {"TZ": "Europe/London"}) == ZoneInfo("Asia/Tokyo")
    assert zone(None, {"TZ": ":Europe/London"}) == LONDON
    with raises_kind(SvcagentError, "timezone-unknown"):
        zone(None, {"TZ": "CET-1CEST"})
    localtime.symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    assert noon.astimezone(zone(None, {})).hour == 21


def test_each_day_is_examined_once() -> None:
    """A hundred services with windows ask of the same days; the daemon's loop must not stand still for that."""
    asked = 0

    class Zone(tzinfo):
        """UTC, and how often it was asked."""

        def utcoffset(self, _moment: datetime | None) -> timedelta:
            nonlocal asked
            asked += 1
            return timedelta()

        def dst(self, _moment: datetime | None) -> timedelta:
            return timedelta()

        def tzname(self, _moment: datetime | None) -> str:
            return "UTC"

    zone = Zone()
    counts = []
    for _ in range(2):
        asked = 0
        window_state(windows("Mon 03:00-03:05"), zone, datetime(2026, 5, 5, 12, tzinfo=UTC))
        counts.append(asked)

    assert counts[1] < counts[0] / 4
