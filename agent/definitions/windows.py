"""Parse the times of day at which a reload may begin. `agent.reload.window` determines whether one is open now."""

import re

from agent.data import dataclass
from agent.definitions.faults import InvalidValue, kind_of, shown
from agent.definitions.strict_model import ValueType

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MINUTES_A_DAY = 24 * 60

_EVERY_DAY = frozenset(range(len(DAYS)))
_HOW = 'write it like "22:00-06:00", "Mon-Fri 01:00-05:00" or "Sat,Sun 00:00-24:00"'
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_WINDOW = re.compile(rf"((?P<days>[A-Za-z,-]+) +)?(?P<begin>{_TIME})-(?P<end>{_TIME}|24:00)")
_PATTERN = rf"^([A-Za-z]{{3}}([,-][A-Za-z]{{3}})* +)?{_TIME}-({_TIME}|24:00)$"


@dataclass(frozen=True)
class Window:
    """A daily period in local time. A window that spans midnight belongs to the day on which it begins.

    ``text`` is its text in the file. ``days`` are those on which it begins, numbered as by `datetime.weekday`.
    ``begin`` and ``end`` (exclusive) are minutes after midnight; ``end`` exceeds a day if it is on the next day.
    """

    text: str
    days: frozenset[int]
    begin: int
    end: int

    def __str__(self) -> str:
        return self.text


def window(value: object) -> Window:
    if not isinstance(value, str):
        raise InvalidValue(f"{shown(value)} is {kind_of(value)}, not a time window", _HOW)
    found = _WINDOW.fullmatch(value)
    if found is None:
        raise InvalidValue(f"{shown(value)} is not a time window", _HOW)
    begin, end = _minutes(found["begin"]), _minutes(found["end"])
    if begin == end:
        raise InvalidValue(f"{shown(value)} begins and ends at the same time", 'write "00:00-24:00" for a whole day')
    days = _EVERY_DAY if found["days"] is None else _days(found["days"])
    return Window(value, days, begin, end if end > begin else end + MINUTES_A_DAY)


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


def _days(text: str) -> frozenset[int]:
    """Parse ``Mon,Wed`` or ``Fri-Mon``, or both together."""
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin, end = _day(first), _day(last if dash else first)
        chosen.update((begin + more) % len(DAYS) for more in range((end - begin) % len(DAYS) + 1))
    return frozenset(chosen)


def _day(text: str) -> int:
    name = text.capitalize()
    if name not in DAYS:
        raise InvalidValue(
            f"{shown(text)} is not a day", f"write {', '.join(DAYS[:-1])} or {DAYS[-1]}, like Mon-Fri or Sat,Sun"
        )
    return DAYS.index(name)


WINDOW = ValueType(None, window, type="string", pattern=_PATTERN)
