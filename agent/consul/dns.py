"""Query Consul DNS as clients do."""

import socket
from typing import TYPE_CHECKING

from agent.data import dataclass
from agent.errors import ConsulUnreachable, Unreachable

if TYPE_CHECKING:  # slow to import, and most commands never query DNS
    import dns.message

NAMED_BY = "The server is named by drain_dns in svcagent.toml; without that it is the local agent (CONSUL_HTTP_ADDR)"


@dataclass(frozen=True)
class DnsAnswer:
    """The instances in a DNS answer, as ``(address, port)``, and the answer's TTL in seconds."""

    instances: frozenset[tuple[str, int]]
    ttl: int


def service_dns_name(service: str, datacenter: str, domain: str, tag: str | None = None) -> str:
    """Return the name by which clients look up the instances of a service, or those with a tag."""
    return f"{tag}.{service}.service.{datacenter}.{domain}" if tag else f"{service}.service.{datacenter}.{domain}"


def ask_dns(server: tuple[str, int], name: str, timeout: float = 3.0) -> DnsAnswer:
    """Return the SRV answer for ``name`` (``web.service.dc1.consul``), with addresses from its additional section.

    The query uses TCP: over UDP, Consul returns at most three instances, chosen at random. If ``server`` is a host
    name, its addresses are tried in order until one answers.

    :raises ConsulUnreachable: no answer within ``timeout`` seconds, or neither NOERROR nor NXDOMAIN.
    """
    where = f"Consul DNS at {server[0]}:{server[1]}"
    try:
        return _ask(server, name, timeout)
    except Unreachable:
        raise
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ConsulUnreachable(f"{where} does not answer for {name}: {reason}. {NAMED_BY}") from error
    # dnspython raises many types, depending on the name and the answer: DNSException, ValueError, EOFError, …
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConsulUnreachable(f"{where} cannot be queried for {name}: {reason}. {NAMED_BY}") from error


def _ask(server: tuple[str, int], name: str, timeout: float) -> DnsAnswer:
    import dns.message  # slow to import
    import dns.rcode
    import dns.rdatatype

    host, port = server
    reply = _exchanged(server, dns.message.make_query(name, dns.rdatatype.SRV), timeout)
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


def _exchanged(server: tuple[str, int], query: "dns.message.Message", timeout: float) -> "dns.message.Message":
    """Return the answer of the server's first address that answers. dnspython itself takes IP addresses only."""
    import dns.query  # slow to import

    last: Exception = OSError("no address")
    for family, kind, protocol, _name, address in _addresses(*server):
        try:
            with socket.socket(family, kind, protocol) as connection:
                connection.settimeout(timeout)
                connection.connect(address)
                connection.setblocking(False)
                return dns.query.tcp(query, "", timeout=timeout, sock=connection)
        except Exception as error:  # noqa: BLE001 - dnspython raises any type; the next address is tried, and the last error is raised
            last = error
    raise last


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[return-value]  # IPv4 and IPv6 alike
    except (OSError, ValueError, OverflowError) as error:  # unknown; not a host name; not a port
        reason = getattr(error, "strerror", None) or str(error)
        raise ConsulUnreachable(f"the DNS server {host!a}:{port} cannot be resolved: {reason}. {NAMED_BY}") from error
