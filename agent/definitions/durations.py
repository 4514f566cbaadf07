"""Convert Go's duration text, as Consul reads it, to seconds and back.

The rules are those of Go's ``time.ParseDuration`` and ``Duration.String``, so Consul accepts the same text with the
same meaning.
"""

import re
from functools import lru_cache

UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
"""Nanoseconds in each unit. Go accepts both the micro sign and the Greek letter."""

LONGEST = 2**63 - 1
"""Nanoseconds in Go's longest duration, 292 years."""

LONGEST_TEXT = 100
"""Characters: no duration needs more, and Python refuses to parse numbers of thousands of digits."""

_TERM = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_SECOND = UNITS["s"]


class InvalidDuration(ValueError):
    """Go would not accept the text as a duration."""


@lru_cache(maxsize=1024)
def nanoseconds(text: str) -> int:
    """Return the nanoseconds that Go reads from the text. Raise `InvalidDuration` if it cannot."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if digits == "0":
        return 0
    if len(digits) > LONGEST_TEXT:
        raise InvalidDuration(text)
    total = position = 0
    while position < len(digits):
        term = _TERM.match(digits, position)
        if term is None or not (term[1] or term[2]):
            raise InvalidDuration(text)
        fraction = term[2] or ""
        total += int(term[1] or "0") * UNITS[term[3]]
        total += int(fraction or "0") * UNITS[term[3]] // 10 ** len(fraction)
        position = term.end()
    if not digits or total > LONGEST:
        raise InvalidDuration(text)
    return sign * total


def seconds(text: str) -> float:
    """Return the seconds of Go duration text such as ``1m30s``. Raise `InvalidDuration` if it is none."""
    return nanoseconds(text) / _SECOND


def text(value: float) -> str:
    """Return Go's spelling of that many seconds, rounded to nanoseconds: ``90.5`` is ``1m30.5s``."""
    total = round(value * _SECOND)
    if total == 0:
        return "0s"
    sign, total = ("-", -total) if total < 0 else ("", total)
    if total < _SECOND:
        unit = next(unit for unit in ("ms", "us", "ns") if total >= UNITS[unit])
        return f"{sign}{_decimal(total, UNITS[unit])}{unit.replace('us', 'µs')}"
    minutes, rest = divmod(total, UNITS["m"])
    hours, minutes_left = divmod(minutes, 60)
    spelled = f"{_decimal(rest, _SECOND)}s"
    if minutes:
        spelled = f"{minutes_left}m{spelled}"
    return f"{sign}{hours}h{spelled}" if hours else f"{sign}{spelled}"


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")
