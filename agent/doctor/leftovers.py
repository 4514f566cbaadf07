"""What crashed reloads and operators left behind: journals, containers, maintenance, sessions."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from agent.consul import CheckState, LocalService
from agent.doctor.diagnosis import Diagnosis, error, ok, warning
from agent.doctor.examined import ExaminedHost
from agent.engine.swap import NEW_SUFFIX, OLD_SUFFIX
from agent.errors import Denied
from agent.maintenance import is_of_reload, iso, parse
from agent.maintenance.expiry import find_expired
from agent.reload.host_lock import HostLock
from agent.reload.journal import journalled
from agent.text import clean, quoted_command

RUN_AS = "run the doctor as the user that svcagent runs as"

_RELOAD_SESSION = re.compile(r"Consul lock for 'svcagent reload ([^']*)' at '")


def _recover(service: str) -> str:
    return f"run: {quoted_command(['svcagent', 'recover', service])}"


def running_reloads(examined: ExaminedHost) -> frozenset[str]:
    """Return the IDs of the services that a process on this host is reloading. Raise `Denied` if that is invisible."""
    state, clock = examined.settings.state_dir, examined.clock
    try:
        state.stat()
    except FileNotFoundError:
        return frozenset()
    except OSError:
        raise Denied(f"the state directory {state} cannot be read; {RUN_AS}") from None
    if not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        raise Denied(f"this user may not read the locks in {state}; {RUN_AS}")
    ids = {service.id for service in examined.services} | journalled(state)
    return frozenset(one for one in ids if HostLock(state, one, clock, 0.0).holder() is not None)


def judge_journals(journals: Collection[str], running: Collection[str]) -> Iterator[Diagnosis]:
    crashed = sorted(set(journals) - set(running))
    for service in crashed:
        yield error("a reload crashed and is not recovered", _recover(service), service)
    if not crashed:
        yield ok("no crashed reload")


def examine_journals(examined: ExaminedHost) -> Iterator[Diagnosis]:
    running = running_reloads(examined)
    journals = {one for one in journalled(examined.settings.state_dir) if examined.concerns(one)}
    yield from judge_journals(journals, running)


def judge_containers(
    names: Collection[str], containers: Mapping[str, str], unfinished: Collection[str], *, only_defined: bool = False
) -> Iterator[Diagnosis]:
    """Judge the containers that exist only during a replacement.

    ``containers`` maps names of defined containers to service IDs. ``unfinished`` are the services with a journal or a
    running reload. ``only_defined`` ignores containers of other services.
    """
    found = False
    for name in sorted(names):
        for suffix in (OLD_SUFFIX, NEW_SUFFIX):
            owner = name.removesuffix(suffix)
            service = containers.get(owner, "")
            if owner == name or service in unfinished or (only_defined and not service):
                continue
            found = True
            if service:
                yield error(f"an interrupted replacement left container {name}", _recover(service), service)
            else:
                what = f"a replacement of {owner}, which no definition names, left container {name}"
                yield warning(what, f"compare both (docker ps -a), then remove it: docker rm {name}")
    if not found:
        yield ok("no container left by an interrupted replacement")


def examine_containers(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.engine_survey() as engine:
        names = engine.facts().container_names
    unfinished = journalled(examined.settings.state_dir) | running_reloads(examined)
    containers = {one.strategy.container: one.service.id for one in examined.containers}
    # A faulty file may name containers that no other definition names.
    only_defined = bool(examined.names or examined.faults)
    yield from judge_containers(names, containers, unfinished, only_defined=only_defined)


def judge_maintenance(
    services: Mapping[str, LocalService],
    checks: Mapping[str, CheckState],
    node: str,
    running: Collection[str],
    now: datetime,
) -> Iterator[Diagnosis]:
    """Judge this host's maintenance: a reload's without a running reload, and any past its end."""
    found = False
    for service in sorted(services.values(), key=lambda one: one.id):
        held = service.maintenance
        if held is not None and service.id not in running and is_of_reload(parse(held.notes), node):
            found = True
            what = f"a crashed reload left it in maintenance, enabled {parse(held.notes).describe(iso)}"
            yield error(what, _recover(service.id), service.id)
    for ended in find_expired(services, checks, node, now):
        found = True
        whose = ended.target.service_id or f"node {node}"
        why = "" if ended.may_be_disabled else f"; its checks do not pass: {', '.join(one.id for one in ended.failing)}"
        remedy = (
            "run: svcagent maint expire" if ended.may_be_disabled else "repair the service; svcagent disables it then"
        )
        what = f"maintenance of {whose}, enabled {ended.maintenance.describe(iso)}, has expired{why}"
        yield warning(what, remedy, ended.target.service_id)
    if not found:
        yield ok("no expired maintenance")


def examine_maintenance(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.consul() as consul:
        node = consul.agent_self().node
        services, checks = consul.services_and_checks()
    for one in judge_maintenance(services, checks, node, running_reloads(examined), examined.clock.now()):
        if not one.service or examined.concerns(one.service):
            yield one


def judge_sessions(names: Collection[str], running: Collection[str], known: Collection[str]) -> Iterator[Diagnosis]:
    """Judge this node's sessions by name. ``known``: IDs and names of services; ``running``: those being reloaded."""
    found = False
    for name in sorted(names):
        match = _RELOAD_SESSION.match(name)
        if match is not None and match[1] in known and match[1] not in running:
            found = True
            remedy = (
                "wait 45 s and run the doctor again: Consul ends the session within 30 s and frees the lock 15 s later"
            )
            yield warning(f"a session of an ended reload may hold its lock: {clean(name)}", remedy)
    if not found:
        yield ok("no session of an ended reload")


def examine_sessions(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.consul() as consul:
        names = {one.name for one in consul.node_sessions(consul.agent_self().node)}
    running = running_reloads(examined)
    both = {service.id: service.name for service in examined.services}
    active = running | {both[one] for one in running if one in both}
    yield from judge_sessions(names, active, {*both, *both.values()})
