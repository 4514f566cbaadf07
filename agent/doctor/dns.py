"""DNS: whether Consul's answers reach clients, how long they are cached, and faults of BIND that affect them."""

import ipaddress
import re
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from agent.consul import AgentSelf, Consul, DnsAnswer, ask_dns, service_dns_name
from agent.data import dataclass
from agent.definitions import Settings
from agent.doctor.diagnosis import Diagnosis, error, ok, unknown, warning
from agent.doctor.examined import ExaminedHost
from agent.errors import SvcagentError
from agent.reload.build import drain_dns

if TYPE_CHECKING:  # dnspython is slow to import
    from agent.cname.queries import DnsServer

Instances = frozenset[tuple[str, int]]
"""Addresses and ports."""

QUESTIONS = 5
"""Queries per name and resolver, because a spurious failure does not affect all of them."""

FIRST_GOOD_BIND = {(9, 19): (9, 20, 13), (9, 20): (9, 20, 13), (9, 21): (9, 21, 12)}
"""The first release of each branch that answers records with TTL 0 (BIND's release notes)."""

MOST_RECORDS = 100
"""BIND's default limit of records per name and type (max-records-per-type, since 9.18.28)."""


@dataclass(frozen=True)
class AskedServer:
    """One server's answer for one service, and the instances that the catalog showed before and after."""

    server: str
    answer: DnsAnswer
    served: Instances


def judge_answer(service_id: str, asked: AskedServer, drain_max: float | None) -> Iterator[Diagnosis]:
    """Judge one server's answer. ``drain_max`` is the limit of a drain in seconds; None without a reload."""
    missing = asked.served - asked.answer.instances
    ttl = asked.answer.ttl
    if missing:
        shown = ", ".join(f"{address}:{port}" for address, port in sorted(missing)[:3])
        yield error(
            f"{asked.server} does not return {len(missing)} of {len(asked.served)} served instances: {shown}",
            "compare the answers of the agent and of a Consul server (dig SRV); clients of this one miss instances",
            service_id,
        )
    if drain_max is not None and ttl > drain_max:
        yield error(
            f"{asked.server} returns a TTL of {ttl} s, above drain.max ({drain_max:g} s): every reload is refused",
            f'raise "drain": {{"max": "{ttl}s"}} in the definition, or set dns_config.service_ttl to 0s in every agent',
            service_id,
        )
    elif ttl > 0:
        yield warning(
            f"{asked.server} returns a TTL of {ttl} s: every drain waits for that time",
            'in the configuration of every Consul agent: "dns_config": {"service_ttl": {"*": "0s"}}',
            service_id,
        )
    elif not missing:
        count = f"every served instance ({len(asked.served)}), TTL 0" if asked.served else "no instance: none is served"
        yield ok(f"{asked.server} returns {count}", service_id)


def servers_asked(settings: Settings, agent: AgentSelf) -> tuple[tuple[str, int], ...]:
    """Return the DNS servers that a drain watches, and the clients' resolver if it is configured."""
    host, _, port = (settings.dns.resolver or "").rpartition(":")
    resolvers = [(host.strip("[]"), int(port))] if port else []
    return tuple(dict.fromkeys((*drain_dns(settings, agent), *resolvers)))


def examine_answers(examined: ExaminedHost) -> Iterator[Diagnosis]:
    drains = {service.id: reload.drain.max for service, reload in examined.reloads}
    with examined.consul() as consul:
        agent = consul.agent_self()
        servers = servers_asked(examined.settings, agent)
        if not servers:
            yield error(
                "the DNS of the local Consul agent is disabled, and no other server is set",
                "enable it (ports.dns), or set drain_dns in svcagent.toml to the server that clients use",
            )
        for service in examined.services:
            for server in servers:
                before = _served(consul, service.name)
                try:
                    answer = ask_dns(server, service_dns_name(service.name, agent.datacenter, agent.domain))
                except SvcagentError as failure:
                    yield error(str(failure), "correct that: no drain can be verified until then", service.id)
                    continue
                # An instance that changed meanwhile may or may not be in the answer.
                served = before & _served(consul, service.name)
                asked = AskedServer(f"{server[0]}:{server[1]}", answer, served)
                yield from judge_answer(service.id, asked, drains.get(service.id))


def _served(consul: Consul, service: str) -> Instances:
    """Return the instances that clients are sent to, except those registered by a host name."""
    instances = consul.instances(service)[1]
    return frozenset((one.address, one.port) for one in instances if one.is_served and _is_address(one.address))


def judge_resolver(server: str, name: str, rcodes: Sequence[str], service_id: str) -> Diagnosis:
    """Judge a resolver's answers to a repeated query for a name that the agent answers."""
    failed = sum(one == "SERVFAIL" for one in rcodes)
    if failed == len(rcodes):
        remedy = "check its forward zone for Consul's domain, and DNSSEC: svcagent doctor --only cname -v"
        return error(f"{server} answers SERVFAIL for {name}", remedy, service_id)
    if failed:
        return error(
            f"{server} answers SERVFAIL for {name} {failed} times of {len(rcodes)}",
            "BIND before 9.20.13 fails for records with TTL 0, Consul's default: upgrade it, or set "
            'dns_config.service_ttl to {"*": "1s"} in every Consul agent',
            service_id,
        )
    return ok(f"{server} answers for {name}", service_id)


def judge_bind(server: str, version: str) -> Diagnosis:
    """Judge a resolver by its version text; empty if it does not report one."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        return ok(f"{server} does not report a BIND version with a known fault")
    release = int(match[1]), int(match[2]), int(match[3])
    good = FIRST_GOOD_BIND.get(release[:2])
    if good is not None and release < good:
        return warning(
            f"{server} is BIND {match[0]}, which may answer SERVFAIL for records with TTL 0, Consul's default",
            f"upgrade it to {'.'.join(map(str, good))} or later",
        )
    return ok(f"{server} is BIND {match[0]}")


def judge_size(server: str, service_id: str, count: int) -> Iterator[Diagnosis]:
    if count > MOST_RECORDS:
        yield warning(
            f"{count} instances exceed the {MOST_RECORDS} records that BIND ({server}) accepts for one name",
            "in the options of its named.conf: max-records-per-type 0;",
            service_id,
        )


def examine_bind(examined: ExaminedHost) -> Iterator[Diagnosis]:
    from agent.cname.queries import DnsServer

    with examined.consul() as consul:
        agent = consul.agent_self()
        resolvers = [
            DnsServer(host, port, examined.settings.dns.timeout)
            for host, port in servers_asked(examined.settings, agent)
            if (host, port) != agent.dns
        ]
        for server in resolvers:
            version = _version(server)
            yield judge_bind(str(server), version)
            for service in examined.services:
                count = len(_served(consul, service.name))
                if not count:
                    continue
                if version:
                    yield from judge_size(str(server), service.id, count)
                name = service_dns_name(service.name, agent.datacenter, agent.domain)
                try:
                    rcodes = [server.ask(name, "A", is_recursive=True).rcode for _time in range(QUESTIONS)]
                except SvcagentError as failure:
                    yield unknown(str(failure), service=service.id)
                else:
                    yield judge_resolver(str(server), name, rcodes, service.id)
    if not resolvers:
        yield ok("no resolver is set (drain_dns, dns.resolver): svcagent assumes that clients query the local agent")


def _version(server: "DnsServer") -> str:
    """Return a server's version text (``version.bind``); empty if it does not report one."""
    import dns.exception
    import dns.message
    import dns.query

    query = dns.message.make_query("version.bind", "TXT", "CH")
    try:
        with socket.create_connection((server.host, server.port), server.timeout) as connection:
            connection.setblocking(False)
            reply = dns.query.tcp(query, "", timeout=server.timeout, sock=connection)
    except (OSError, EOFError, ValueError, dns.exception.DNSException):
        return ""
    return " ".join(record.to_text().strip('"') for rrset in reply.answer for record in rrset)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
