"""Logs: one event is one line, as key=value, JSON or native journal fields. What people read is printed by the verbs.

Logging never keeps work from being done: a pipe that nobody reads any more, a full disk or a journal that is gone
swallows the line and nothing else.
"""

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

JOURNAL_SOCKET = "/run/systemd/journal/socket"


class Format(StrEnum):
    """How a line is written. AUTO: to the journal where systemd connected standard error with it, else as text."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"
    JOURNAL = "journal"


_logger = logging.getLogger("svcagent")
_chosen: list[Format] = []
_LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
_BARE = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def chosen() -> Format | None:
    """How this process logs, never AUTO; None before `set_up`."""
    return _chosen[0] if _chosen else None


def is_for_machines() -> bool:
    """Is everything for standard error an event of the log, not a line for a person?"""
    return chosen() in (Format.JSON, Format.JOURNAL)


def set_up(wanted: Format, *, is_verbose: bool, journal: str = JOURNAL_SOCKET) -> None:
    """Say how and how much is logged from now on, for the whole process.

    Without ``is_verbose``: warnings and errors. Those of libraries come with them, whatever is chosen.
    """
    found = wanted
    if wanted is Format.AUTO:
        found = Format.JOURNAL if _is_journal(os.environ.get("JOURNAL_STREAM", "")) else Format.TEXT
    _chosen[:] = [found]
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(_Journal(journal) if found is Format.JOURNAL else _Lines(_FORMATS[found]))
    _logger.setLevel(INFO if is_verbose else WARNING)


def mute_libraries() -> None:
    """Drop every line that is not svcagent's own, until the next `set_up`: it may hold what nobody may read."""
    for one in logging.getLogger().handlers:
        if isinstance(one, _Handler):
            one.addFilter(lambda record: record.name == _logger.name)


def log(text: str, *, level: int = INFO, **fields: object) -> None:
    """One event: what happened, for a person, and its fields (``service``, ``reload``, ``step``, …) for machines."""
    _logger.log(level, "%s", text, extra={"fields": fields})


def log_bug(text: str, error: BaseException) -> None:
    """An exception that should have been foreseen, with its trace."""
    log(text, level=ERROR, trace="".join(traceback.format_exception(error)))


def reemit(record: Mapping[str, Any]) -> None:
    """A line that another svcagent logged as JSON, through this one's own format."""
    fields = {name: value for name, value in record.items() if name not in ("time", "level", "text")}
    log(str(record.get("text", "")), level=_LEVELS.get(str(record.get("level")), INFO), **fields)


def _is_journal(stream: str) -> bool:
    """Is standard error what systemd connected with the journal (systemd.exec(5), ``$JOURNAL_STREAM``)?"""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Of an event of ours; of a library's line, which logger it came from, and the trace that it may bring."""
    fields: dict[str, object] | None = getattr(record, "fields", None)
    if fields is not None:
        return fields
    trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
    return {"logger": record.name, "trace": trace}


def _text(record: logging.LogRecord) -> str:
    """Pairs that logfmt readers understand: what holds spaces, quotes or control characters is a JSON string."""
    pairs = {"time": _time(record), "level": record.levelname.lower(), **_fields(record)}
    message = record.getMessage()
    if message:
        pairs["text"] = message
    return " ".join(f"{name}={_quoted(value)}" for name, value in pairs.items() if value is not None)


def _quoted(value: object) -> str:
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)


def _json(record: logging.LogRecord) -> str:
    tree = {"time": _time(record), "level": record.levelname.lower(), "text": record.getMessage(), **_fields(record)}
    return json.dumps(tree, default=str)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


_FORMATS = {Format.TEXT: _text, Format.JSON: _json}


class _Handler(logging.Handler):
    """Ours, told from others' by its type."""


class _Lines(_Handler):
    """On standard error, whatever that is at the moment."""

    def __init__(self, line: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, if it can be written."""
        with suppress(OSError, ValueError):  # see above: nobody reads it
            sys.stderr.write(f"{self._line(record)}\n")
            sys.stderr.flush()


class _Journal(_Handler):
    """The journal's own protocol: fields by which ``journalctl SVCAGENT_RELOAD=…`` finds one reload's lines."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._transport: Any = None

    def emit(self, record: logging.LogRecord) -> None:
        """Send it, if the journal takes it at once."""
        from logging_journald import JournaldLogHandler, JournaldTransport  # slow to import, and rarely needed

        fields = _fields(record)
        priority = JournaldLogHandler.LEVELS.get(record.levelno, JournaldLogHandler.LEVELS[INFO])
        message = record.getMessage() or " ".join(str(fields[name]) for name in ("step", "phase") if name in fields)
        service = f"{fields['service']}: " if "service" in fields else ""
        pairs = [("MESSAGE", f"{service}{message}"), ("PRIORITY", priority), ("SYSLOG_IDENTIFIER", "svcagent")]
        pairs += [(f"SVCAGENT_{name.upper()}", str(value)) for name, value in fields.items() if value is not None]
        with suppress(OSError):  # see above: the journal is gone, or does not keep up
            if self._transport is None:
                self._transport = JournaldTransport(self._address, connected=False)
                self._transport.socket.setblocking(False)
            self._transport.send(pairs)

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.socket.close()
            self._transport = None
        super().close()
