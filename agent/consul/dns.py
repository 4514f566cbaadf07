"""Asking Consul DNS what clients ask it: which instances of a service are there?"""

from dataclasses import dataclass

from agent.errors import ConsulUnreachable


@dataclass(frozen=True)
class DnsAnswer:
    """The instances that a DNS server names, as ``(address, port)``, and for how many seconds it may be remembered."""

    instances: frozenset[tuple[str, int]]
    ttl: int


def ask_dns(server: tuple[str, int], name: str, timeout: float = 3.0) -> DnsAnswer:
    """The SRV answer for ``name`` (``web.service.dc1.consul``), addresses taken from its additional section.

    Asked over TCP: over UDP Consul names three instances at most, chosen at random.

    :raises ConsulUnreachable: no answer in ``timeout`` seconds, or one that is neither a list nor a clear no.
    """
    # Slow to import, and most verbs never ask.
    import dns.exception
    import dns.message
    import dns.query
    import dns.rcode
    import dns.rdatatype

    host, port = server
    query = dns.message.make_query(name, dns.rdatatype.SRV)
    try:
        reply = dns.query.tcp(query, host, timeout=timeout, port=port)
    except (OSError, EOFError, dns.exception.DNSException) as error:
        raise ConsulUnreachable(f"Consul DNS at {host}:{port} does not answer for {name}: {error}") from error
    if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise ConsulUnreachable(f"Consul DNS at {host}:{port} answers {dns.rcode.to_text(reply.rcode())} for {name}")
    addresses: dict[str, set[str]] = {}
    for rrset in reply.additional:
        if rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            addresses.setdefault(rrset.name.to_text(), set()).update(record.address for record in rrset)
    srv = [(record, rrset.ttl) for rrset in reply.answer if rrset.rdtype == dns.rdatatype.SRV for record in rrset]
    return DnsAnswer(
        instances=frozenset(
            (address, record.port) for record, _ttl in srv for address in addresses.get(record.target.to_text(), ())
        ),
        ttl=max((ttl for _record, ttl in srv), default=0),
    )
