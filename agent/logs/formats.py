"""Format one event. Pure: an event in, a line or the journal's fields out."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.data import dataclass

DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50

_PRIORITIES = ((CRITICAL, 2), (ERROR, 3), (WARNING, 4), (INFO, 6), (0, 7))
"""syslog(3)'s, from the highest level down."""
_LONGEST_NAME = 64
"""The limit of a journal field's name; the journal discards fields with longer names."""


@dataclass(frozen=True)
class LogEvent:
    """``time`` is in ISO 8601, ``level`` as in the standard library, ``name`` the level's name."""

    time: str
    level: int
    name: str
    text: str
    fields: Mapping[str, object]


def as_text(event: LogEvent) -> str:
    """Return pairs in logfmt. A value that needs quoting is a JSON string."""
    pairs = {"time": event.time, "level": event.name, **event.fields}
    if event.text:
        pairs["text"] = event.text
    named = ((re.sub(r"[^\w.-]", "_", name, flags=re.ASCII) or "_", value) for name, value in pairs.items())
    return " ".join(f"{name}={_quoted(_as_text(value))}" for name, value in named if value is not None)


def as_json(event: LogEvent) -> str:
    """Return one JSON object, in ASCII, so that no program on the way can misread it."""
    tree = {"time": event.time, "level": event.name, "text": event.text, **event.fields}
    line = json.dumps({name: _plain(value) for name, value in tree.items() if value is not None})
    return line.replace("\x7f", "\\u007f")  # the one control character that JSON does not escape


def as_journal(event: LogEvent) -> list[tuple[str, str]]:
    """Return the fields of systemd.journal-fields(7); svcagent's own begin with ``SVCAGENT_``."""
    own = {name: _as_text(value) for name, value in event.fields.items() if value is not None}
    priority = next(number for level, number in _PRIORITIES if event.level >= level)
    return [
        ("MESSAGE", _shown(_message(event.text, own))),
        ("PRIORITY", str(priority)),
        ("SYSLOG_IDENTIFIER", "svcagent"),
        *((_journal_name(name), _shown(value)) for name, value in own.items()),
    ]


def _message(text: str, fields: Mapping[str, str]) -> str:
    """Return what ``journalctl`` shows by default: the service and what happened."""
    shown = text or " ".join(fields[name] for name in ("step", "phase") if name in fields)
    shown = shown or " ".join(f"{name}={value}" for name, value in fields.items() if name not in ("service", "reload"))
    service = fields.get("service")
    return shown if service is None or shown.startswith(service) else f"{service}: {shown}"


def _journal_name(name: str) -> str:
    return f"SVCAGENT_{re.sub(r'[^A-Z0-9_]', '_', name.upper())}"[:_LONGEST_NAME]


def _plain(value: object) -> Any:
    """Return the value without what JSON lacks: NaN, keys that are not strings, other objects."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return str(value)
        case bytes():
            return value.decode(errors="replace")
        case Mapping():
            return {str(key): _plain(one) for key, one in value.items()}
        case Sequence() | set() | frozenset():
            return [_plain(one) for one in value]
    return str(value)


def _as_text(value: object) -> str:
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _quoted(text: str) -> str:
    """Return the text, quoted with JSON's escapes if needed, without line ends and terminal control characters."""
    if text and text.isprintable() and not any(sign in text for sign in ' "=\\'):
        return text
    return f'"{"".join(_escaped(sign) if sign in _SPECIAL else _visible(sign) for sign in text)}"'


_SPECIAL = '"\\'


def _shown(text: str) -> str:
    """Escape for the journal: it keeps line breaks, but hides a text with other unprintable characters."""
    return "".join(sign if sign in "\n\t" else _visible(sign) for sign in text)


def _visible(sign: str) -> str:
    return sign if sign.isprintable() else _escaped(sign)


def _escaped(sign: str) -> str:
    return "\\u007f" if sign == "\x7f" else json.dumps(sign)[1:-1]  # JSON does not escape DEL
