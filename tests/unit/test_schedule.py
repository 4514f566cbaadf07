"""When a reload is due: cron's expressions on clocks that change, a host's share of the jitter, windows."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.daemon.schedule import Every, Schedule, schedule_of, spread
from agent.definitions import Definition, Window
from agent.definitions.document import DefinitionFile
from agent.definitions.validate import validate
from agent.definitions.windows import window as parse
from agent.reload.window import window_state
from tests.unit.schedule_tools import cron_runs, utc

LONDON, TOKYO = ZoneInfo("Europe/London"), ZoneInfo("Asia/Tokyo")
# 2026: clocks go from 01:00 to 02:00 on Sunday 29 March, and from 02:00 back to 01:00 on Sunday 25 October.


def windows(*texts: str) -> tuple[Window, ...]:
    return tuple(parse(text) for text in texts)


def first(schedule: Schedule, after: str, count: int) -> list[str]:
    return [f"{run:%m-%d %H:%M}" for run in islice(schedule.runs(utc(after)), count)]


CRON = [
    # 0 and 7 are Sunday; 1 November 2026 is one.
    ("0 3 * * 0", "2026-10-31 00:00", ["11-01 03:00", "11-08 03:00"]),
    ("0 3 * * 7", "2026-10-31 00:00", ["11-01 03:00", "11-08 03:00"]),
    ("0 3 * * sun", "2026-10-31 00:00", ["11-01 03:00", "11-08 03:00"]),
    ("0 3 * * 5-7", "2026-10-31 00:00", ["10-31 03:00", "11-01 03:00", "11-06 03:00"]),
    # The 13th or a Friday; with a star in one of the two fields, both must fit.
    ("0 3 13 * 5", "2026-11-01 00:00", ["11-06 03:00", "11-13 03:00", "11-20 03:00"]),
    ("0 3 13 * 2", "2026-10-10 00:00", ["10-13 03:00", "10-20 03:00", "10-27 03:00"]),
    ("0 3 */2 * 2", "2026-10-10 00:00", ["10-13 03:00", "10-27 03:00", "11-03 03:00"]),
    ("0 3 29 2 *", "2026-01-01 00:00", ["02-29 03:00", "02-29 03:00"]),
    ("7-59/20 9-17/4 * * *", "2026-11-01 10:00", ["11-01 13:07", "11-01 13:27", "11-01 13:47", "11-01 17:07"]),
    # Strictly after, to the microsecond.
    ("*/10 * * * *", "2026-11-01 10:00", ["11-01 10:10"]),
    ("*/10 * * * *", "2026-11-01 09:59:59.999999", ["11-01 10:00", "11-01 10:10"]),
]


@pytest.mark.parametrize(("expression", "after", "runs"), CRON)
def test_expressions_mean_what_cron_takes_them_for(expression: str, after: str, runs: list[str]) -> None:
    assert first(Schedule(expression, UTC), after, len(runs)) == runs


CHANGES = [
    # The hour from 01:00 is skipped: what would run in it at set times runs right after it, and once.
    ("30 1 * * *", "2026-03-28 02:00", ["03-29 01:00", "03-30 00:30"]),
    ("0,30 1 * * *", "2026-03-28 02:00", ["03-29 01:00", "03-30 00:00"]),
    ("0 1,2 * * *", "2026-03-28 03:00", ["03-29 01:00", "03-30 00:00", "03-30 01:00"]),
    ("0 2 * * *", "2026-03-28 03:00", ["03-29 01:00", "03-30 01:00"]),
    ("*/30 1 * * *", "2026-03-28 02:00", ["03-30 00:00", "03-30 00:30"]),
    ("*/30 * * * *", "2026-03-29 00:00", ["03-29 00:30", "03-29 01:00", "03-29 01:30"]),
    ("0 */2 * * *", "2026-03-28 22:30", ["03-29 00:00", "03-29 01:00", "03-29 03:00"]),
    # It comes twice: set times run the first time only, what has a star goes on.
    ("30 1 * * *", "2026-10-24 02:00", ["10-25 00:30", "10-26 01:30"]),
    ("30 1 * * *", "2026-10-25 00:29:59", ["10-25 00:30", "10-26 01:30"]),
    ("45 1 * * *", "2026-10-25 01:10", ["10-26 01:45"]),
    ("0 1,2 * * *", "2026-10-24 02:00", ["10-25 00:00", "10-25 02:00", "10-26 01:00"]),
    ("*/30 1 * * *", "2026-10-24 02:00", ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30"]),
    ("0 * * * *", "2026-10-24 23:30", ["10-25 00:00", "10-25 01:00", "10-25 02:00"]),
]


@pytest.mark.parametrize(("expression", "after", "runs"), CHANGES)
def test_clock_changes(expression: str, after: str, runs: list[str]) -> None:
    """In London, in the nights whose clocks change; moments are in UTC."""
    assert first(Schedule(expression, LONDON), after, len(runs)) == runs


def _fields(low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.integers(low, high).map(str)
    stars = st.sampled_from(["*", "*/2", "*/7"])
    return st.one_of(stars, numbers, st.lists(numbers, min_size=2, max_size=3).map(",".join))


@settings(max_examples=100, deadline=None)
@given(
    minute=st.one_of(_fields(0, 59), st.sampled_from(["*/10", "*/30"])),
    hour=st.one_of(_fields(0, 23), st.sampled_from(["0-3", "1", "1,2"])),
    day=st.one_of(st.just("*"), _fields(1, 31)),
    weekday=st.one_of(st.just("*"), _fields(0, 7)),
    zone=st.sampled_from(["Europe/London", "Asia/Tokyo", "America/New_York", "UTC"]),
    begin=st.sampled_from(["2026-03-28 12:00", "2026-10-24 12:00", "2026-03-07 12:00", "2026-10-31 12:00"]),
    offset=st.integers(0, 3600_000).map(lambda ms: timedelta(milliseconds=ms)),
)
@example("30", "1", "*", "*", "Europe/London", "2026-03-28 12:00", timedelta(minutes=50))
@example("30", "1", "*", "*", "Europe/London", "2026-10-24 12:00", timedelta(minutes=50))
def test_no_run_is_missed_and_none_is_there_twice(
    minute: str, hour: str, day: str, weekday: str, zone: str, begin: str, offset: timedelta
) -> None:
    """Asked from run to run it gives what looking at each minute gives, a constant later."""
    expression = f"{minute} {hour} {day} * {weekday}"
    start = utc(begin)
    end = start + timedelta(days=2)
    expected = [run + offset for run in cron_runs(expression, zone, start, end)]

    found = Schedule(expression, ZoneInfo(zone), offset).runs(start + offset) if expected else iter(())

    assert list(islice(found, len(expected))) == expected


def test_the_moment_asked_about_does_not_shift_what_is_due() -> None:
    """Each moment between two runs has the same next run: there is nothing that could drift."""
    schedule = Schedule("*/10 * * * *", LONDON, timedelta(minutes=7, milliseconds=123))
    begin = utc("2026-10-25 00:00")

    runs = sorted({run for step in range(800) if (run := schedule.after(begin + timedelta(seconds=17 * step)))})

    assert {later - sooner for sooner, later in pairwise(runs)} == {timedelta(minutes=10)}
    assert {(run.minute % 10, run.second, run.microsecond) for run in runs} == {(7, 0, 123_000)}


WINDOWED = [
    ("*/20 * * * *", ["22:00-22:30"], timedelta(), ["11-01 22:00", "11-01 22:20", "11-02 22:00"]),
    ("* * * * *", ["Sun 03:00-03:01"], timedelta(), ["11-01 03:00", "11-08 03:00"]),
    ("0 3 * * *", ["Mon-Fri 01:00-05:00"], timedelta(), ["11-02 03:00", "11-03 03:00"]),
    ("0 3 * * *", ["Fri 22:00-06:00"], timedelta(), ["11-07 03:00", "11-14 03:00"]),
    # What counts is when it begins, jitter included, as it does for the guard.
    ("*/20 * * * *", ["22:00-22:30"], timedelta(minutes=15), ["11-01 22:15", "11-02 22:15"]),
    ("50 21 * * *", ["22:00-22:30"], timedelta(minutes=15), ["11-01 22:05", "11-02 22:05"]),
    ("0 3 29 2 *", ["Thu 00:00-24:00"], timedelta(), ["02-29 03:00"]),
]


@pytest.mark.parametrize(("expression", "texts", "offset", "runs"), WINDOWED)
def test_only_runs_in_windows_count(expression: str, texts: list[str], offset: timedelta, runs: list[str]) -> None:
    """Also where the next one inside is far away: 29 February is a Thursday in 2052."""
    assert first(Schedule(expression, UTC, offset, windows(*texts)), "2026-11-01 00:00", len(runs)) == runs


@settings(max_examples=20, deadline=None)
@given(
    expression=st.sampled_from(["*/10 * * * *", "0 * * * *", "30 1 * * *", "7 0-3 * * *"]),
    text=st.sampled_from(["00:30-01:30", "01:30-03:00", "Sun 01:00-02:00", "Sat 22:00-02:30", "01:05-01:06"]),
    begin=st.sampled_from(["2026-03-28 12:00", "2026-10-24 12:00"]),
    offset=st.integers(0, 1800).map(lambda seconds: timedelta(seconds=seconds)),
)
def test_each_run_that_a_window_allows_is_there(expression: str, text: str, begin: str, offset: timedelta) -> None:
    """And no other: in the nights of the clock changes, by the guard's own judgment of the moment."""
    start, allowed = utc(begin), windows(text)
    expected = [
        run + offset
        for run in cron_runs(expression, "Europe/London", start, start + timedelta(days=2))
        if window_state(allowed, LONDON, run + offset).is_open
    ]

    found = Schedule(expression, LONDON, offset, allowed).runs(start + offset) if expected else iter(())

    assert list(islice(found, len(expected))) == expected


NEVER = [
    ("0 12 * * *", ["22:00-06:00"], timedelta()),
    ("0 22 * * *", ["22:00-22:10"], timedelta(minutes=15)),
    ("0 3 * * 6", ["Mon-Fri 01:00-05:00"], timedelta()),
    ("0 12 29 2 *", ["22:00-06:00"], timedelta()),
]


@pytest.mark.parametrize(("expression", "texts", "offset"), NEVER)
def test_never_is_an_answer(expression: str, texts: list[str], offset: timedelta) -> None:
    """Given in the end, with what stands in the way."""
    schedule = Schedule(expression, LONDON, offset, windows(*texts))

    assert schedule.after(utc("2026-11-01 00:00")) is None
    assert expression in schedule.why_never()
    assert texts[0] in schedule.why_never()


def test_why_never_names_the_wrong_jitter() -> None:
    """On another host, with a smaller share of it, there may be runs."""
    schedule = Schedule("0 22 * * *", UTC, timedelta(minutes=15), windows("22:00-22:10"))

    assert schedule.why_never() == (
        'no run of "0 22 * * *" (plus 15m0s of jitter) is in a window (22:00-22:10). '
        "Change reload.schedule or reload.windows"
    )


@given(seconds=st.floats(0, 1e6), host=st.text(max_size=9), service=st.text(max_size=9))
def test_a_share_of_the_jitter_is_never_all_of_it(seconds: float, host: str, service: str) -> None:
    """From 0, and less than the whole: a jitter as long as the period runs nothing twice."""
    share = spread(seconds, host, service)

    assert timedelta() <= share < timedelta(seconds=seconds) or share == timedelta()


def test_a_share_is_the_same_for_ever() -> None:
    """These are pinned: a new version of svcagent must not move every host's times."""
    assert spread(300, "host1", "web") == timedelta(seconds=213.504)
    assert spread(300, "host2", "web") == timedelta(seconds=45.609)
    assert spread(300, "host1", "api") == timedelta(seconds=220.971)


def test_shares_are_spread_over_the_fleet() -> None:
    """Of 1,000 hosts about a quarter asks in each quarter of the jitter."""
    shares = [spread(400, f"host{number}", "web").total_seconds() for number in range(1000)]

    for quarter in range(4):
        assert 200 < sum(100 * quarter <= share < 100 * (quarter + 1) for share in shares) < 300


@settings(deadline=None)
@given(
    seconds=st.sampled_from([1.0, 60.0, 300.0, 7.5]),
    share=st.floats(0, 0.99),
    moment=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001  # hypothesis wants them bare
)
def test_every_is_strictly_later_and_at_most_a_period_away(seconds: float, share: float, moment: datetime) -> None:
    """And where it falls does not depend on when one asks."""
    plan = Every(seconds, timedelta(milliseconds=int(1000 * seconds * share)))
    now = moment.replace(tzinfo=UTC)

    found = plan.after(now)

    assert now < found <= now + timedelta(seconds=seconds)
    assert plan.after(found) == found + timedelta(seconds=seconds)


def _definition(**reload: object) -> Definition:
    check = {"http": "http://127.0.0.1:80/", "interval": "10s"}
    given = {
        "service": {"name": "web", "id": "web-1", "port": 80, "checks": [check]},
        "reload": {"image": "x/web", "container": "web", **reload},
    }
    document, found, _tree = validate(given, DefinitionFile)
    assert document is not None, found
    return document.definition(Path("web.json"))


def test_a_definition_says_all_of_its_schedule() -> None:
    """Expression, zone, this host's share of the jitter by the service's id, windows."""
    definition = _definition(schedule="0 3 * * *", timezone="Asia/Tokyo", jitter="10m", windows=["01:00-05:00"])

    found = schedule_of(definition, "host1", {})

    assert found == Schedule("0 3 * * *", TOKYO, spread(600, "host1", "web-1"), windows("01:00-05:00"))


def test_without_a_schedule_there_is_none() -> None:
    """Then cron or an operator runs the reloads; TZ, which is wrong here, is not asked for."""
    assert schedule_of(_definition(), "host1", {"TZ": "No/Where"}) is None


def test_the_host_s_own_zone_is_the_default() -> None:
    """By TZ, else by its file; read twice it is the same plan, so that the job keeps its next run."""
    definition = _definition(schedule="0 3 * * *")

    of_tz = schedule_of(definition, "host1", {"TZ": "Asia/Tokyo"})

    assert of_tz is not None
    assert of_tz.zone == TOKYO
    assert schedule_of(definition, "host1", {}) == schedule_of(definition, "host1", {})
