"""Find out if a server requires the key for queries, too: by a view that the key selects, or by ``allow-query``.

Updates are always signed, queries only with ``dns.sign_queries``. Without it, such a server refuses to answer, or
answers from another view's zone than the one that accepts the updates.
"""

from dataclasses import replace

from agent.cname import zones
from agent.cname.provider import RecordPlace, UnsignedRefused
from agent.cname.queries import DnsServer
from agent.cname.tsig import Key
from agent.definitions import DnsSettings
from agent.errors import BadDefinition, Denied, DnsUnreachable, Rejected

REMEDY = "set dns.sign_queries = true (or SVCAGENT_DNS_SIGN_QUERIES)"

_Question = tuple[str, str]
_Answer = tuple[str, bool, frozenset[str]]


def unsigned_problem(server: DnsServer, key: Key, place: RecordPlace) -> str:
    """Return why reads of ``place`` must be signed, with the remedy; empty if not. Raises as `DnsServer.ask`."""
    return _problem(server, key, (place.zone, "SOA"), (place.name, "CNAME"), (place.marker, "TXT"))


def raise_if_other_zone(server: DnsServer, key: Key, zone: str) -> None:
    """Raise `UnsignedRefused` if unsigned queries reach another zone than signed updates; else as `DnsServer.ask`."""
    if server.key is None and (problem := _problem(server, key, (zone, "SOA"))):
        raise UnsignedRefused(problem)


def raise_if_unsigned(server: DnsServer, key: Key, place: RecordPlace) -> None:
    """Raise `UnsignedRefused` if that explains why ``place`` could not be read. Raise nothing else."""
    if server.key is not None:
        return
    try:
        problem = unsigned_problem(server, key, place)
    except (DnsUnreachable, Denied):
        return  # the caller's original error is the better message
    if problem:
        raise UnsignedRefused(problem)


def find_zone(settings: DnsSettings, name: str) -> str:
    """Return the zone of a name; see `zones.find_zone`. Raise `UnsignedRefused` if only signed queries find it."""
    server = zones.authority(settings)
    try:
        return zones.find_zone(server, name)
    except Rejected as error:
        if settings.server is not None and not settings.sign_queries and (zone := _zone_if_signed(settings, name)):
            problem = f"{error}. To signed queries it answers, and serves {name} in {zone}"
            raise UnsignedRefused(f"{problem}; {REMEDY}") from error
        raise


def _zone_if_signed(settings: DnsSettings, name: str) -> str | None:
    try:
        return zones.find_zone(zones.authority(settings.replace(sign_queries=True)), name)
    except (BadDefinition, Rejected, Denied, DnsUnreachable):
        return None


def _problem(server: DnsServer, key: Key, *questions: _Question) -> str:
    """Compare unsigned and signed answers. The first query is for the SOA, whose serial shows changes of the zone."""
    unsigned, signed = replace(server, key=None), replace(server, key=key)
    before, with_key, after = ([_ask(one, *asked) for asked in questions] for one in (unsigned, signed, unsigned))
    if before != after:
        return ""  # changed meanwhile; one zone may look like two
    for (name, _kind), answer, signed_answer in zip(questions, before, with_key, strict=True):
        if answer != signed_answer and signed_answer[1] and signed_answer[0] in ("NOERROR", "NXDOMAIN"):
            return _message(server, key, name, answer)
    return ""


def _message(server: DnsServer, key: Key, name: str, answer: _Answer) -> str:
    rcode, is_authoritative, _lines = answer
    if rcode == "REFUSED":
        what = f"refuses unsigned queries for {name}, but answers queries signed"
    elif not is_authoritative:
        what = f"serves {name} only to queries signed"
    else:
        what = f"answers unsigned queries for {name} from another zone than queries signed"
    return f"the DNS server {server} {what} with the update key {key.name}; {REMEDY}"


def _ask(server: DnsServer, name: str, kind: str) -> _Answer:
    answer = server.ask(name, kind)
    # TTLs of cached answers run down, so ignore such answers.
    sections = (*answer.message.answer, *answer.message.authority) if answer.is_authoritative else ()
    lines = frozenset(line for one in sections for line in one.to_text().split("\n"))
    return answer.rcode, answer.is_authoritative, lines
