"""Logs: one event is one line, as key=value, JSON or native journal fields. Verbs print the output for people.

Logging never blocks work. If a pipe has no reader, the disk is full or the journal is gone, only the line is lost, and
the next line that can be written says how many were lost.

It uses the standard library's logging, imported only when there is something to log: most verbs log nothing.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import field
from enum import StrEnum

from agent.data import dataclass
from agent.text import printable

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
"""Levels, numbered as in the standard library."""

JOURNAL_SOCKET = "/run/systemd/journal/socket"

DAEMON_CHILD = "SVCAGENT_DAEMON_CHILD"
"""The variable set in children of the daemon: their standard error is the daemon's log."""


class Format(StrEnum):
    """How a line is written. AUTO is the journal if systemd connected standard error to it, else text."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"
    JOURNAL = "journal"


@dataclass
class _State:
    """Of this process. ``common``: fields of every line now; ``undo``: reverts what `set_up` changed elsewhere."""

    form: Format = Format.TEXT
    level: int = WARNING
    is_stderr_log: bool = False
    common: dict[str, object] = field(default_factory=dict)
    undo: ExitStack = field(default_factory=ExitStack)


_state = _State()


def is_structured() -> bool:
    """True if warnings and errors, which are otherwise printed for people, are logged as events."""
    return _state.form in (Format.JSON, Format.JOURNAL) or _state.is_stderr_log


def is_stderr_log() -> bool:
    """True if standard error is the log, so that nothing may be printed there for people.

    False if the log goes to the journal while standard error goes elsewhere, because its reader does not see the
    journal.
    """
    return _state.is_stderr_log


def set_up(wanted: Format, *, is_verbose: bool, journal: str = JOURNAL_SOCKET) -> None:
    """Set how and how much is logged, for the whole process.

    Without ``is_verbose`` these are warnings and errors. Libraries' warnings and errors use the same format. Only with
    text that is not verbose, Python prints those as usual and nothing is changed.
    """
    is_connected = _is_journal(os.environ.get("JOURNAL_STREAM", ""))
    found = wanted
    if wanted is Format.AUTO:
        found = Format.JOURNAL if is_connected else Format.TEXT
    _state.form = found
    _state.level = INFO if is_verbose else WARNING
    is_daemons = bool(os.environ.get(DAEMON_CHILD))
    _state.is_stderr_log = is_daemons or found is Format.JSON or (found is Format.JOURNAL and is_connected)
    _state.undo.close()
    if found is Format.TEXT and not is_verbose:
        return
    from agent.logs import formats, handlers  # imported late: see the module's docstring

    handler: handlers.Handler
    if found is Format.JOURNAL:
        handler = handlers.SystemdJournal(_state.common, journal)
    else:
        form = formats.as_json if found is Format.JSON else formats.as_text
        handler = handlers.LineHandler(_state.common, form)
    handlers.install(handler, _state.level, _state.undo, is_stderr_log=_state.is_stderr_log)


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Add these fields to every line inside the block, also to those of this process's threads and of libraries."""
    before = dict(_state.common)
    _state.common.update(fields)
    try:
        yield
    finally:
        _state.common.clear()
        _state.common.update(before)


def log(text: str, *, level: int = INFO, **fields: object) -> None:
    """Log one event: a text for people, and fields (``service``, ``reload``, ``step``, …) for machines.

    Fields that are None are omitted.
    """
    if level >= _state.level:
        import logging  # imported late: see the module's docstring

        logging.getLogger("svcagent").log(level, "%s", printable(text), extra={"fields": fields})


def mute_libraries() -> None:
    """Drop every line of a library until the next `set_up`, because it may contain secrets."""
    import logging  # imported late: see the module's docstring

    def is_ours(record: logging.LogRecord) -> bool:
        return record.name == "svcagent"

    root, nothing = logging.getLogger(), logging.NullHandler()
    root.addHandler(nothing)  # without any handler, Python would print them
    _state.undo.callback(root.removeHandler, nothing)
    for one in root.handlers:
        one.addFilter(is_ours)
        _state.undo.callback(one.removeFilter, is_ours)


def log_bug(text: str, error: BaseException, **fields: object) -> None:
    import traceback  # rarely needed

    log(text, level=ERROR, **fields, trace="".join(traceback.format_exception(error)))


def _is_journal(stream: str) -> bool:
    """True if systemd connected standard error to the journal (systemd.exec(5), ``$JOURNAL_STREAM``)."""
    if not stream:
        return False
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"
