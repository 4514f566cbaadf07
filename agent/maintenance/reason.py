"""The reason text of a maintenance: a sentence for people in Consul's UI that svcagent can parse. Pure.

Consul stores one free text with a maintenance and nothing else, so owner, begin and end are written into it and parsed
from it. The catalog is the only store.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum

from agent.data import dataclass
from agent.text import clean

LONGEST_WHY, LONGEST_NAME = 500, 200
"""How many characters of a reason and of an owner a message shows: anyone with write access to Consul sets them."""

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
_OPERATOR = re.compile(
    rf"Taken out by (?P<owner>\S+) on (?P<host>\S+) since (?P<since>{_TIME})(?: until (?P<until>{_TIME}))?: "
    r"(?P<why>.*)",
    re.DOTALL,
)
_RELOAD = re.compile(
    rf"Taken out by svcagent reload (?P<owner>\S+) on (?P<host>\S+) since (?P<since>{_TIME}): (?P<why>.*)", re.DOTALL
)


class OwnerKind(StrEnum):
    """The kind of owner. UNKNOWN: enabled by ``consul maint`` or by hand, and treated like an operator's."""

    OPERATOR = "operator"
    RELOAD = "reload"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Maintenance:
    """One maintenance. ``owner``: a user name, a reload's ID, or empty if unknown; ``why``: the reason given."""

    kind: OwnerKind
    owner: str
    host: str
    why: str
    since: datetime | None = None
    until: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        return self.until is not None and self.until <= now

    def has_same_cause(self, other: "Maintenance") -> bool:
        """True if the same operator enabled both for the same reason; False for an unknown owner."""
        cause = (self.kind, self.owner, self.host, self.why)
        return self.kind is OwnerKind.OPERATOR and cause == (other.kind, other.owner, other.host, other.why)

    @property
    def whose(self) -> str:
        """The owner for a message; ``unknown`` if svcagent did not write the reason."""
        match self.kind:
            case OwnerKind.OPERATOR:
                return clean(f"{self.owner} on {self.host}", LONGEST_NAME)
            case OwnerKind.RELOAD:
                return clean(f"svcagent reload {self.owner} on {self.host}", LONGEST_NAME)
            case OwnerKind.UNKNOWN:
                return "unknown"

    def describe(self, show: Callable[[datetime], str] = lambda moment: f"{moment:{TIME_FORMAT}}") -> str:
        """Return owner, begin, end and reason for a message; ``show`` formats its times."""
        whose = "an unknown owner" if self.kind is OwnerKind.UNKNOWN else self.whose
        since = f" since {show(self.since)}" if self.since else ""
        until = f" until {show(self.until)}" if self.until else ""
        why = clean(self.why, LONGEST_WHY)
        return f"by {whose}{since}{until}" + (f" ({why})" if why else "")


def by_operator(user: str, host: str, why: str, since: datetime, until: datetime | None = None) -> Maintenance:
    """Return an operator's maintenance. Times are kept to the second."""
    return Maintenance(OwnerKind.OPERATOR, _word(user), _word(host), why, _second(since), until and _second(until))


def by_reload(reload_id: str, host: str, why: str, since: datetime) -> Maintenance:
    """Return a reload's maintenance, which is recognized by the reload's ID."""
    return Maintenance(OwnerKind.RELOAD, _word(reload_id), _word(host), why, _second(since))


def is_of_reload(maintenance: Maintenance, host: str, reload_id: str = "") -> bool:
    """True if a reload on that host, or the reload with this ID (the node may have been renamed), enabled it.

    For the process that holds the host lock, that reload has ended.
    """
    if maintenance.kind is not OwnerKind.RELOAD:
        return False
    return maintenance.host == _word(host) or (bool(reload_id) and maintenance.owner == _word(reload_id))


def is_finished_reload(text: str, *, is_journalled: bool) -> bool:
    """True if this is the reason text of a reload that has finished: an unfinished reload has a journal."""
    return parse(text).kind is OwnerKind.RELOAD and not is_journalled


def render(maintenance: Maintenance) -> str:
    """Return the text for Consul, from which `parse` makes the same maintenance."""
    if maintenance.kind is OwnerKind.UNKNOWN or maintenance.since is None:
        return maintenance.why
    by = f"svcagent reload {maintenance.owner}" if maintenance.kind is OwnerKind.RELOAD else maintenance.owner
    until = f" until {maintenance.until:{TIME_FORMAT}}" if maintenance.until else ""
    return f"Taken out by {by} on {maintenance.host} since {maintenance.since:{TIME_FORMAT}}{until}: {maintenance.why}"


def parse(text: str) -> Maintenance:
    """Return the maintenance that a reason text describes, with an unknown owner if svcagent did not write the text."""
    for kind, pattern in ((OwnerKind.RELOAD, _RELOAD), (OwnerKind.OPERATOR, _OPERATOR)):
        if match := pattern.fullmatch(text):
            found = match.groupdict()
            try:
                since = _time(found["since"])
                until = _time(found["until"]) if found.get("until") else None
            except ValueError:
                break
            return Maintenance(kind, found["owner"], found["host"], found["why"], since, until)
    return Maintenance(OwnerKind.UNKNOWN, "", "", text)


def _word(name: str) -> str:
    """Return a name without spaces, which separate the parts of the text."""
    return re.sub(r"\s+", "_", name) or "unknown"


def _second(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _time(text: str) -> datetime:
    return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC)
