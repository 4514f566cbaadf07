"""Times as people write and read them. Pure: the time zone is an argument, None for the host's."""

import re
from datetime import UTC, datetime, timedelta, tzinfo

from agent.maintenance.reason import TIME_FORMAT

_FORMS = 'write HH:MM, or date and time, for example "2026-05-01T18:00" or "2026-05-01T18:00Z"'
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


class InvalidTime(ValueError):
    """The text is not a time; the message shows valid ones."""


def parse_end(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Parse ``HH:MM`` (its next occurrence) or an ISO 8601 time, in ``zone`` if it has none; return it in UTC.

    :raises InvalidTime: it is neither of the two, or past.
    """
    text = text.strip()
    if match := _CLOCK.fullmatch(text):
        return _next(int(match[1]), int(match[2]), now, zone)
    if "T" not in text.upper() and " " not in text:
        raise InvalidTime(f"invalid time {text!r}; {_FORMS}")
    try:
        found = datetime.fromisoformat(text)
        found = _local(found, zone) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidTime(f"invalid time {text!r}; {_FORMS}") from error
    if found <= now:
        raise InvalidTime(f"end time {text!r} is in the past; it is {now.astimezone(zone):%Y-%m-%dT%H:%M:%S%z} now")
    return found


def _next(hour: int, minute: int, now: datetime, zone: tzinfo | None) -> datetime:
    """Return the first such time of day after ``now``; where clocks are set back it occurs twice."""
    today = now.astimezone(zone).replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None)
    moments = []
    for day in (today, today + timedelta(days=1)):
        for fold in (0, 1):
            moment = _local(day.replace(fold=fold), zone)
            # A time that the clocks skip also has a second reading, an hour before the first, which is never meant.
            if fold == 0 or moment.astimezone(zone).replace(tzinfo=None) == day:
                moments.append(moment)
    return min(moment for moment in moments if moment > now)


def _local(naive: datetime, zone: tzinfo | None) -> datetime:
    return (naive.replace(tzinfo=zone) if zone is not None else naive.astimezone()).astimezone(UTC)


def iso(moment: datetime) -> str:
    return f"{moment:{TIME_FORMAT}}"


def local_time(moment: datetime, now: datetime, zone: tzinfo | None = None) -> str:
    """Return ``14:05`` if that is today, else with its date."""
    there, here = moment.astimezone(zone), now.astimezone(zone)
    return f"{there:%H:%M}" if there.date() == here.date() else f"{there:%Y-%m-%d %H:%M}"


def length(span: timedelta) -> str:
    """Return its two largest units: ``3d 4h``, ``2h 5m``, ``5m 10s``, ``10s``; never negative."""
    left = max(0, int(span.total_seconds()))
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, left = divmod(left, size)
        parts.append((count, unit))
    first = next((place for place, (count, _unit) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count) or "0s"
