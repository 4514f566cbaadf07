"""The DNS provider for every server that takes dynamic updates (RFC 2136) signed with TSIG (RFC 8945): BIND and others.

NOERROR does not mean stored: a CNAME over other records is silently dropped, and a second CNAME silently replaces the
first (RFC 2136 3.4.2.2). So every write says in its prerequisites exactly what has to stand there, record and marker
go in one message, which the server carries out whole or not at all, and what stands afterwards is read back.

A message of prerequisites alone changes nothing. It tells a record from an answer that a wildcard gives, and that
record and marker, which are two questions, stood there at one moment.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update

from agent.clock import Clock
from agent.cname.provider import (
    NOTHING,
    BadSignature,
    ClockSkewed,
    NotAuthoritative,
    NotGranted,
    Place,
    Promises,
    Raced,
    Record,
    Seen,
    ServerFailed,
    UnknownKey,
    UpdatesOff,
)
from agent.cname.queries import TXT, Answer, DnsServer, Lost, text
from agent.cname.tsig import Key, find_key
from agent.definitions import DnsSettings
from agent.errors import BadDefinition, Denied, DnsUnreachable, Fault, OutcomeUnknown

MARKER_TTL = 60
"""Seconds. Nobody but svcagent reads markers, and it reads them from the server itself."""

READS = 5
"""How often a place is read again that changes while it is read."""

BESIDE_A_CNAME = frozenset({"RRSIG", "NSEC", "KEY", "SIG", "NXT"})
"""Types that may stand beside a CNAME: DNSSEC's own (RFC 4034, RFC 2181)."""

_NO_SUCH_TARGET = "svcagent-preflight.invalid."
_LONGEST_STRING = 255

_RACED = frozenset({dns.rcode.YXDOMAIN, dns.rcode.YXRRSET, dns.rcode.NXRRSET, dns.rcode.NXDOMAIN})


@dataclass(frozen=True)
class Rfc2136:
    """One primary server and the key that it knows."""

    server: DnsServer
    key: Key
    promises: Promises = field(default=Promises(compares=True, is_atomic=True), init=False)

    @classmethod
    def from_settings(cls, settings: DnsSettings, _clock: Clock) -> "Rfc2136":
        """:raises BadDefinition: server or key are not set, or of no use."""
        if settings.server is None:
            remedy = "set dns.server in svcagent.toml, or SVCAGENT_DNS_SERVER, to the zone's primary server"
            raise BadDefinition([Fault("settings", "dns.server", "missing", remedy)])
        return cls(DnsServer.at(settings.server, settings.timeout), find_key(settings))

    @property
    def warnings(self) -> tuple[str, ...]:
        """About the key file."""
        if not self.key.is_readable_by_others:
            return ()
        return (f"everybody on this host can read the DNS key {self.key.source}; run: chmod o-r {self.key.source}",)

    def close(self) -> None:
        """Every message has a connection of its own: servers close idle ones."""

    def read(self, place: Place) -> Seen:
        """What stands there, confirmed by the server as standing there at one moment."""
        for _ in range(READS):
            seen = self._answered(place)
            if self._stands(place, seen):
                return seen
            # An answer that a wildcard gave for a name that is not there?
            absent = Seen(markers=seen.markers)
            if seen != absent and self._stands(place, absent):
                return absent
        raise Raced(f"{place.name} changed {READS} times while it was read from {self.server}; try again")

    def ensure(self, place: Place, seen: Seen, record: Record, marker: str) -> None:
        """One message that replaces what was seen, and nothing else."""
        wanted = Seen(record=record, markers=(marker,))
        if seen == wanted:
            return
        update = self._update(place)
        _require(update, place, seen)
        if seen.record != record:
            update.replace(_name(place.name), record.ttl, "CNAME", record.target)
        if seen.markers != (marker,):
            update.replace(_name(place.marker), MARKER_TTL, _txt(marker))
        self._write(place, update)
        self._confirm(place, wanted)

    def remove(self, place: Place, seen: Seen) -> None:
        """One message that takes what was seen."""
        if seen == NOTHING:
            return
        update = self._update(place)
        _require(update, place, seen)
        if seen.record is not None:
            update.delete(_name(place.name), "CNAME")
        if seen.markers:
            update.delete(_name(place.marker), "TXT")
        self._write(place, update)
        self._confirm(place, NOTHING)

    def preflight(self, place: Place) -> None:
        """Takes away what is not there: servers look at rights all the same."""
        self.read(place)
        update = self._update(place)
        _delete_nothing(update, place, is_record=True, is_marker=True)
        self._write(place, update)

    # ------------------------------------------------------------ reading

    def _answered(self, place: Place) -> Seen:
        found = self._authoritative(place, place.name, "CNAME")
        cname = found.cname(place.name)
        others: list[str] = []
        if cname is None and found.rcode == "NOERROR":
            everything = self._authoritative(place, place.name, "ANY")
            for rrset in everything.message.answer:
                kind = dns.rdatatype.to_text(rrset.rdtype)
                if text(rrset.name) == place.name and kind not in BESIDE_A_CNAME:
                    others += [f"{kind} {one.to_text()}" for one in rrset]
        markers = self._authoritative(place, place.marker, "TXT").records(TXT, place.marker)
        return Seen(
            record=Record(*cname) if cname else None,
            others=tuple(sorted(others)),
            markers=tuple(sorted(b"".join(one.strings).decode(errors="replace") for one, _ttl in markers)),
        )

    def _authoritative(self, place: Place, name: str, kind: str) -> Answer:
        answer = self.server.ask(name, kind)
        if answer.rcode in ("NOERROR", "NXDOMAIN") and answer.is_authoritative:
            return answer
        if answer.rcode == "SERVFAIL":
            raise ServerFailed(f"the DNS server {self.server} answers SERVFAIL for {name}; its log says why")
        said = f"answers {answer.rcode}" if answer.rcode != "NOERROR" else "answers for others"
        raise NotAuthoritative(
            f"the DNS server {self.server} does not hold the zone {place.zone}: it {said} for {name}. "
            "Set dns.server to the zone's primary server, or correct the zone in the definition"
        )

    def _stands(self, place: Place, seen: Seen) -> bool:
        """Does exactly this stand there, all of it now?"""
        update = self._update(place)
        _require(update, place, seen)
        rcode = self._exchange(update)
        if rcode == dns.rcode.REFUSED:
            key = self.key.name
            raise UpdatesOff(
                f"the DNS server {self.server} takes no updates of {place.zone}: it is not the primary (set dns.server "
                f"to that one), or the zone is frozen (rndc thaw {place.zone.rstrip('.')}), or its zone block permits "
                "none; then add to it: "
                f"update-policy {{ {_grant_record(key, place)} {_grant_marker(key, place)} }};"
            )
        self._raise_unless_known(place, rcode)
        return rcode == dns.rcode.NOERROR

    # ------------------------------------------------------------ writing

    def _update(self, place: Place) -> dns.update.UpdateMessage:
        key = dns.tsig.Key(self.key.name, self.key.secret, self.key.algorithm)
        return dns.update.UpdateMessage(place.zone, keyring=key)

    def _write(self, place: Place, update: dns.update.UpdateMessage) -> None:
        try:
            rcode = self._exchange(update)
        except Lost as error:
            raise OutcomeUnknown(f"unknown whether {place.name} was written: {error}") from error
        if rcode in _RACED:
            raise Raced(f"somebody else changed {place.name} at the same moment")
        if rcode == dns.rcode.REFUSED:
            # A zone that takes no updates at all refuses this too.
            self._stands(place, NOTHING)
            raise self._not_granted(place)
        self._raise_unless_known(place, rcode)

    def _confirm(self, place: Place, wanted: Seen) -> None:
        try:
            found = self.read(place)
        except DnsUnreachable as error:
            raise OutcomeUnknown(f"{place.name} was written and could not be read back: {error}") from error
        if found != wanted:
            raise Raced(f"{place.name} is not as it was just written: {found}")

    def _not_granted(self, place: Place) -> Denied:
        """Which of the two rights lacks? The server says no more than REFUSED."""
        lines = []
        for is_record, line in ((True, _grant_record), (False, _grant_marker)):
            probe = self._update(place)
            _delete_nothing(probe, place, is_record=is_record, is_marker=not is_record)
            if self._exchange(probe) == dns.rcode.REFUSED:
                lines.append(line(self.key.name, place))
        return NotGranted(
            f"the DNS server {self.server} does not let the key {self.key.name} write {place.name}; "
            f"add to update-policy of the zone {place.zone}: {' '.join(lines)}"
        )

    def _exchange(self, update: dns.update.UpdateMessage) -> dns.rcode.Rcode:
        with self._signed():
            return self.server.exchange(update).rcode()

    @contextlib.contextmanager
    def _signed(self) -> Iterator[None]:
        """Tell apart what is wrong with a signature."""
        who = f"the DNS server {self.server}"
        name, algorithm, source = self.key.name, self.key.algorithm, self.key.source
        try:
            yield
        except dns.tsig.PeerBadKey as error:
            raise UnknownKey(
                f"{who} does not know the key {name} of {source} with the algorithm {algorithm} (BADKEY); "
                "include the key file in its named.conf, the same on both sides"
            ) from error
        except dns.tsig.PeerBadSignature as error:
            raise BadSignature(
                f"{who} knows the key {name} with another secret than {source} has (BADSIG); copy the key file again"
            ) from error
        except dns.tsig.PeerBadTime as error:
            raise ClockSkewed(
                f"the clocks of this host and of {who} differ by more than 5 minutes (BADTIME); is NTP running on both?"
            ) from error
        except dns.tsig.PeerError as error:
            raise UnknownKey(f"{who} does not take the signature of the key {name} ({type(error).__name__})") from error

    def _raise_unless_known(self, place: Place, rcode: dns.rcode.Rcode) -> None:
        if rcode == dns.rcode.NOERROR or rcode in _RACED:
            return
        said = dns.rcode.to_text(rcode)
        if rcode in (dns.rcode.NOTAUTH, dns.rcode.NOTZONE):
            raise NotAuthoritative(
                f"{said} is the answer of the DNS server {self.server} to a change of {place.name} in {place.zone}; "
                "set dns.server to the zone's primary server, or correct the zone in the definition"
            )
        raise ServerFailed(
            f"the DNS server {self.server} answers {said} to an update of {place.zone}; its log says why. "
            "Can named write the directory of the zone file?"
        )


def _require(update: dns.update.UpdateMessage, place: Place, seen: Seen) -> None:
    """Let the update happen only if this stands there."""
    name, marker = _name(place.name), _name(place.marker)
    if seen.record is not None:
        update.present(name, "CNAME", seen.record.target)
    elif seen.others:
        for kind in sorted({one.partition(" ")[0] for one in seen.others}):
            update.present(name, kind)
    else:
        update.absent(name)
    if seen.markers:
        update.present(marker, *(_txt(one) for one in seen.markers))
    else:
        update.absent(marker, "TXT")


def _delete_nothing(update: dns.update.UpdateMessage, place: Place, *, is_record: bool, is_marker: bool) -> None:
    if is_record:
        update.delete(_name(place.name), "CNAME", _NO_SUCH_TARGET)
    if is_marker:
        update.delete(_name(place.marker), _txt("svcagent preflight"))


def _grant_record(key: str, place: Place) -> str:
    return f"grant {key} name {place.name} CNAME;"


def _grant_marker(key: str, place: Place) -> str:
    subtree = place.marker[place.marker.index(f"_svcagent.{place.zone}") :]
    return f"grant {key} subdomain {subtree} TXT;"


def _name(name: str) -> dns.name.Name:
    return dns.name.from_text(name)


def _txt(value: str) -> TXT:
    """One TXT record, its text cut into the strings of at most 255 bytes that the format has."""
    raw = value.encode()
    strings = [raw[start : start + _LONGEST_STRING] for start in range(0, len(raw), _LONGEST_STRING)]
    return TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)
