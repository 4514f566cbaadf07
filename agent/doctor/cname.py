"""CNAMEs: what prevents clients from resolving a record, but is visible in no record.

The causes are forwarding, validation, caches and rights. Each examination sends one query to a real server, interprets
the answer for clients, and returns the configuration line to write, for BIND or Consul.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from agent.cname import OpenedProviders, Provider, WantedRecord, located, wanted_records
from agent.consul import AgentSelf, service_dns_name
from agent.data import dataclass
from agent.doctor.diagnosis import Diagnosis, error, ok, warning
from agent.doctor.examined import ExaminedHost
from agent.errors import DnsUnreachable, SvcagentError

if TYPE_CHECKING:  # dnspython is slow to import
    from agent.cname.queries import DnsReply, DnsServer

LONGEST_NEGATIVE = 60
"""Seconds that a resolver may remember a name as absent: the TTL of svcagent's own records."""

ABSENT_SERVICE = "svcagent-doctor-asks-for-nobody"
"""A service that does not exist, for finding out how long its absence is remembered."""

LABEL = "svcagent-doctor"

SIGN_QUERIES = "if its view or its allow-query requires the key, in [dns] of svcagent.toml: sign_queries = true"

Examination = Callable[[], tuple[str, str]]
"""Returns what was found, and the line that fixes it; the line is empty if nothing is wrong."""


@dataclass(frozen=True)
class CnameDoctor:
    """``authority`` serves the zones, ``resolver`` is the clients' resolver, ``agent`` the local Consul agent."""

    authority: "DnsServer"
    resolver: "DnsServer"
    agent: AgentSelf
    provider_of: Callable[[str], Provider]

    def examine(self, wanted: Iterable[WantedRecord]) -> Iterator[Diagnosis]:
        """Run all examinations, including those of servers that do not answer."""
        for subject, examination in self._examinations(tuple(wanted)):
            yield self._attempt(subject, examination)

    def _examinations(self, records: tuple[WantedRecord, ...]) -> Iterator[tuple[str, Examination]]:
        for one in records:
            yield f"right to write {one.name}", partial(self._right, one)
        for zone in sorted({one.zone for one in records}):
            yield f"negative answers of {zone}", partial(self._negative, zone)
        targets = sorted({one.record.target for one in records if one.is_in_consul})
        if targets:
            yield "forwarding to Consul", partial(self._forwarding, targets[0])
            yield "negative answers of Consul", self._consul_negative
        for target in targets:
            yield f"cache of {target}", partial(self._cache, target)
        for one in records:
            yield f"resolving {one.name}", partial(self._resolving, one)

    def _attempt(self, subject: str, examination: Examination) -> Diagnosis:
        try:
            found, remedy = examination()
        except SvcagentError as failure:
            return error(f"{subject}: {failure}", _remedy(failure))
        return error(f"{subject}: {found}", remedy) if remedy else ok(f"{subject}: {found}")

    def _right(self, wanted: WantedRecord) -> tuple[str, str]:
        self.provider_of(wanted.provider).preflight(wanted.place)
        return "granted", ""

    def _negative(self, zone: str) -> tuple[str, str]:
        answer = self.authority.ask(zone, "SOA", is_recursive=True)
        if answer.rcode == "REFUSED":
            return f"{self.authority} refuses unsigned queries for {zone}", SIGN_QUERIES
        from agent.cname.queries import SOA

        seconds = min((min(soa.minimum, ttl) for soa, ttl in answer.records(SOA, zone)), default=None)
        if seconds is None:
            found = f"{self.authority} has no SOA of {zone} (answers {answer.rcode})"
            return (
                found,
                "correct dns.server or the zone, or permit this host's queries (allow-query, dns.sign_queries)",
            )
        if seconds <= LONGEST_NEGATIVE:
            return f"resolvers cache the absence of a name for {seconds} s", ""
        return (
            f"resolvers cache the absence of a name for {seconds} s: a name queried before it is published stays "
            "unknown for that time",
            f"set the last number (minimum) in the SOA of {zone} to {LONGEST_NEGATIVE}",
        )

    def _forwarding(self, target: str) -> tuple[str, str]:
        """Recursion, forwarding and validation have the same symptom. A query without validation distinguishes them."""
        domain, resolver = self.agent.domain, self.resolver
        answer = resolver.ask(target, "A", is_recursive=True)
        if answer.rcode == "NOERROR" and _ttl(answer) is not None:
            return f"{resolver} resolves {target}", ""
        if answer.rcode in ("NOERROR", "NXDOMAIN") and not self._is_answered(target):
            return f"{resolver} answers {answer.rcode}, as Consul DNS does: {target} has no passing instance", ""
        if answer.rcode == "SERVFAIL":
            unchecked = resolver.ask(target, "A", is_recursive=True, is_checking_disabled=True)
            if unchecked.rcode == "NOERROR" and _ttl(unchecked) is not None:
                return (
                    f"{resolver} resolves {target}, but DNSSEC validation of {domain} fails",
                    f'in the options of named.conf: validate-except {{ "{domain}"; }};',
                )
        found = f"{resolver} answers {answer.rcode} for {target}"
        if not answer.is_recursive:
            return (
                f"{found}, and offers no recursion",
                f"in the options of named.conf: recursion yes; allow-recursion {{ localnets; localhost; }}; and: "
                f"{self._forward_zone()}",
            )
        return f"{found}, although Consul DNS resolves it", f"in named.conf: {self._forward_zone()}"

    def _resolving(self, wanted: WantedRecord) -> tuple[str, str]:
        name = f"{LABEL}{wanted.name[1:]}" if wanted.name.startswith("*.") else wanted.name
        answer = self.resolver.ask(name, "CNAME", is_recursive=True)
        zone = wanted.zone.rstrip(".")
        if answer.rcode == "SERVFAIL":
            unchecked = self.resolver.ask(name, "CNAME", is_recursive=True, is_checking_disabled=True)
            if unchecked.rcode != "SERVFAIL":
                return (
                    f"{self.resolver} answers SERVFAIL for {name}: DNSSEC validation of {zone} fails",
                    f'in the options of named.conf: validate-except {{ "{zone}"; }};',
                )
        if answer.rcode in ("NOERROR", "NXDOMAIN"):
            is_there = answer.cname(name) is not None
            return f"{self.resolver} {'has' if is_there else 'reaches the zone, but does not have'} the record", ""
        line = f'zone "{zone}" {{ type forward; forward only; forwarders {{ {_forwarder(self.authority)} }}; }};'
        return (
            f"{self.resolver} answers {answer.rcode} for {name}",
            f"unless it serves the zone, in its named.conf: {line}",
        )

    def _cache(self, target: str) -> tuple[str, str]:
        """Compare Consul's TTL with the resolver's, which a configured minimum raises."""
        consul = self._consul()
        consul_ttl = _ttl(consul.ask(target, "A"))
        cached = _ttl(self.resolver.ask(target, "A", is_recursive=True))
        if consul_ttl is None or cached is None:
            return "nothing to compare: the answer has no address", ""
        if cached > consul_ttl:
            return (
                f"Consul's TTL is {consul_ttl} s, but {self.resolver} caches addresses for {cached} s: clients may use "
                "an instance for that time after its drain",
                "in the options of named.conf: min-cache-ttl 0;",
            )
        if consul_ttl > 0:
            return (
                f"clients cache addresses for {consul_ttl} s, and may use an instance for that time after its drain",
                'in the configuration of every Consul agent: "dns_config": {"service_ttl": {"*": "0s"}}; '
                f'or let reloads wait: "drain": {{"min": "{consul_ttl}s"}}',
            )
        return "no client caches addresses", ""

    def _consul_negative(self) -> tuple[str, str]:
        name = f"{service_dns_name(ABSENT_SERVICE, self.agent.datacenter, self.agent.domain)}."
        consul_ttl = _negative_ttl(self._consul().ask(name, "A"))
        from agent.cname.queries import SOA

        # A cache shows the remaining time only in the TTL; the rest of the SOA is Consul's.
        remembered = self.resolver.ask(name, "A", is_recursive=True).records(SOA, is_authority=True)
        cached = max((ttl for _soa, ttl in remembered), default=0)
        if consul_ttl:
            return (
                f"if no instance passes, clients cache that answer for {consul_ttl} s",
                'in the configuration of every Consul agent: "dns_config": {"soa": {"min_ttl": 0}}',
            )
        if cached:
            return (
                f"if no instance passes, {self.resolver} caches that answer for {cached} s",
                "in the options of named.conf: min-ncache-ttl 0;",
            )
        return "no client caches the answer that no instance passes", ""

    def _is_answered(self, target: str) -> bool:
        return _ttl(self._consul().ask(target, "A")) is not None

    def _consul(self) -> "DnsServer":
        if self.agent.dns is None:
            raise DnsUnreachable("the DNS of the local Consul agent is disabled; enable it (ports.dns)")
        from agent.cname.queries import DnsServer

        return DnsServer(*self.agent.dns, self.resolver.timeout)

    def _forward_zone(self) -> str:
        consul = self._consul()
        return f'zone "{self.agent.domain}" {{ type forward; forward only; forwarders {{ {_forwarder(consul)} }}; }};'


def _remedy(failure: SvcagentError) -> str:
    """Return a remedy where the message has none."""
    if isinstance(failure, DnsUnreachable):
        return (
            "check that the server runs and that this host reaches it; see dns.server and dns.resolver in svcagent.toml"
        )
    return ""


def _forwarder(server: "DnsServer") -> str:
    """Return a server in named.conf's format."""
    return f"{server.host} port {server.port};"


def _ttl(answer: "DnsReply") -> int | None:
    return max((ttl for _address, ttl in answer.addresses()), default=None)


def _negative_ttl(answer: "DnsReply") -> int | None:
    from agent.cname.queries import SOA

    found = answer.records(SOA, is_authority=True)
    return min((min(soa.minimum, ttl) for soa, ttl in found), default=None)


def examine(examined: ExaminedHost) -> Iterator[Diagnosis]:
    """Examine the records of the definitions, or those that the operator named."""
    dns = examined.settings.dns
    with examined.consul() as consul:
        agent = consul.agent_self()
    everything = wanted_records(examined.definitions, agent.datacenter, agent.domain, dns.provider)
    records = [one for one in everything if not examined.names or one.is_named(examined.names)]
    if not records:
        yield ok("no definition has a cname")
        return
    from agent.cname import zones

    authority, resolver = zones.authority(dns), zones.resolver(dns)
    wanted: list[WantedRecord] = []
    for one in records:
        try:
            wanted += located([one], partial(zones.find_zone, authority))
        except SvcagentError as failure:
            # Only the text contains the rcode.
            yield error(str(failure), SIGN_QUERIES if "REFUSED" in str(failure) else _remedy(failure))
    warnings: list[str] = []
    with closing(OpenedProviders(dns, warnings.append)) as providers:
        yield from CnameDoctor(authority, resolver, agent, providers).examine(wanted)
    for text in warnings:
        what, _, remedy = text.partition("; ")
        yield warning(what, remedy)
