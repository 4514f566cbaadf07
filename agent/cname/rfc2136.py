"""The DNS provider for servers with dynamic updates (RFC 2136) signed with TSIG (RFC 8945): BIND and others.

NOERROR does not mean stored: servers silently drop a CNAME next to other records, and silently replace an existing
CNAME (RFC 2136 3.4.2.2). So the prerequisites of every update list exactly what must exist, one message changes record
and marker, which the server applies completely or not at all, and the result is read back.

A message with prerequisites only changes nothing. It distinguishes a record from a wildcard's answer, and proves that
record and marker, which take two queries, existed at the same moment.
"""

from dataclasses import replace

import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.update

from agent.cname import signing
from agent.cname.provider import (
    LONGEST_STRING,
    MARKER_TTL,
    NO_SUCH_TARGET,
    NOTHING,
    READS,
    DnsServerFailed,
    NotAuthoritative,
    NotGranted,
    PublishedRecord,
    QuestionsRefused,
    Raced,
    RecordPlace,
    TtlLowered,
    UpdatesOff,
    ZoneView,
    differs,
    read_back,
)
from agent.cname.queries import TXT, AnswerLost, DnsReply, DnsServer, text
from agent.cname.tsig import Key, find_key
from agent.cname.zones import authority
from agent.data import dataclass
from agent.definitions import DnsSettings
from agent.errors import BadDefinition, Denied, Fault, OutcomeUnknown

BESIDE_A_CNAME = frozenset({"RRSIG", "NSEC", "KEY", "SIG", "NXT"})
"""Types that may exist next to a CNAME: DNSSEC's own (RFC 4034, RFC 2181)."""

_NOT_HELD = frozenset({dns.rcode.NOTAUTH, dns.rcode.NOTZONE})
_RACED = frozenset({dns.rcode.YXDOMAIN, dns.rcode.YXRRSET, dns.rcode.NXRRSET, dns.rcode.NXDOMAIN})


@dataclass(frozen=True)
class Rfc2136:
    """One primary server and the key for it."""

    server: DnsServer
    key: Key

    @classmethod
    def from_settings(cls, settings: DnsSettings) -> "Rfc2136":
        """Raise `BadDefinition` if server or key are missing or invalid."""
        if settings.server is None:
            remedy = "set dns.server in svcagent.toml, or SVCAGENT_DNS_SERVER, to the zone's primary server"
            raise BadDefinition([Fault("settings", "dns.server", "missing", remedy)])
        return cls(authority(settings), find_key(settings))

    @property
    def warnings(self) -> tuple[str, ...]:
        key, found = self.key, []
        if key.is_readable_by_others:
            found.append(f"the DNS key {key.source} is world-readable; run: chmod o-r {key.source}")
        if key.is_weak:
            found.append(
                f"the DNS key {key.name} of {key.source} uses {key.algorithm}, which is weak (RFC 8945); "
                "create a new one for the server and for svcagent: tsig-keygen -a hmac-sha256 svcagent"
            )
        return tuple(found)

    def close(self) -> None:
        """Do nothing: every message has its own connection, because servers close idle ones."""

    def read(self, place: RecordPlace) -> ZoneView:
        """Return the records after the server has confirmed that they exist at the same moment."""
        for _ in range(READS):
            for view in _possible_views(self._query(place)):
                if self._exists(place, view):
                    return view
        signing.raise_if_unsigned(self.server, self.key, place)
        raise Raced(
            f"{place.name} changed {READS} times while it was read from {self.server}. Try again. If that server is a "
            "secondary that forwards updates, set dns.server to the primary"
        )

    def write(self, place: RecordPlace, seen: ZoneView, wanted: ZoneView) -> None:
        """Change what differs, by one message."""
        if seen == wanted:
            return
        if seen == NOTHING:
            # Before the first write, two views of a zone may differ only in their SOA, so compare it.
            signing.raise_if_other_zone(self.server, self.key, place.zone)
        update = dns.update.UpdateMessage(place.zone)
        _require(update, place, seen)
        if seen.record != wanted.record:
            update.delete(_name(place.name), "CNAME")
            if wanted.record is not None:
                update.add(_name(place.name), wanted.record.ttl, "CNAME", wanted.record.target)
        if seen.markers != wanted.markers:
            update.delete(_name(place.marker), "TXT")
            for marker in wanted.markers:
                update.add(_name(place.marker), MARKER_TTL, _txt(marker))
        self._send(place, update)
        self._confirm(place, wanted)

    def preflight(self, place: RecordPlace) -> None:
        """Delete records that do not exist: servers check the rights nevertheless."""
        self.read(place)
        signing.raise_if_other_zone(self.server, self.key, place.zone)
        update = dns.update.UpdateMessage(place.zone)
        for _line, name, absent in _rights(self.key.name, place):
            update.delete(_name(name), *absent)
        self._send(place, update)

    def _query(self, place: RecordPlace) -> ZoneView:
        found = self._authoritative(place, place.name, "CNAME")
        above = found.dname()
        if above is not None and above != place.name:
            raise NotAuthoritative(
                f"the DNAME of {above} answers for all names below it, so no record can be published at {place.name}; "
                "choose another name",
                kind="dname-above",
            )
        cname = found.cname(place.name)
        others: list[str] = []
        if cname is None and found.rcode == "NOERROR":
            everything = self._authoritative(place, place.name, "ANY")
            for rrset in everything.message.answer:
                kind = dns.rdatatype.to_text(rrset.rdtype)
                if text(rrset.name) == place.name and kind not in BESIDE_A_CNAME:
                    others += [f"{kind} {one.to_text()}" for one in rrset]
        markers = self._authoritative(place, place.marker, "TXT").records(TXT, place.marker)
        return ZoneView(
            record=PublishedRecord(*cname) if cname else None,
            others=tuple(sorted(others)),
            markers=tuple(sorted(b"".join(one.strings).decode(errors="replace") for one, _ttl in markers)),
        )

    def _authoritative(self, place: RecordPlace, name: str, kind: str) -> DnsReply:
        answer = self.server.ask(name, kind)
        if answer.rcode in ("NOERROR", "NXDOMAIN") and answer.is_authoritative:
            return answer
        signing.raise_if_unsigned(self.server, self.key, place)
        if answer.rcode == "SERVFAIL":
            raise DnsServerFailed(f"the DNS server {self.server} answers SERVFAIL for {name}; see its log")
        if below := answer.delegation(place.zone):
            raise NotAuthoritative(
                f"the zone {place.zone} delegates {below} to other servers, so {name} is not in it. Set "
                f'"zone": "{below}" in the definition, and dns.server to the primary server of that zone',
                kind="name-delegated",
            )
        if answer.rcode == "REFUSED" and self._exchange(dns.update.UpdateMessage(place.zone)) not in _NOT_HELD:
            raise QuestionsRefused(
                f"the DNS server {self.server} serves {place.zone}, but refuses this host's queries for {name}; "
                "permit them with allow-query in the zone's block"
            )
        answers = f"answers {answer.rcode}" if answer.rcode != "NOERROR" else "answers without authority"
        raise NotAuthoritative(
            f"the DNS server {self.server} does not serve the zone {place.zone}: it {answers} for {name}. "
            "Set dns.server to the zone's primary server, or correct the zone in the definition"
        )

    def _exists(self, place: RecordPlace, seen: ZoneView) -> bool:
        """True if exactly these records exist now."""
        update = dns.update.UpdateMessage(place.zone)
        _require(update, place, seen)
        rcode = self._exchange(update)
        if rcode == dns.rcode.REFUSED:
            lines = " ".join(line for line, *_ in _rights(self.key.name, place))
            raise UpdatesOff(
                f"the DNS server {self.server} accepts no updates of {place.zone}. If it is not the primary, set "
                f"dns.server to the primary. If the zone is frozen, run: rndc thaw {place.zone.rstrip('.')}. If the "
                f"zone block permits no updates, add to it: update-policy {{ {lines} }};"
            )
        self._raise_unless_known(place, rcode)
        return rcode == dns.rcode.NOERROR

    def _send(self, place: RecordPlace, update: dns.update.UpdateMessage) -> None:
        try:
            rcode = self._exchange(update)
        except AnswerLost as error:
            raise OutcomeUnknown(f"unknown whether {place.name} was written: {error}") from error
        if rcode in _RACED:
            raise Raced(f"another program changed {place.name} at the same moment")
        if rcode == dns.rcode.REFUSED:
            # A zone that accepts no updates at all refuses this, too.
            self._exists(place, NOTHING)
            raise self._not_granted(place)
        self._raise_unless_known(place, rcode)

    def _confirm(self, place: RecordPlace, wanted: ZoneView) -> None:
        found = read_back(self, place)
        if lowered := _lowered_ttl(wanted, found):
            raise TtlLowered(
                f"the DNS server {self.server} lowered the TTL of {place.name} to {lowered} s, the limit of its "
                "max-zone-ttl or dnssec-policy; set that ttl in the definition, and raise its gen"
            )
        if found != wanted:
            signing.raise_if_unsigned(self.server, self.key, place)
            raise differs(place, found)

    def _not_granted(self, place: RecordPlace) -> Denied:
        """Return which of the two rights is missing. The server says only REFUSED."""
        lines = []
        for line, name, absent in _rights(self.key.name, place):
            probe = dns.update.UpdateMessage(place.zone)
            probe.delete(_name(name), *absent)
            if self._exchange(probe) == dns.rcode.REFUSED:
                lines.append(line)
        return NotGranted(
            f"the DNS server {self.server} does not let the key {self.key.name} write {place.name}; "
            f"add to update-policy of the zone {place.zone}: {' '.join(lines)}"
        )

    def _exchange(self, update: dns.update.UpdateMessage) -> dns.rcode.Rcode:
        return self.server.exchange(update, self.key).rcode()

    def _raise_unless_known(self, place: RecordPlace, rcode: dns.rcode.Rcode) -> None:
        if rcode == dns.rcode.NOERROR or rcode in _RACED:
            return
        text = dns.rcode.to_text(rcode)
        if rcode in _NOT_HELD:
            signing.raise_if_unsigned(self.server, self.key, place)
            raise NotAuthoritative(
                f"the DNS server {self.server} answers {text} to a change of {place.name} in {place.zone}; "
                "set dns.server to the zone's primary server, or correct the zone in the definition"
            )
        raise DnsServerFailed(
            f"the DNS server {self.server} answers {text} to an update of {place.zone}. See its log, and check that "
            "named can write the directory of the zone file"
        )


def _possible_views(answered: ZoneView) -> tuple[ZoneView, ...]:
    """Return the states that an answer allows: record, marker or both may have come from a wildcard."""
    return tuple(dict.fromkeys((answered, ZoneView(markers=answered.markers), replace(answered, markers=()), NOTHING)))


def _lowered_ttl(wanted: ZoneView, found: ZoneView) -> int | None:
    """Return the TTL in seconds if the zone is as wanted except for a lower TTL."""
    if wanted.record is None or found.record is None:
        return None
    ttl = found.record.ttl
    is_alike = replace(found, record=replace(found.record, ttl=wanted.record.ttl)) == wanted
    return ttl if is_alike and ttl < wanted.record.ttl else None


def _require(update: dns.update.UpdateMessage, place: RecordPlace, seen: ZoneView) -> None:
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


def _rights(key: str, place: RecordPlace) -> tuple[tuple[str, str, tuple[object, ...]], ...]:
    """Return for each right that a write needs: the line that grants it, a name, and data that is not there."""
    subtree = place.marker[place.marker.index(f"_svcagent.{place.zone}") :]
    return (
        (f"grant {key} name {place.name} CNAME;", place.name, ("CNAME", NO_SUCH_TARGET)),
        (f"grant {key} subdomain {subtree} TXT;", place.marker, (_txt("svcagent preflight"),)),
    )


def _name(name: str) -> dns.name.Name:
    return dns.name.from_text(name)


def _txt(value: str) -> TXT:
    """Return one TXT record, with the text split into strings of at most 255 bytes."""
    raw = value.encode()
    strings = [raw[start : start + LONGEST_STRING] for start in range(0, len(raw), LONGEST_STRING)]
    return TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)
