"""What the tests of the timetable share: cron's rules once more, minute by minute."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cron_runs(expression: str, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    """When Debian's cron runs it, after ``begin`` and up to ``end``: found by looking at each minute.

    A job with a star in its minutes or hours runs at each minute that fits the clock on the wall. Any other runs once
    where the clock shows a minute twice, and what would run in minutes that are skipped runs once, right after them.
    """
    minute, hour, day, month, weekday = expression.split()
    fields = (
        _numbers(minute, 0, 59),
        _numbers(hour, 0, 23),
        _numbers(day, 1, 31),
        _numbers(month, 1, 12),
        {number % 7 for number in _numbers(weekday, 0, 7)},
    )
    is_any = day.startswith("*") or weekday.startswith("*")
    if minute.startswith("*") or hour.startswith("*"):
        return [moment for moment, wall, _skipped in _minutes(zone, begin, end) if _fits(wall, fields, is_any)]
    return [
        moment
        for moment, wall, skipped in _minutes(zone, begin, end)
        if (wall.fold == 0 and _fits(wall, fields, is_any)) or any(_fits(one, fields, is_any) for one in skipped)
    ]


def _fits(wall: datetime, fields: Sequence[set[int]], is_any: bool) -> bool:
    minutes, hours, days, months, weekdays = fields
    if wall.minute not in minutes or wall.hour not in hours or wall.month not in months:
        return False
    by_day, by_weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
    return (by_day and by_weekday) if is_any else (by_day or by_weekday)


def _numbers(field: str, first: int, last: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        begin, _, end = (f"{first}-{last}" if span == "*" else span).partition("-")
        found.update(range(int(begin), int(end or begin) + 1, int(step or 1)))
    return found


@cache
def _minutes(zone: str, begin: datetime, end: datetime) -> list[tuple[datetime, datetime, list[datetime]]]:
    return list(_each_minute(ZoneInfo(zone), begin, end))


def _each_minute(zone: ZoneInfo, begin: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, list[datetime]]]:
    """The moment, what the clock on the wall shows, and what it has skipped since the minute before."""
    moment = begin.replace(second=0, microsecond=0) + MINUTE
    while moment <= end:
        wall = moment.astimezone(zone).replace(tzinfo=None)
        one = (moment - MINUTE).astimezone(zone).replace(tzinfo=None, fold=0) + MINUTE
        skipped = []
        while one < wall:
            skipped.append(one)
            one += MINUTE
        yield moment, wall, skipped
        moment += MINUTE
