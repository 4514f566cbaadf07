"""The result type of the checks of ``svcagent doctor``."""

from enum import StrEnum
from functools import partial

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


UNREACHABLE = {
    "consul": "not checked, because Consul does not answer",
    "docker": "not checked, because Docker does not answer",
}
"""What is said of a check that needs a server, by the subject that reports the server itself."""


class Level(StrEnum):
    """The severity of a diagnosis.

    OK: no fault. NOTE: no fault now, but an upgrade will change something. UNKNOWN: it could not be judged. WARNING: it
    costs time or will fail in some situation. ERROR: a service, a reload or an operator's command fails.
    """

    OK = "ok"
    NOTE = "note"
    UNKNOWN = "unknown"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Diagnosis:
    """One result of one check. ``service`` is the ID of the service that it is about, if any.

    The registry sets ``subject`` and ``check``.
    """

    level: Level
    what: str
    remedy: str = ""
    service: str = ""
    subject: str = ""
    check: str = ""

    @property
    def kind(self) -> str:
        return f"{self.subject}-{self.check}"


def ok(what: str, service: str = "") -> Diagnosis:
    return Diagnosis(Level.OK, what, "", service)


note = partial(Diagnosis, Level.NOTE)
unknown = partial(Diagnosis, Level.UNKNOWN)
warning = partial(Diagnosis, Level.WARNING)
error = partial(Diagnosis, Level.ERROR)
