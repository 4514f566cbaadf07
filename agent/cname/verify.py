"""Collect and judge what clients see: the zone's authoritative servers, the resolver's addresses, and Consul's view.

The update key is not needed unless queries to the primary are signed. Then queries to the zone's other servers are
signed, too, if they know the key.
"""

from collections.abc import Iterable
from dataclasses import replace

from agent.clock import Clock, Deadline, poll
from agent.cname.plan import described
from agent.cname.provider import PublishedRecord, ZoneView
from agent.cname.queries import SOA, DnsServer
from agent.cname.record import WantedRecord
from agent.cname.zones import name_servers
from agent.consul import Instance
from agent.data import dataclass
from agent.errors import Denied, DnsUnreachable, Rejected

PAUSE = 0.1
LABEL = "svcagent-status"
"""The label that replaces ``*`` in queries."""


@dataclass(frozen=True)
class ServerView:
    """The answer of one authoritative server at one address, or the ``problem`` with it."""

    name: str
    address: str
    serial: int | None = None
    record: PublishedRecord | None = None
    problem: str = ""

    @property
    def line(self) -> str:
        """The server and its problem. Without a problem, it lacks the record."""
        is_named = not self.address or self.address in self.problem
        where = self.name if is_named else f"{self.name} ({self.address})"
        return f"{where}: {self.problem or 'does not have the record yet'}"


@dataclass(frozen=True)
class ResolverView:
    """The resolver's answer to a client that asks for the record's addresses."""

    resolver: str
    asked: str
    target: str | None = None
    addresses: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class VerificationReport:
    """The observations of one record. It is healthy if there are no problems."""

    wanted: WantedRecord
    servers: tuple[ServerView, ...]
    clients: ResolverView
    passing: tuple[str, ...]
    """Addresses of the service's passing instances."""
    problems: tuple[str, ...]
    is_silent: bool
    """True if the only problems are servers that do not answer."""


def observe_servers(server: DnsServer, resolver: DnsServer, wanted: WantedRecord) -> tuple[ServerView, ...]:
    """Query every server of the zone, silent ones included. Raise `DnsUnreachable` if ``server`` does not list them."""
    place = wanted.place
    try:
        found = name_servers(server, place.zone, resolver)
    except Rejected as error:
        return (ServerView("dns.server", str(server), problem=str(error)),)
    return tuple(
        view
        for name, servers in found.items()
        for view in (
            [_ask_server(name, one, place.zone, place.name) for one in servers]
            or [ServerView(name, "", problem="the server's name has no address")]
        )
    )


def _ask_server(name: str, server: DnsServer, zone: str, record_name: str) -> ServerView:
    try:
        try:
            soa = server.ask(zone, "SOA")
        except Denied:  # not the primary; it knows no key
            server = replace(server, key=None)
            soa = server.ask(zone, "SOA")
        found = server.ask(record_name, "CNAME")
    except DnsUnreachable as error:
        return ServerView(name, str(server), problem=str(error))
    serials = [record.serial for record, _ttl in soa.records(SOA, zone)]
    if not serials or not soa.is_authoritative:
        does = (
            "refuses queries for the zone, or does not serve it:"
            if soa.rcode == "REFUSED"
            else "does not serve the zone"
        )
        return ServerView(name, str(server), problem=f"it {does} {zone} (answers {soa.rcode})")
    cname = found.cname(record_name)
    return ServerView(name, str(server), serials[0], PublishedRecord(*cname) if cname else None)


def observe_clients(resolver: DnsServer, wanted: WantedRecord) -> ResolverView:
    asked = f"{LABEL}{wanted.name[1:]}" if wanted.name.startswith("*.") else wanted.name
    try:
        cname = resolver.ask(asked, "CNAME", is_recursive=True).cname(asked)
        answers = [resolver.ask(asked, kind, is_recursive=True) for kind in ("A", "AAAA")]
    except DnsUnreachable as error:
        return ResolverView(str(resolver), asked, problem=str(error))
    failed = [one.rcode for one in answers if one.rcode not in ("NOERROR", "NXDOMAIN")]
    addresses = {address for one in answers for address, _ttl in one.addresses()}
    problem = f"answers {failed[0]}" if failed else ""
    return ResolverView(str(resolver), asked, cname[0] if cname else None, tuple(sorted(addresses)), problem)


def report(
    wanted: WantedRecord, servers: tuple[ServerView, ...], clients: ResolverView, instances: Iterable[Instance]
) -> VerificationReport:
    """Judge the observations.

    Over UDP, Consul returns at most three instances, so passing ones may be missing; but every address must pass.
    """
    passing = tuple(sorted({one.address for one in instances if one.is_passing}))
    silent = [one.line for one in servers if one.problem]
    wrong = [problem for one in servers if not one.problem for problem in _of_server(wanted, one, servers)]
    if not servers:
        wrong.append(f"the zone {wanted.zone} has no NS records")
    wrong += _of_clients(wanted, clients, passing)
    return VerificationReport(
        wanted, servers, clients, passing, (*silent, *wrong), is_silent=bool(silent) and not wrong
    )


def _of_server(wanted: WantedRecord, view: ServerView, servers: tuple[ServerView, ...]) -> list[str]:
    where = f"{view.name} ({view.address})"
    serials = [one.serial for one in servers if one.serial is not None]
    others = [serial for serial in serials if view.serial is not None and _is_newer(serial, view.serial)]
    if view.record != wanted.record:
        found = described(ZoneView(record=view.record))
        late = f", and its serial {view.serial} is behind {others[0]}" if others else ""
        return [f"{where}: {found}{late}; expected: {described(ZoneView(record=wanted.record))}"]
    return [f"{where}: its serial {view.serial} is behind {others[0]}"] if others else []


def _of_clients(wanted: WantedRecord, clients: ResolverView, passing: tuple[str, ...]) -> list[str]:
    where = f"the resolver {clients.resolver}, queried for {clients.asked}"
    doctor = "To find the cause: svcagent doctor --only cname"
    if clients.problem:
        return [f"{where}: {clients.problem}. {doctor}"]
    if clients.target != wanted.record.target:
        return [f"{where}: returns {clients.target or 'no CNAME'}, not {wanted.record.target}"]
    if not wanted.is_in_consul:
        return [] if clients.addresses else [f"{where}: returns the CNAME, but no address"]
    foreign = sorted(set(clients.addresses) - set(passing))
    if foreign:
        return [f"{where}: returns {', '.join(foreign)}, where no instance of {wanted.service} passes"]
    if not clients.addresses:
        what = (
            f"although {', '.join(passing)} pass. {doctor}"
            if passing
            else f"and no instance of {wanted.service} passes"
        )
        return [f"{where}: returns the CNAME, but no address, {what}"]
    return []


def _is_newer(serial: int, than: int) -> bool:
    """True if a serial is newer. Serials wrap around (RFC 1982)."""
    return 0 < (serial - than) % 2**32 < 2**31


def await_secondaries(
    server: DnsServer, resolver: DnsServer, wanted: WantedRecord, clock: Clock, seconds: float
) -> tuple[ServerView, ...]:
    """Wait until all servers of the zone have the record. Return those without it after ``seconds``.

    The primary notifies one secondary immediately, and the next ones within ``notify-delay`` (BIND: 5 s).
    """
    late: tuple[ServerView, ...] = ()

    def is_everywhere() -> bool:
        nonlocal late
        late = tuple(one for one in observe_servers(server, resolver, wanted) if one.record != wanted.record)
        return not late

    poll(is_everywhere, Deadline.after(clock, seconds), PAUSE)
    return late
