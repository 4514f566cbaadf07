"""May a reload begin now, and if not, when? Pure, but for `zone`.

Windows are read by the clock on the wall, as the people who wrote them read it. What follows for the two nights on
which clocks change: what a clock never shows is in no window, so one that lies in the skipped hour does not open that
day, and one that begins in it opens when the clock jumps; and the hour that comes twice is in its window both times.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

from agent.data import dataclass
from agent.definitions import Window
from agent.errors import SvcagentError

HORIZON = timedelta(days=15)
"""The longest that windows can be closed: one of a single day, on which it is skipped, comes again a week later."""

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_LOCALTIME = Path("/etc/localtime")


@dataclass(frozen=True)
class Verdict:
    """``opens_at`` is None while it is open; in the zone that was asked about."""

    is_open: bool
    opens_at: datetime | None = None


def verdict(windows: Sequence[Window], zone: tzinfo, now: datetime) -> Verdict:
    """Is ``now``, which has a time zone, in one of the windows, and when does the next one open? No windows: always."""
    if is_open(windows, zone, now):
        return Verdict(is_open=True)
    # In UTC: Python compares times of one zone by the wall, where an hour comes twice.
    begin = now.astimezone(UTC)
    moments = {*_beginnings(windows, zone, begin), *_clock_changes(zone, begin)}
    openings = (moment for moment in sorted(moments) if moment > begin and _is_open(windows, moment.astimezone(zone)))
    return Verdict(is_open=False, opens_at=next(openings).astimezone(zone))


def is_open(windows: Sequence[Window], zone: tzinfo, moment: datetime) -> bool:
    """The first half of `verdict`, for those who ask of many moments."""
    return not windows or _is_open(windows, moment.astimezone(zone))


def zone(name: str | None, environ: Mapping[str, str] = os.environ) -> tzinfo:
    """The zone of that name; without one the host's own, as the C library finds it, and UTC where there is none.

    :raises SvcagentError: ``TZ`` is set, and names no zone.
    """
    if name:
        return ZoneInfo(name)
    own = environ.get("TZ", "").removeprefix(":")
    try:
        if own:
            return ZoneInfo(own)
        return _local(_LOCALTIME.read_bytes())
    except FileNotFoundError:
        return UTC
    except (KeyError, ValueError, OSError) as error:
        problem = f"the time zone of this host cannot be told (TZ={own or 'not set'}, {_LOCALTIME}): {error}"
        raise SvcagentError(f"{problem}. Write reload.timezone into the definition") from error


@lru_cache(maxsize=1)
def _local(content: bytes) -> ZoneInfo:
    """The same object for the same file: zones are equal only to themselves, and who compares plans compares zones."""
    return ZoneInfo.from_file(BytesIO(content), key="localtime")


def _is_open(windows: Sequence[Window], local: datetime) -> bool:
    minute = local.hour * 60 + local.minute
    today = local.weekday()
    yesterday = (today - 1) % 7
    return any(
        (today in window.days and window.begin <= minute < window.end)
        or (yesterday in window.days and minute + 24 * 60 < window.end)
        for window in windows
    )


def _beginnings(windows: Sequence[Window], zone: tzinfo, begin: datetime) -> Iterator[datetime]:
    """Each moment at which a clock shows a window's beginning, whatever the day of the week; in UTC."""
    first = begin.astimezone(zone).date()
    times = [time(*divmod(window.begin, 60), fold=fold) for window in windows for fold in (0, 1)]
    for days in range(HORIZON.days + 1):
        for at in times:
            yield datetime.combine(first + timedelta(days), at, tzinfo=zone).astimezone(UTC)


def _clock_changes(zone: tzinfo, begin: datetime) -> Iterator[datetime]:
    """Each moment at which the clock jumps; in UTC. `zoneinfo` does not tell, so it is looked for, hour by hour."""
    midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    for days in range(HORIZON.days + 1):
        yield from _clock_changes_of(zone, midnight + timedelta(days))


@lru_cache(maxsize=1024)
def _clock_changes_of(zone: tzinfo, midnight: datetime) -> tuple[datetime, ...]:
    """Those of one day. Remembered: a hundred services ask of the same days, and of all Mondays of two years."""
    found = []
    for hour in (midnight + _HOUR * hours for hours in range(24)):
        if _offset(zone, hour) != _offset(zone, hour + _HOUR):
            minutes = (hour + _MINUTE * more for more in range(1, 61))
            found.append(next(minute for minute in minutes if _offset(zone, minute) != _offset(zone, hour)))
    return tuple(found)


def _offset(zone: tzinfo, moment: datetime) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()
