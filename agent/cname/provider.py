"""The protocol of DNS providers, and the types that they share with the rest.

A provider reads and writes one record and its marker at a time, and decides nothing. A new one needs a file in this
package and a row in `PROVIDERS`; its tests use the contract in ``tests/real/cname_contract.py``.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from agent.data import dataclass
from agent.definitions import DnsSettings
from agent.errors import BadDefinition, Conflict, Denied, DnsUnreachable, Fault, OutcomeUnknown, Rejected


@dataclass(frozen=True)
class RecordPlace:
    """Where one record is published. All three are fully qualified names in lower case that end in a dot."""

    zone: str
    name: str
    marker: str
    """The name of the TXT record with the owner; see `agent.cname.marker`."""


@dataclass(frozen=True)
class PublishedRecord:
    """The content of a CNAME. ``target`` is fully qualified, in lower case, with a final dot; ``ttl`` is in seconds."""

    target: str
    ttl: int


@dataclass(frozen=True)
class ZoneView:
    """The records at a place at one moment, from the provider's authoritative data."""

    record: PublishedRecord | None = None
    """The CNAME of exactly this name. A wildcard's answer does not count."""
    others: tuple[str, ...] = ()
    """All records at the name that exclude a CNAME, in zone file format: ``A 192.0.2.7``."""
    markers: tuple[str, ...] = ()
    """The texts of all TXT records at the marker's name, each with its strings joined."""


NOTHING = ZoneView()

MARKER_TTL = 60
"""Seconds. Only svcagent reads markers, from authoritative data."""
READS = 5
"""Attempts to read a place that changes during the read."""
LONGEST_STRING = 255
"""Bytes of one string of a TXT record (RFC 1035 3.3)."""
NO_SUCH_TARGET = "svcagent-preflight.invalid."


class Provider(Protocol):
    """One way to edit a zone.

    All methods raise `DnsUnreachable` without an answer, `Denied` if credentials or their rights are insufficient (the
    message has the line to add), and `Rejected` if the server refuses for another reason.
    """

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems that do not prevent operation but should be fixed, such as a key that others can read."""

    def read(self, place: RecordPlace) -> ZoneView:
        """Return the current records. Never use a cache."""

    def write(self, place: RecordPlace, seen: ZoneView, wanted: ZoneView) -> None:
        """Replace what was ``seen`` by a record and its marker, or by `NOTHING`; return when a new read shows that.

        What is correct already is not written again. ``seen.others`` is empty.

        :raises Raced: the zone was no longer as seen, or differs afterwards. Read again.
        :raises OutcomeUnknown: the write was sent without a response. Read again; repeating it is harmless.
        """

    def preflight(self, place: RecordPlace) -> None:
        """Raise `Denied` if a write is not permitted. Change nothing, not even the zone's serial."""

    def close(self) -> None:
        """Close connections."""


def read_back(provider: Provider, place: RecordPlace) -> ZoneView:
    """Return the records after a write. Raise `OutcomeUnknown` without an answer."""
    try:
        return provider.read(place)
    except DnsUnreachable as error:
        raise OutcomeUnknown(f"{place.name} was written, but reading it back failed: {error}") from error


def differs(place: RecordPlace, found: ZoneView) -> "Raced":
    return Raced(f"{place.name} differs from what was just written: {found}")


class Raced(Conflict):
    """Another host changed the record between read and write. Nothing was written; read again."""


class NotGranted(Denied):
    """The credentials are valid but lack the right to write this record. The message has the line that grants it."""


class UpdatesOff(Denied):
    """The server accepts no updates of this zone with these credentials: it is frozen or not dynamic."""


class UnknownKey(Denied):
    """The server knows no key of this name, or has it with another algorithm."""


class BadSignature(Denied):
    """The server knows the key's name with another secret."""


class ClockSkewed(Denied):
    """The key is correct, but the clocks of this host and the server differ by more than signatures allow."""


class NotAuthoritative(Rejected):
    """The server does not serve the zone, or the name is not in it."""


class UnsignedRefused(Rejected):
    """The server answers signed queries, but refuses unsigned ones or answers them with other data."""


class QuestionsRefused(Denied):
    """The server serves the zone, but does not answer queries from this host."""


class TtlLowered(Rejected):
    """The server stored a lower TTL than was written, because of its limit."""


class DnsServerFailed(Rejected):
    """The server answered that it failed or did not understand the message."""


def _rfc2136(settings: DnsSettings) -> Provider:
    from agent.cname.rfc2136 import Rfc2136

    return Rfc2136.from_settings(settings)


def _route53(settings: DnsSettings) -> Provider:
    try:
        from agent.cname.route53 import Route53
    except ModuleNotFoundError as error:
        if error.name not in ("boto3", "botocore"):
            raise
        remedy = "to install it with svcagent: pip install 'svcagent[route53]'; or choose another provider"
        fault = Fault("settings", "dns.provider", f"route53 requires {error.name}, which is not installed", remedy)
        raise BadDefinition([fault]) from error

    return Route53.from_settings(settings)


PROVIDERS: Mapping[str, Callable[[DnsSettings], Provider]] = {
    "rfc2136": _rfc2136,
    "route53": _route53,
}
"""Each row imports its provider when it is opened."""


class OpenedProviders:
    """Opens each provider when it is first needed, and closes them all. ``warn`` gets its warnings."""

    def __init__(self, settings: DnsSettings, warn: Callable[[str], None]) -> None:
        self._settings = settings
        self._warn = warn
        self._opened: dict[str, Provider] = {}

    def __call__(self, name: str) -> Provider:
        if name not in self._opened:
            self._opened[name] = PROVIDERS[name](self._settings)
            for warning in self._opened[name].warnings:
                self._warn(warning)
        return self._opened[name]

    def close(self) -> None:
        for provider in self._opened.values():
            provider.close()
