"""What one check of ``svcagent doctor`` found. Pure."""

from enum import StrEnum

from agent.data import dataclass

SUBJECTS = (
    "definitions",
    "consul",
    "dns",
    "cname",
    "clock",
    "docker",
    "host",
    "files",
    "leftovers",
    "upgrade",
)
"""In the order of the report."""


class Level(StrEnum):
    """How much a diagnosis matters.

    OK: all is well. NOTE: nothing is wrong now, but an upgrade will change something. UNKNOWN: it could not be judged.
    WARNING: it costs time or will fail in some situation. ERROR: a service, a reload or an operator's command fails.
    """

    OK = "ok"
    NOTE = "note"
    UNKNOWN = "unknown"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Diagnosis:
    """One result of one check. ``service``: the ID of the one service that it is about, else empty.

    ``subject`` and ``check`` are filled in by the registry.
    """

    level: Level
    what: str
    remedy: str = ""
    service: str = ""
    subject: str = ""
    check: str = ""


def well(what: str, service: str = "") -> Diagnosis:
    """Return a diagnosis that finds nothing."""
    return Diagnosis(Level.OK, what, "", service)


def note(what: str, remedy: str, service: str = "") -> Diagnosis:
    """Return what an upgrade will change."""
    return Diagnosis(Level.NOTE, what, remedy, service)


def unknown(what: str, remedy: str = "", service: str = "") -> Diagnosis:
    """Return what could not be judged, and why."""
    return Diagnosis(Level.UNKNOWN, what, remedy, service)


def warning(what: str, remedy: str, service: str = "") -> Diagnosis:
    """Return a fault that costs time, or fails in some situation."""
    return Diagnosis(Level.WARNING, what, remedy, service)


def error(what: str, remedy: str, service: str = "") -> Diagnosis:
    """Return a fault that matters."""
    return Diagnosis(Level.ERROR, what, remedy, service)
