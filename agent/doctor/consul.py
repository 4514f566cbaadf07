"""Consul: the local agent, its release, the leader, this node, rights, blocking queries, expiry of certificates."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from agent.consul import CheckState
from agent.consul.acl import Right
from agent.consul.certificates import expiries, expiry
from agent.consul.releases import ReleaseFault, known_faults
from agent.consul.survey import Waited
from agent.definitions import ConsulSettings, Definition
from agent.doctor.diagnosis import Diagnosis, error, note, ok, unknown, warning
from agent.doctor.examined import ExaminedHost
from agent.errors import SvcagentError
from agent.files import LONGEST_FILE, NotRegularFile, read_regular
from agent.text import clean, counted

NODE_HEALTH = "serfHealth"
SOON = timedelta(days=14)
"""A certificate that ends earlier is reported."""
PROBED_WAIT = 1.0
"""Seconds of the blocking query that is tested."""
LEAST_SHARE = 0.5
"""A query that returns unchanged before this share of its wait does not block."""


def examine_agent(examined: ExaminedHost) -> Iterator[Diagnosis]:
    try:
        with examined.consul_survey() as survey:
            facts = survey.agent_self()
    except SvcagentError as found:
        yield error(str(found), "correct this first: svcagent requires the local agent")
        return
    yield ok(f"{examined.settings.consul.address} is node {facts.node}, Consul {facts.version}")
    if facts.leaves_on_terminate and not facts.is_server:
        yield ok(
            "the node leaves the catalog when its agent stops (leave_on_terminate); svcagent counts its instances for "
            "another day"
        )
    with examined.consul() as consul:
        there = consul.services({service.id: service.name for service in examined.services})
    yield from judge_registered([service.id for service in examined.services], there.keys())


def judge_registered(wanted: Iterable[str], there: Collection[str]) -> Iterator[Diagnosis]:
    for service_id in wanted:
        if service_id in there:
            yield ok("registered", service_id)
        else:
            yield error("not registered in the local agent", "run: svcagent register", service_id)


def judge_release(version: str, faults: Collection[ReleaseFault]) -> Iterator[Diagnosis]:
    for one in faults:
        judge = note if one.handled else error
        remedy = f"upgrade the agent to {one.fixed} or later" if one.fixed else "no release without this fault is known"
        yield judge(f"Consul {version}: {one.problem}", remedy)
    if not faults:
        yield ok(f"Consul {version} has no known fault")


def examine_release(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.consul_survey() as survey:
        version = survey.agent_self().version
    yield from judge_release(version, known_faults(version))


def judge_leader(leader: str, servers: Collection[str]) -> Diagnosis:
    if leader:
        return ok(f"the leader is {leader}, one of {counted(len(servers), 'server')}")
    remedy = "start enough servers for a majority; run: consul operator raft list-peers"
    return error("the Consul servers have no leader: nothing can be written, no lock can be acquired", remedy)


def examine_leader(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.consul_survey() as survey:
        survey.agent_self()  # so that any later failure is the servers' fault
        try:
            leader = survey.leader()
            yield judge_leader(leader, survey.servers() if leader else ())
        except SvcagentError as found:
            yield error(str(found), "check the Consul servers: the local agent answers, but the servers do not")


def judge_node(node: str, checks: Mapping[str, CheckState]) -> Diagnosis:
    if not checks:
        remedy = "compare `consul members` here and on a server; the agent may have joined another cluster"
        return error(f"this host's node {node} is not in the catalog: clients cannot find its services", remedy)
    health = checks.get(NODE_HEALTH)
    if health is not None and health.status == "critical":
        remedy = "check the agent's log and the network between the agents (UDP and TCP port 8301)"
        return error(f"the cluster considers this agent failed: {clean(health.output) or health.status}", remedy)
    return ok(f"node {node} is in the catalog and alive")


def examine_node(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.consul_survey() as survey:
        facts = survey.agent_self()
        if facts.has_coordinates and not survey.may_read_node(facts.node):
            yield unknown("not checked: the token lacks node:read")
            return
    with examined.consul() as consul:
        yield judge_node(facts.node, consul.node_checks(facts.node)[1])


def needed_rights(definitions: Iterable[Definition]) -> dict[Right, str]:
    """Return the rights on services and keys that definitions need, each with the ID of one service that needs it."""
    needed: dict[Right, str] = {}
    for definition in definitions:
        for service in definition.services:
            needed.setdefault(Right("service", "write", service.name), service.id)
        if definition.reload is not None:
            name, service_id = definition.service.name, definition.service.id
            needed.setdefault(Right("key", "write", f"svcagent/{name.lower()}/doctor"), service_id)
            needed.setdefault(Right("key", "write", f"{definition.reload.lock_prefix(name)}/.lock"), service_id)
    return needed


def judge_rights(needed: Mapping[Right, str], lacking: Collection[Right]) -> Iterator[Diagnosis]:
    seen = set()
    for right in lacking:
        if right.rule not in seen:
            seen.add(right.rule)
            yield error(f"the Consul token lacks {right}", f"add to its policy: {right.rule}", needed.get(right, ""))
    if not lacking:
        yield ok(f"the token has all {len(needed)} required rights")


def examine_rights(examined: ExaminedHost) -> Iterator[Diagnosis]:
    """Report every right that a definition needs and the token lacks. The probes change nothing."""
    needed = needed_rights(examined.definitions)
    with examined.consul_survey() as survey:
        node = survey.agent_self().node
        lacking = list(survey.lacking(node, list(needed)))
        if not survey.may_read_node(node):
            lacking.append(Right("node", "read", node))
        if examined.reloads:
            session = Right("session", "write", node)
            needed[session] = ""
            if not survey.may_make_sessions(node):
                lacking.append(session)
    needed[Right("node", "read", node)] = ""
    yield from judge_rights(needed, lacking)


def judge_wait(waited: Waited, asked: float) -> Diagnosis:
    if waited.after == waited.before and waited.seconds < LEAST_SHARE * asked:
        remedy = "set CONSUL_HTTP_ADDR to the agent itself, not to a proxy that answers for it"
        return warning(f"a blocking query of {asked:g} s returned after {waited.seconds:.2f} s", remedy)
    return ok("blocking queries work")


def examine_blocking(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.consul_survey() as survey:
        yield judge_wait(survey.wait(survey.agent_self().node, PROBED_WAIT), PROBED_WAIT)


def judge_expiry(whose: str, end: datetime, now: datetime) -> Diagnosis:
    left, day = end - now, f"{end:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta():
        return error(f"{whose} expired on {day}: connections to Consul fail", "replace it")
    if left <= SOON:
        return warning(f"{whose} expires on {day}, in {counted(left.days, 'day')}", "replace it before that day")
    return ok(f"{whose} is valid until {day}")


def examine_certificates(examined: ExaminedHost) -> Iterator[Diagnosis]:
    """Report certificates that have expired or will soon. ``http://`` and Unix sockets use none."""
    settings, now = examined.settings.consul, examined.clock.now()
    if not settings.address.startswith("https://"):
        yield ok("no TLS to the local agent")
        return
    for setting, file in _certificate_files(settings):
        try:
            ends = expiries(read_regular(file, LONGEST_FILE).decode("utf-8", "replace"))
        except (OSError, NotRegularFile, ValueError) as found:
            yield unknown(f"{setting} {file} cannot be read: {found}")
            continue
        for end in ends:
            yield judge_expiry(f"the certificate in {setting} {file}", end, now)
    try:
        with examined.consul_survey() as survey:
            shown = survey.certificate()
    except SvcagentError as found:
        yield unknown(f"cannot read the agent's certificate: {found}")
        return
    if shown is not None:
        yield judge_expiry("the Consul agent's certificate", expiry(shown), now)


def _certificate_files(settings: ConsulSettings) -> Iterator[tuple[str, Path]]:
    if settings.ca_file is not None:
        yield "ca_file", settings.ca_file
    if settings.ca_path is not None:
        for file in sorted(settings.ca_path.iterdir()):
            if file.is_file():
                yield "ca_path", file
    if settings.client_cert is not None:
        yield "client_cert", settings.client_cert
