"""The table of jobs over a month of simulated time, and on clocks that are set, machines that sleep, jobs that fail."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from agent import logs
from agent.clock import SystemClock
from agent.daemon.schedule import Every, Schedule
from agent.daemon.scheduler import Plan, Scheduler
from tests.support.clock import FakeClock
from tests.unit.schedule_tools import cron_runs, utc

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
TICK = timedelta(seconds=5)

EXPRESSIONS = (
    "*/10 * * * *",
    "0 * * * *",
    "*/20 1 * * *",
    "0 */2 * * *",
    "30 1 * * *",
    "0,30 0-3 * * *",
    "5 1,2 * * *",
    "0 2 * * *",
    "45 23 * * 7",
    "0 3 * * 1-5",
    "0 12 13 * 5",
    "10 4 1 * *",
)


OPEN = ExitStack()
"""The event loops of a test."""


@pytest.fixture(autouse=True)
def closed_loops() -> Iterator[None]:
    """Each event loop is closed after its test."""
    with OPEN:
        yield


class Runs:
    """A scheduler on a clock that is moved by hand, and when it ran what.

    APScheduler reads the machine's clock, so the tests give it another one; all else is its own.
    """

    def __init__(self, begin: datetime, plans: Mapping[str, Plan], run: Callable[[str], None] | None = None) -> None:
        self.clock = FakeClock(begin)
        self.of: dict[str, list[datetime]] = {job: [] for job in plans}
        self.scheduler = Scheduler(self.clock, run or (lambda job: self.of[job].append(self.clock.now())))
        self._loop = asyncio.new_event_loop()
        OPEN.callback(self._loop.close)
        OPEN.enter_context(clock_of_apscheduler(self.clock))
        self._loop.run_until_complete(self._begin(plans))

    def until(self, end: datetime) -> None:
        """Time passes as fast as there is nothing to do."""
        while self.clock.now() < end:
            soonest = min(self.scheduler.next_runs().values(), default=end)
            self.clock.advance(min(soonest, end) - self.clock.now())
            self.look()

    def tick_until(self, end: datetime) -> None:
        while self.clock.now() < end:
            self.clock.advance(TICK)
            self.look()

    def look(self) -> None:
        """Let it look at the clock, and do what it finds to be due."""
        self._loop.run_until_complete(self._look())

    async def _begin(self, plans: Mapping[str, Plan]) -> None:
        self.scheduler.start()
        self.scheduler.replace(plans)

    async def _look(self) -> None:
        self.scheduler.look_at_clock()
        for _turn in range(4):  # of the loop: APScheduler wakes, starts the jobs, and notes their end
            await asyncio.sleep(0)


@contextmanager
def clock_of_apscheduler(clock: FakeClock) -> Iterator[None]:
    """Inside the block APScheduler takes the time from this clock."""

    class Moment(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain datetime will do
            return clock.now().astimezone(tz)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("apscheduler.schedulers.base.datetime", Moment)
        yield


def _plans(zone: str) -> dict[str, Plan]:
    """Each with another share of its jitter."""
    return {
        expression: Schedule(expression, ZoneInfo(zone), timedelta(seconds=97 * place, milliseconds=place))
        for place, expression in enumerate(EXPRESSIONS)
    }


def _expected(zone: str, begin: datetime, end: datetime) -> dict[str, list[datetime]]:
    found = {}
    for place, expression in enumerate(EXPRESSIONS):
        offset = timedelta(seconds=97 * place, milliseconds=place)
        runs = [run + offset for run in cron_runs(expression, zone, begin - HOUR, end)]
        found[expression] = [run for run in runs if begin < run <= end]
    return found


@pytest.mark.parametrize(("zone", "month"), [("Europe/London", 3), ("Europe/London", 10), ("Asia/Tokyo", 3)])
def test_a_month(zone: str, month: int) -> None:
    """Each run at its very moment, none missed, none twice, over both clock changes of London and none of Tokyo."""
    begin, end = datetime(2026, month, 1, tzinfo=UTC), datetime(2026, month + 1, 1, tzinfo=UTC)
    runs = Runs(begin, _plans(zone))

    runs.until(end)

    assert runs.of == _expected(zone, begin, end)


@pytest.mark.parametrize("night", ["2026-03-29", "2026-10-25"])
def test_the_nights_of_the_clock_changes_tick_by_tick(night: str) -> None:
    """As the daemon goes through them: each run within a tick of its moment, in its order."""
    begin, end = utc(f"{night} 00:00"), utc(f"{night} 03:00")
    runs = Runs(begin, _plans("Europe/London"))

    runs.tick_until(end)

    for expression, expected in _expected("Europe/London", begin, end).items():
        late = [run - due for run, due in zip(runs.of[expression], expected, strict=True)]
        assert all(timedelta() <= one < TICK for one in late), expression


def test_the_hour_that_comes_twice_is_no_clock_that_was_set_back() -> None:
    """Set times run once in it, what has a star goes on; written out by hand for London's October."""
    begin = utc("2026-10-24 23:45")
    plans = {one: Schedule(one, ZoneInfo("Europe/London")) for one in ("30 1 * * *", "*/30 1 * * *", "0 2 * * *")}
    runs = Runs(begin, plans)

    runs.tick_until(utc("2026-10-25 03:00"))

    assert {job: [f"{run:%H:%M}" for run in found] for job, found in runs.of.items()} == {
        "30 1 * * *": ["00:30"],
        "*/30 1 * * *": ["00:00", "00:30", "01:00", "01:30"],
        "0 2 * * *": ["02:00"],
    }


def test_every_minute_of_a_day() -> None:
    """What is due each so many seconds stays on its grid, looked at by a process that is late by more and less."""
    begin = utc("2026-03-01 00:00")
    runs = Runs(begin, {"minutely": Every(60, timedelta(seconds=17))})
    end, step = begin + timedelta(days=1), 0

    while runs.clock.now() < end:
        step += 1
        runs.clock.advance(timedelta(seconds=20 + step % 7 * 1.5))
        runs.look()

    assert len(runs.of["minutely"]) == 24 * 60
    assert all((run - timedelta(seconds=17)).second < 30 for run in runs.of["minutely"])


CLOCKS = [
    # A clock set forward, or a machine that was asleep; a process that was stopped while time went on.
    pytest.param(FakeClock.set, id="set forward or asleep"),
    pytest.param(FakeClock.advance, id="stopped"),
]


@pytest.mark.parametrize("move", CLOCKS)
def test_missed_runs_are_one(move: Callable[[FakeClock, timedelta], None], capsys: pytest.CaptureFixture[str]) -> None:
    """However often it was missed; it is told, and goes on at its own times."""
    logs.set_up(logs.Format.JSON, is_verbose=False)
    begin = utc("2026-06-01 10:05")
    runs = Runs(begin, {"often": Schedule("*/10 * * * *", UTC), "daily": Schedule("0 3 * * *", UTC)})

    move(runs.clock, 3 * HOUR + 2 * MINUTE)
    runs.tick_until(utc("2026-06-01 13:21"))

    assert runs.of == {
        "often": [utc("2026-06-01 13:07:00") + TICK, utc("2026-06-01 13:10"), utc("2026-06-01 13:20")],
        "daily": [],
    }
    [told] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (told["level"], told["jobs"]) == ("warning", "often")
    assert "2h 57m" in told["text"]


def test_a_month_asleep_is_one_run() -> None:
    runs = Runs(utc("2026-06-01 10:05"), {"often": Schedule("* * * * *", UTC)})
    runs.clock.set(timedelta(days=30))

    runs.look()

    assert len(runs.of["often"]) == 1
    assert runs.scheduler.next_runs() == {"often": utc("2026-07-01 10:06")}


def test_a_clock_set_back_replans(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing waits for the hours that come again to pass: the next runs are those of the time that it shows now."""
    logs.set_up(logs.Format.JSON, is_verbose=False)
    runs = Runs(utc("2026-06-01 10:05"), {"often": Schedule("*/10 * * * *", UTC), "every": Every(60)})
    runs.until(utc("2026-06-01 10:25"))

    runs.clock.set(-5 * HOUR)
    runs.look()

    assert runs.scheduler.next_runs() == {"often": utc("2026-06-01 05:30"), "every": utc("2026-06-01 05:26")}
    assert "5h" in json.loads(capsys.readouterr().err)["text"]


def test_a_clock_set_back_by_little_runs_nothing_twice() -> None:
    """By less than a minute, right after a run, as a time server does."""
    runs = Runs(utc("2026-06-01 10:05"), {"often": Schedule("*/10 * * * *", UTC)})
    runs.tick_until(utc("2026-06-01 10:10:05"))

    runs.clock.set(timedelta(seconds=-50))
    runs.tick_until(utc("2026-06-01 10:21"))

    assert runs.of["often"] == [utc("2026-06-01 10:10"), utc("2026-06-01 10:20")]


def test_reading_the_definitions_again_runs_nothing_twice() -> None:
    """A job whose plan is the same keeps its next run also where the clock shows a time before the last one."""
    plan = Schedule("*/10 * * * *", UTC)
    runs = Runs(utc("2026-06-01 10:05"), {"web": plan})
    runs.tick_until(utc("2026-06-01 10:10:05"))

    runs.clock.set(timedelta(seconds=-50))
    runs.scheduler.replace({"web": plan})

    assert runs.scheduler.next_runs() == {"web": utc("2026-06-01 10:20")}


def test_small_steps_back_add_up() -> None:
    """Many of them are one large one: no run is late by the sum."""
    runs = Runs(utc("2026-06-01 10:05"), {"often": Schedule("* * * * *", UTC)})

    for _step in range(10):
        runs.clock.set(timedelta(seconds=-50))
        runs.tick_until(runs.clock.now() + SECOND)

    assert runs.scheduler.next_runs()["often"] - runs.clock.now() <= 2 * MINUTE


def test_a_clock_set_forward_and_back_again() -> None:
    """What was run for the wrong time is run for the right one too, and then goes on."""
    runs = Runs(utc("2026-06-01 02:30"), {"daily": Schedule("0 3 * * *", UTC)})
    runs.clock.set(HOUR)
    runs.tick_until(utc("2026-06-01 03:31"))

    runs.clock.set(-HOUR)
    runs.tick_until(utc("2026-06-01 04:00"))

    assert runs.of["daily"] == [utc("2026-06-01 03:30") + TICK, utc("2026-06-01 03:00")]


def test_replacing_a_job_by_itself_changes_nothing() -> None:
    """Its next run stays, however often the definitions are read: also one that is due and not yet run."""
    plan = Schedule("*/10 * * * *", ZoneInfo("Europe/London"), timedelta(seconds=3))
    runs = Runs(utc("2026-06-01 10:05"), {"web": plan})
    for _second in range(6 * 60 + 10):
        runs.clock.advance(SECOND)
        runs.scheduler.replace({"web": Schedule("*/10 * * * *", ZoneInfo("Europe/London"), timedelta(seconds=3))})

    runs.look()

    assert runs.of["web"] == [utc("2026-06-01 10:11:10")]
    assert runs.scheduler.next_runs() == {"web": utc("2026-06-01 10:20:03")}


def test_a_run_that_is_due_when_its_plan_changes_is_not_lost() -> None:
    """A file was written in the very second: the run is for the old plan, the next one for the new."""
    runs = Runs(utc("2026-06-01 10:05"), {"web": Schedule("*/10 * * * *", UTC)})
    runs.clock.advance(5 * MINUTE + timedelta(milliseconds=300))

    runs.scheduler.replace({"web": Schedule("0 * * * *", UTC)})
    runs.look()

    assert len(runs.of["web"]) == 1
    assert runs.scheduler.next_runs() == {"web": utc("2026-06-01 11:00")}


def test_jobs_come_and_go() -> None:
    """A job that is gone is not run, a new one is, a changed one goes by its new plan."""
    begin = utc("2026-06-01 10:05")
    runs = Runs(begin, {"gone": Every(60), "changed": Every(60), "new": Every(3600)})
    runs.scheduler.replace({"changed": Every(600)})
    runs.scheduler.replace({"changed": Every(600), "new": Every(300)})

    runs.until(begin + 15 * MINUTE)

    assert {job: [run.minute for run in found] for job, found in runs.of.items()} == {
        "gone": [],
        "changed": [10, 20],
        "new": [10, 15, 20],
    }


class _Never:
    def after(self, _moment: datetime) -> None:
        return None


def test_a_job_that_is_never_due_waits_for_another_plan() -> None:
    """It has no next run, keeps nothing else from running, and is not asked again."""
    runs = Runs(utc("2026-06-01 10:05"), {"never": _Never(), "often": Every(600)})
    runs.until(utc("2026-06-01 11:00"))

    assert runs.scheduler.next_runs().keys() == {"often"}
    assert runs.of["never"] == []

    runs.scheduler.replace({"never": Every(60), "often": Every(600)})

    assert runs.scheduler.next_runs().keys() == {"never", "often"}


class _Once:
    def __init__(self, at: datetime) -> None:
        self.at = at

    def after(self, moment: datetime) -> datetime | None:
        return self.at if self.at > moment else None


def test_a_plan_may_come_to_its_end() -> None:
    at = utc("2026-06-01 10:10")
    runs = Runs(utc("2026-06-01 10:05"), {"once": _Once(at)})
    runs.until(utc("2026-06-01 11:00"))

    assert runs.of["once"] == [at]
    assert runs.scheduler.next_runs() == {}


def test_a_failing_job_is_reported_and_others_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor its own next run. It is told once, with its trace, in the form of the log."""
    logs.set_up(logs.Format.JSON, is_verbose=False)
    ran = []

    def run(job: str) -> None:
        ran.append(job)
        if job == "bad":
            raise ValueError("out of order")

    runs = Runs(utc("2026-06-01 10:05"), {"bad": Every(60), "good": Every(60)}, run)
    for _minute in range(2):
        runs.clock.advance(MINUTE)
        runs.look()

    assert sorted(ran) == ["bad", "bad", "good", "good"]
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(one["level"], "out of order" in one["trace"]) for one in told] == [("error", True)] * 2


def test_on_the_machine_s_own_clock_it_starts_on_time() -> None:
    """Within a second of its time plus its jitter, though nobody looks at the clock; and not after the shutdown."""
    clock, begun = SystemClock(), []

    async def main() -> None:
        has_begun = asyncio.Event()

        def run(job: str) -> None:
            begun.append((job, clock.now()))
            has_begun.set()

        scheduler = Scheduler(clock, run)
        scheduler.start()
        scheduler.replace({"web": schedule, "later": later})
        assert scheduler.next_runs()["web"] == due
        async with asyncio.timeout(10):
            await has_begun.wait()
        scheduler.shutdown()
        await asyncio.sleep(2)  # "later" would have been due: that nothing runs cannot be waited for

    due = clock.now() + timedelta(seconds=1.2)
    schedule, later = (
        Schedule("* * * * *", UTC, one - one.replace(second=0, microsecond=0)) for one in (due, due + SECOND)
    )
    asyncio.run(main())

    [(job, at)] = begun
    assert job == "web"
    assert timedelta() <= at - due < SECOND


def test_a_hundred_services_cost_nothing_while_nothing_is_due() -> None:
    """Each look is a glance at the first of them, whatever the others are planned by."""
    asked = []

    class Counting:
        def after(self, moment: datetime) -> datetime:
            asked.append(moment)
            return moment + HOUR

    runs = Runs(utc("2026-06-01 10:05"), {f"web{number}": Counting() for number in range(100)})

    runs.tick_until(utc("2026-06-01 11:04"))

    assert len(asked) == 100


def test_runs_of_one_job_are_in_order() -> None:
    """Whatever the clock did meanwhile, a plan's runs are as far apart as it says."""
    runs = Runs(utc("2026-06-01 10:05"), {"web": Every(300, timedelta(seconds=42))})
    runs.until(utc("2026-06-02 10:05"))

    assert {later - sooner for sooner, later in pairwise(runs.of["web"])} == {5 * MINUTE}
