"""Find a name's zone, the zone's servers, and the resolver of this host's clients."""

from collections.abc import Iterator
from dataclasses import replace

import dns.exception
import dns.resolver

from agent.cname.queries import NS, DnsServer, text
from agent.cname.tsig import find_key
from agent.definitions import DnsSettings
from agent.errors import BadDefinition, DnsUnreachable, Fault, Rejected

DNS_PORT = 53


def resolver(settings: DnsSettings) -> DnsServer:
    """Return the configured resolver, else the first of /etc/resolv.conf. Raise `BadDefinition` without one."""
    if settings.resolver is not None:
        return DnsServer.at(settings.resolver, settings.timeout)
    try:
        found = [str(one) for one in dns.resolver.Resolver().nameservers]
    except dns.exception.DNSException:
        found = []
    if not found:
        problem, remedy = "this host has no resolver", "add one to /etc/resolv.conf, or set dns.resolver"
        raise BadDefinition([Fault("/etc/resolv.conf", "", problem, remedy)])
    return DnsServer(found[0], DNS_PORT, settings.timeout, source="/etc/resolv.conf")


def authority(settings: DnsSettings) -> DnsServer:
    """Return the configured primary, else the resolver. Raise `BadDefinition` if the signing key is unusable."""
    if settings.server is None:
        return resolver(settings)
    return DnsServer.at(settings.server, settings.timeout, find_key(settings) if settings.sign_queries else None)


def find_zone(server: DnsServer, name: str) -> str:
    """Return a name's zone, from the SOA record in a negative answer (RFC 2308).

    The query is for CNAMEs, because servers follow those for other types: to the target's zone, which may fail.

    :raises Rejected: the server knows no zone.
    """
    for candidate in _upwards(name):
        answer = server.ask(candidate, "CNAME", is_recursive=True)
        if answer.rcode not in ("NOERROR", "NXDOMAIN"):
            raise Rejected(
                f"the DNS server {server.described} answers {answer.rcode} to a query for the zone of {name}. "
                "Check that it serves that zone and permits this host's queries (allow-query), set zone in the "
                "definition, or correct dns.server",
                kind="zone-unknown",
            )
        beside = answer.soa_owner()
        if beside and f".{candidate}".endswith(f".{beside}"):
            return beside
    raise Rejected(
        f"the DNS server {server.described} knows no zone of {name}; set zone in the definition, or dns.server",
        kind="zone-unknown",
    )


def name_servers(server: DnsServer, zone: str, fallback: DnsServer) -> dict[str, tuple[DnsServer, ...]]:
    """Return the servers that the zone itself names, by name: one per address, with the port of ``server``.

    ``fallback`` is queried for addresses that ``server`` does not know. Raise `Rejected` if ``server`` refuses.
    """
    answer = server.ask(zone, "NS", is_recursive=True)
    if answer.rcode != "NOERROR":
        raise Rejected(
            f"the DNS server {server.described} answers {answer.rcode} to a query for the servers of {zone}. Check "
            "that it serves that zone and permits this host's queries (allow-query). If it requires the key, set "
            "dns.sign_queries",
            kind="zone-unknown",
        )
    names = sorted(text(record.target) for record, _ttl in answer.records(NS, zone))
    return {name: tuple(replace(server, host=one) for one in addresses(name, server, fallback)) for name in names}


def addresses(name: str, *servers: DnsServer) -> tuple[str, ...]:
    """Return the IPv4 and IPv6 addresses of a name from the first server that knows any."""
    for server in servers:
        try:
            answers = [server.ask(name, kind, is_recursive=True) for kind in ("A", "AAAA")]
        except DnsUnreachable:
            continue
        if found := tuple(address for answer in answers for address, _ttl in answer.addresses()):
            return found
    return ()


def _upwards(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.partition(".")[2]
