"""Handlers of the standard library's logging that write to standard error or to the journal."""

import logging
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from agent.logs.formats import LogEvent, as_journal

PATIENCE_SECONDS = 0.2
"""How long to wait for a slow reader. While lines are being lost, svcagent does not wait."""


class Handler(logging.Handler):
    """Ignores and counts lines that cannot be written, and reports the number with the next line that can."""

    def __init__(self, common: Mapping[str, object]) -> None:
        super().__init__()
        self._common = common
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        event = _event(record, self._common)
        try:
            if self._lost:
                text = f"lines of the log that could not be written before this one: {self._lost}"
                self.write(
                    replace(event, level=logging.WARNING, name="warning", text=text, fields={"lost": self._lost})
                )
                self._lost = 0
            self.write(event)
        except (OSError, ValueError):  # no reader, a full disk, no journal, a closed stream
            self._lost += 1

    @property
    def patience(self) -> float:
        return 0.0 if self._lost else PATIENCE_SECONDS

    def write(self, event: LogEvent) -> None:
        """Write the event.

        :raises OSError: it cannot be written now.
        """
        raise NotImplementedError


class LineHandler(Handler):
    """Writes to what is standard error at that moment."""

    def __init__(self, common: Mapping[str, object], form: Callable[[LogEvent], str]) -> None:
        super().__init__(common)
        self._form = form
        self._is_partial = False

    def write(self, event: LogEvent) -> None:
        """Write pieces that a pipe accepts whole or not at all, each when there is room for it."""
        line = f"{self._form(event)}\n"
        try:
            descriptor = sys.stderr.fileno()
        except (OSError, ValueError):  # not a file: replaced by a test or a library
            sys.stderr.write(line)
            sys.stderr.flush()
            return
        data = (f"\n{line}" if self._is_partial else line).encode(errors="backslashreplace")
        room = select.poll()
        room.register(descriptor, select.POLLOUT)
        done = 0
        try:
            while done < len(data):
                if not room.poll(self.patience * 1000):
                    raise BlockingIOError
                done += os.write(descriptor, data[done : done + select.PIPE_BUF])
        except OSError:
            self._is_partial = self._is_partial or done > 0
            raise
        self._is_partial = False


class SystemdJournal(Handler):
    """Uses the journal's protocol, with fields by which ``journalctl SVCAGENT_RELOAD=…`` finds one reload's lines."""

    def __init__(self, common: Mapping[str, object], address: str) -> None:
        from logging_journald import JournaldTransport  # slow to import, and rarely needed

        super().__init__(common)
        # Not connected, so that each line finds the socket of a restarted journal.
        self._connect: Callable[[], Any] = lambda: JournaldTransport(address, connected=False)
        self._transport: Any = None

    def write(self, event: LogEvent) -> None:
        if self._transport is None:
            self._transport = self._connect()
            microseconds = int(PATIENCE_SECONDS * 1_000_000)
            timeout = struct.pack("@ll", 0, microseconds)
            self._transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        self._transport.socket.setblocking(self.patience > 0)
        self._transport.send(as_journal(event))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.socket.close()
            self._transport = None
        super().close()


def install(handler: Handler, level: int, undo: ExitStack, *, is_stderr_log: bool) -> None:
    """Send the handler every event from ``level`` on and libraries' warnings; ``undo`` gets the calls that revert this.

    With ``is_stderr_log``, also what Python itself prints on standard error: warnings and uncaught exceptions.
    """
    root, ours = logging.getLogger(), logging.getLogger("svcagent")
    root.addHandler(handler)
    undo.callback(handler.close)
    undo.callback(root.removeHandler, handler)
    undo.callback(ours.setLevel, ours.level)
    ours.setLevel(level)
    if not is_stderr_log:
        return
    logging.captureWarnings(capture=True)
    undo.callback(logging.captureWarnings, capture=False)
    for place, name, hook in (
        (sys, "excepthook", _log_uncaught),
        (sys, "unraisablehook", lambda seen: _log_uncaught(seen.exc_type, seen.exc_value, seen.exc_traceback)),
        (threading, "excepthook", lambda seen: _log_uncaught(seen.exc_type, seen.exc_value, seen.exc_traceback)),
    ):
        undo.callback(setattr, place, name, getattr(place, name))
        setattr(place, name, hook)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit):  # of a thread: Python prints nothing for it either
        text = "an unhandled exception; this is a bug in svcagent: please report it with its trace"
        logging.getLogger("svcagent").error(text, exc_info=(kind, error or kind(), trace), extra={"fields": {}})


def _event(record: logging.LogRecord, common: Mapping[str, object]) -> LogEvent:
    """Return the event of a record. A library's event names its logger and carries its traceback, if any."""
    own: Mapping[str, object] | None = getattr(record, "fields", None)
    fields = {**common, **(own if own is not None else {"logger": record.name})}
    if record.exc_info:
        fields["trace"] = logging.Formatter().formatException(record.exc_info)
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return LogEvent(time, record.levelno, record.levelname.lower(), _text(record), fields)


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (LookupError, TypeError, ValueError) as error:  # a library's format does not fit its arguments
        return f"{record.msg!r} with {record.args!r}: {error}"
