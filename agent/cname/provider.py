"""What keeps a zone: the protocol of DNS providers, and the types they share with the rest.

A provider reads and writes, one record with its marker at a time, and decides nothing. Adding one is a file of this
room and a row of `providers.PROVIDERS`; the contract that its tests share is ``tests/real/cname_contract.py``.
"""

from typing import Protocol

from agent.data import dataclass
from agent.errors import Conflict, Denied, Rejected


@dataclass(frozen=True)
class Place:
    """Where one record stands. All three are complete names in lower case, ending in a dot."""

    zone: str
    name: str
    marker: str
    """The name of the TXT record that says whose the record is; see `agent.cname.marker`."""


@dataclass(frozen=True)
class Record:
    """What a CNAME says. ``target`` is a complete name in lower case, ending in a dot; ``ttl`` is in seconds."""

    target: str
    ttl: int


@dataclass(frozen=True)
class Seen:
    """What stands at a place, all of it at one moment, in the provider's own authoritative data."""

    record: Record | None = None
    """The CNAME of exactly this name: an answer that a wildcard gives for it is none."""
    others: tuple[str, ...] = ()
    """Everything else at the name that cannot stand beside a CNAME, as in a zone file: ``A 192.0.2.7``."""
    markers: tuple[str, ...] = ()
    """The texts of all TXT records at the marker's name, each with its strings joined."""


NOTHING = Seen()


@dataclass(frozen=True)
class Promises:
    """What a provider's writes guarantee when several hosts write at once. Documented, and tested as stated."""

    compares: bool
    """A write happens only if exactly what the caller saw still stands; else it raises `Raced` and changes nothing."""
    is_atomic: bool
    """Nobody ever sees the record without its marker or the marker without its record."""


class Provider(Protocol):
    """One way to keep a zone.

    All methods raise `DnsUnreachable` when nobody answers, `Denied` when credentials or their rights do not suffice
    (its message holds the line to add), `Rejected` when the server refuses for another reason.
    """

    @property
    def promises(self) -> Promises:
        """What its writes guarantee."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What works, and a person should mend all the same: a key that others can read."""

    def read(self, place: Place) -> Seen:
        """What stands there now. Never from a cache."""

    def ensure(self, place: Place, seen: Seen, record: Record, marker: str) -> None:
        """Put record and marker in the place of what was ``seen``, and return when a new read shows both.

        What is already as it should be is not written again. ``seen`` has nothing in ``others``.

        :raises Raced: what was seen stands no longer, or something else stands there afterwards. Read again.
        :raises OutcomeUnknown: the write was sent and its answer lost. Read again; doing it again is harmless.
        """

    def remove(self, place: Place, seen: Seen) -> None:
        """Take record and marker away if they are what was ``seen``; return when a new read shows neither.

        :raises Raced: as for `ensure`.
        :raises OutcomeUnknown: as for `ensure`.
        """

    def preflight(self, place: Place) -> None:
        """Would a write be permitted? Changes nothing, not even the zone's serial.

        :raises Denied: no.
        """

    def close(self) -> None:
        """Give connections back."""


class Raced(Conflict):
    """Somebody else changed the record between reading and writing. Nothing was written; read again."""


class NotGranted(Denied):
    """The credentials are good and lack the right to write this record; the message holds the line that gives it."""


class UpdatesOff(Denied):
    """The server takes no updates of this zone from anybody with these credentials: frozen, or not dynamic."""


class UnknownKey(Denied):
    """The server knows no key of this name, or knows it with another algorithm."""


class BadSignature(Denied):
    """The server knows the key's name, and its secret is another one."""


class ClockSkewed(Denied):
    """The key is right, and this host's clock and the server's differ by more than signatures allow."""


class NotAuthoritative(Rejected):
    """The server does not hold the zone, or the name is not in it."""


class UnsignedRefused(Rejected):
    """The server answers signed questions, and refuses unsigned ones or answers them with other data."""


class QuestionsRefused(Denied):
    """The server holds the zone and does not answer questions from this host."""


class TtlLowered(Rejected):
    """The server stored the record with a lower TTL than was written: it has a limit."""


class ServerFailed(Rejected):
    """The server answered that it failed, or that it does not understand."""
