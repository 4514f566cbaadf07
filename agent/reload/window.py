"""Whether a reload may begin now, and if not, when. Pure, except for `zone`.

Windows are in wall-clock time, as the people who wrote them read it. On the two nights on which clocks change, that
means: a window in the skipped hour does not open that day; one that begins in it opens when the clock jumps; the hour
that occurs twice is in its window both times.
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
"""The longest time that windows can be closed: one of a single day, on which it is skipped, opens a week later."""

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_LOCALTIME = Path("/etc/localtime")


@dataclass(frozen=True)
class WindowState:
    """``opens_at`` is None while it is open; otherwise it is in the zone of the request."""

    is_open: bool
    opens_at: datetime | None = None


def window_state(windows: Sequence[Window], zone: tzinfo, now: datetime) -> WindowState:
    """Return whether ``now`` (with a time zone) is in a window, and when the next one opens. No windows: always."""
    if is_open(windows, zone, now):
        return WindowState(is_open=True)
    # In UTC: Python compares times of one zone by the wall clock, where an hour occurs twice.
    begin = now.astimezone(UTC)
    moments = {*_beginnings(windows, zone, begin), *_clock_changes(zone, begin)}
    openings = (moment for moment in sorted(moments) if moment > begin and _is_open(windows, moment.astimezone(zone)))
    return WindowState(is_open=False, opens_at=next(openings).astimezone(zone))


def is_open(windows: Sequence[Window], zone: tzinfo, moment: datetime) -> bool:
    """Return the first half of `window_state`, for callers that need it for many times."""
    return not windows or _is_open(windows, moment.astimezone(zone))


def zone(name: str | None, environ: Mapping[str, str] = os.environ) -> tzinfo:
    """Return the zone of that name; without one the host's own, as the C library finds it, and UTC if there is none.

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
        problem = f"the time zone of this host is unknown (TZ={own or 'not set'}, {_LOCALTIME}): {error}"
        raise SvcagentError(f"{problem}. Set reload.timezone in the definition", kind="timezone-unknown") from error


@lru_cache(maxsize=1)
def _local(content: bytes) -> ZoneInfo:
    """Return one object for the same file: zones equal only themselves, and plans are compared with their zones."""
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
    """Yield each time at which a clock shows a window's beginning, on any day of the week; in UTC."""
    first = begin.astimezone(zone).date()
    times = [time(*divmod(window.begin, 60), fold=fold) for window in windows for fold in (0, 1)]
    for days in range(HORIZON.days + 1):
        for at in times:
            yield datetime.combine(first + timedelta(days), at, tzinfo=zone).astimezone(UTC)


def _clock_changes(zone: tzinfo, begin: datetime) -> Iterator[datetime]:
    """Yield each time at which the clock jumps, in UTC. `zoneinfo` does not list these, so every hour is examined."""
    midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    for days in range(HORIZON.days + 1):
        yield from _clock_changes_of(zone, midnight + timedelta(days))


@lru_cache(maxsize=1024)
def _clock_changes_of(zone: tzinfo, midnight: datetime) -> tuple[datetime, ...]:
    """Return those of one day. Cached: a hundred services need the same days, and all Mondays of two years."""
    found = []
    for hour in (midnight + _HOUR * hours for hours in range(24)):
        if _offset(zone, hour) != _offset(zone, hour + _HOUR):
            minutes = (hour + _MINUTE * more for more in range(1, 61))
            found.append(next(minute for minute in minutes if _offset(zone, minute) != _offset(zone, hour)))
    return tuple(found)


def _offset(zone: tzinfo, moment: datetime) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()
