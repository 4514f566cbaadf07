"""One query to one DNS server over TCP with a deadline, and the interpretation of its answer.

Every response of a server is an answer; only silence or an unparsable response is an error. Import this module only
when DNS is needed: dnspython takes 100 ms.
"""

import socket
from dataclasses import field
from typing import TypeVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.tsig
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.NS import NS
from dns.rdtypes.ANY.SOA import SOA
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from agent.cname.provider import BadSignature, ClockSkewed, UnknownKey
from agent.cname.tsig import Key
from agent.data import dataclass
from agent.errors import Denied, DnsUnreachable, Rejected

__all__ = ["AAAA", "CNAME", "NS", "SOA", "TXT", "A", "AnswerLost", "DnsReply", "DnsServer", "text"]

LONGEST_NAME = 255
_WIRE_NAMES = {"hmac-md5": "hmac-md5.sig-alg.reg.int"}
"""An algorithm's name on the wire, if it differs from that in key files (RFC 8945, section 6)."""
R = TypeVar("R", bound=dns.rdata.Rdata)


class AnswerLost(DnsUnreachable):
    """The message was sent, but no usable answer came back."""


@dataclass(frozen=True)
class DnsServer:
    """One server. ``timeout`` is the seconds for a whole exchange. ``key`` signs every query to it.

    ``source`` is where its address comes from, if not from a setting.
    """

    host: str
    port: int
    timeout: float
    key: Key | None = None
    source: str = field(default="", compare=False)

    @classmethod
    def at(cls, endpoint: str, timeout: float, key: Key | None = None) -> "DnsServer":
        """Parse ``host:port``. An IPv6 address is in brackets."""
        host, _, port = endpoint.rpartition(":")
        return cls(host.strip("[]"), int(port), timeout, key)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def described(self) -> str:
        return f"{self} (from {self.source})" if self.source else str(self)

    def ask(
        self, name: str, kind: str, *, is_recursive: bool = False, is_checking_disabled: bool = False
    ) -> "DnsReply":
        """Send one query. With ``is_checking_disabled``, the server does not validate DNSSEC.

        :raises DnsUnreachable: there is no answer.
        :raises Denied: the server rejects the signature.
        """
        try:
            query = dns.message.make_query(name, kind, use_edns=True)
        except (dns.exception.DNSException, ValueError) as error:
            raise Rejected(f"{name[:LONGEST_NAME]!a} is not a DNS name: {error}", kind="dns-name-invalid") from error
        if not is_recursive:
            query.flags &= ~dns.flags.RD
        if is_checking_disabled:
            query.flags |= dns.flags.CD
        return DnsReply(query, self.exchange(query, self.key))

    def exchange(self, message: dns.message.Message, key: Key | None) -> dns.message.Message:
        """Send a message and return the answer. With a key, both are signed with it.

        :raises DnsUnreachable: the message was not sent.
        :raises AnswerLost: the message was sent, but no usable answer arrived.
        :raises Denied: the server rejects the signature.
        """
        if key is not None:
            message.use_tsig(dns.tsig.Key(key.name, key.secret, _WIRE_NAMES.get(key.algorithm, key.algorithm)))
        try:
            connection = socket.create_connection((self.host, self.port), self.timeout)
        except (OSError, ValueError, OverflowError) as error:  # the latter two: invalid host name or port
            raise DnsUnreachable(f"the DNS server {self.described} does not answer: {_reason(error)}") from error
        with connection:
            connection.setblocking(False)
            try:
                return dns.query.tcp(message, "", timeout=self.timeout, sock=connection)
            except dns.exception.Timeout as error:
                raise AnswerLost(
                    f"the DNS server {self.described} did not answer the message within {self.timeout:g} s"
                ) from error
            except (OSError, EOFError) as error:
                problem = f"the DNS server {self.described} closed the connection before it answered: {_reason(error)}"
                raise AnswerLost(problem) from error
            # dnspython's parser raises many types, depending on the answer: DNSException, ValueError, KeyError, …
            except Exception as error:
                if key is not None and isinstance(error, dns.tsig.PeerError):
                    raise self._refusal(key, error) from error
                kind = type(error).__name__
                raise AnswerLost(f"the answer of the DNS server {self} is invalid ({kind}: {error})") from error

    def _refusal(self, key: Key, error: dns.tsig.PeerError) -> Denied:
        who = f"the DNS server {self}"
        if isinstance(error, dns.tsig.PeerBadKey):
            return UnknownKey(
                f"{who} does not know the key {key.name} of {key.source} with the algorithm {key.algorithm} (BADKEY); "
                "include the same key file in its named.conf"
            )
        if isinstance(error, dns.tsig.PeerBadSignature):
            return BadSignature(
                f"{who} has another secret for the key {key.name} than {key.source} has (BADSIG); "
                "copy the key file again"
            )
        if isinstance(error, dns.tsig.PeerBadTime):
            return ClockSkewed(
                f"the clocks of this host and of {who} differ by more than 5 minutes (BADTIME); "
                "check that NTP runs on both"
            )
        return UnknownKey(f"{who} rejects the signature of the key {key.name} ({type(error).__name__})")


@dataclass(frozen=True)
class DnsReply:
    query: dns.message.Message
    message: dns.message.Message

    @property
    def rcode(self) -> str:
        """``NOERROR``, ``NXDOMAIN``, ``SERVFAIL``, …"""
        return dns.rcode.to_text(self.message.rcode())

    @property
    def is_authoritative(self) -> bool:
        """True if the server answers from its own zone."""
        return bool(self.message.flags & dns.flags.AA)

    @property
    def is_recursive(self) -> bool:
        """True if the server offers recursion."""
        return bool(self.message.flags & dns.flags.RA)

    def records(self, kind: type[R], name: str | None = None, *, is_authority: bool = False) -> list[tuple[R, int]]:
        """Return the records of one type with their TTLs; with ``name``, only those of that name."""
        owner = dns.name.from_text(name) if name else None
        return [
            (record, rrset.ttl)
            for rrset in (self.message.authority if is_authority else self.message.answer)
            if owner is None or rrset.name == owner
            for record in rrset
            if isinstance(record, kind)
        ]

    def cname(self, name: str) -> tuple[str, int] | None:
        """Return the CNAME target of exactly this name and its TTL."""
        return next(((text(one.target), ttl) for one, ttl in self.records(CNAME, name)), None)

    def addresses(self) -> list[tuple[str, int]]:
        """Return all addresses in the answer with their TTLs, including those that CNAMEs lead to."""
        return [(one.to_text(), ttl) for kind in (A, AAAA) for one, ttl in self.records(kind)]

    def delegation(self, zone: str) -> str | None:
        """Return the name below ``zone`` that the answer delegates to other servers."""
        owners = (text(rrset.name) for rrset in self.message.authority if rrset.rdtype == dns.rdatatype.NS)
        return next((owner for owner in owners if owner.endswith(f".{zone}")), None)

    def dname(self) -> str | None:
        """Return the owner of the DNAME record that the answer is based on."""
        return next((text(rrset.name) for rrset in self.message.answer if rrset.rdtype == dns.rdatatype.DNAME), None)

    def soa_owner(self) -> str | None:
        """Return the owner of the SOA record in a negative answer: the zone's name."""
        return next((text(rrset.name) for rrset in self.message.authority if rrset.rdtype == dns.rdatatype.SOA), None)


def text(name: dns.name.Name) -> str:
    """Return a name in this package's form: fully qualified, in lower case, with a final dot."""
    return name.to_text().lower()


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
