"""Logs: one event is one line, as key=value, JSON or native journal fields. What people read is printed by the verbs.

Logging never keeps work from being done: a pipe that nobody reads any more, a full disk or a journal that is gone loses
the line and nothing else, and the next line that can be written says how many were lost.

The standard library's logging stands behind it. It is imported by those who have something to log: most verbs have not.
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
"""The variable by which a process knows that the daemon started it, and that its standard error is the daemon's log."""


class Format(StrEnum):
    """How a line is written. AUTO: to the journal where systemd connected standard error with it, else as text."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"
    JOURNAL = "journal"


@dataclass
class _State:
    """Of this process. ``common``: fields of every line for now; ``undo``: what `set_up` changed elsewhere."""

    form: Format = Format.TEXT
    level: int = WARNING
    is_alone: bool = False
    common: dict[str, object] = field(default_factory=dict)
    undo: ExitStack = field(default_factory=ExitStack)


_state = _State()


def is_for_machines() -> bool:
    """Are warnings and errors, which are printed for people, events of the log?"""
    return _state.form in (Format.JSON, Format.JOURNAL) or _state.is_alone


def is_alone() -> bool:
    """Has the log standard error for itself, so that nothing may be printed there for people?

    Not if it goes to the journal while standard error goes elsewhere: whoever is there reads no journal.
    """
    return _state.is_alone


def set_up(wanted: Format, *, is_verbose: bool, journal: str = JOURNAL_SOCKET) -> None:
    """Say how and how much is logged from now on, for the whole process.

    Without ``is_verbose``: warnings and errors. Those of libraries come with them, through the same format; only with
    text that is not verbose they are printed as Python does it, and nothing is changed.
    """
    is_connected = _is_journal(os.environ.get("JOURNAL_STREAM", ""))
    found = wanted
    if wanted is Format.AUTO:
        found = Format.JOURNAL if is_connected else Format.TEXT
    _state.form = found
    _state.level = INFO if is_verbose else WARNING
    is_daemons = bool(os.environ.get(DAEMON_CHILD))
    _state.is_alone = is_daemons or found is Format.JSON or (found is Format.JOURNAL and is_connected)
    _state.undo.close()
    if found is Format.TEXT and not is_verbose:
        return
    from agent.logs import formats, handlers  # see above

    handler: handlers.Handler
    match found:
        case Format.JOURNAL:
            handler = handlers.Journal(_state.common, journal)
        case Format.JSON:
            handler = handlers.Lines(_state.common, formats.as_json)
        case _:
            handler = handlers.Lines(_state.common, formats.as_text)
    handlers.install(handler, _state.level, _state.undo, is_alone=_state.is_alone)


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Every line inside the block carries these fields: of this process's threads and of libraries too."""
    before = dict(_state.common)
    _state.common.update(fields)
    try:
        yield
    finally:
        _state.common.clear()
        _state.common.update(before)


def log(text: str, *, level: int = INFO, **fields: object) -> None:
    """One event: what happened, for a person, and its fields (``service``, ``reload``, ``step``, …) for machines.

    A field that is None is as if it were not there.
    """
    if level >= _state.level:
        import logging  # see above

        logging.getLogger("svcagent").log(level, "%s", printable(text), extra={"fields": fields})


def mute_libraries() -> None:
    """Drop every line that is not svcagent's own, until the next `set_up`: it may hold what nobody may read."""
    import logging  # see above

    def is_ours(record: logging.LogRecord) -> bool:
        return record.name == "svcagent"

    root, nothing = logging.getLogger(), logging.NullHandler()
    root.addHandler(nothing)  # without any handler, Python would print them
    _state.undo.callback(root.removeHandler, nothing)
    for one in root.handlers:
        one.addFilter(is_ours)
        _state.undo.callback(one.removeFilter, is_ours)


def log_bug(text: str, error: BaseException, **fields: object) -> None:
    """An exception that should have been foreseen, with its trace."""
    import traceback  # rarely needed

    log(text, level=ERROR, **fields, trace="".join(traceback.format_exception(error)))


def _is_journal(stream: str) -> bool:
    """Is standard error what systemd connected with the journal (systemd.exec(5), ``$JOURNAL_STREAM``)?"""
    if not stream:
        return False
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"
