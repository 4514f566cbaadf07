"""Suspect versions: a reload to one disappeared with its process or host before it reported an outcome.

The instance's document shows a step that can fail because of the version, but the reload's session no longer holds the
lock. Whether the version is at fault is unknown, so no other host takes it until the host reports an outcome or an
operator clears it.

A reload publishes its outcome before it releases the lock; otherwise it would briefly look suspect.
"""

import re
import shlex
from collections.abc import Collection, Mapping

from agent.consul import Consul, lock_sessions
from agent.errors import Conflict
from agent.fleet import host_state
from agent.fleet.host_state import HostState, HostStatus, InstanceKey
from agent.fleet.view import FleetView

_SESSION = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def suspects(view: FleetView, digest: str, alive_sessions: frozenset[str], own: InstanceKey) -> tuple[HostState, ...]:
    """Return the instances whose reload to ``digest`` disappeared, sorted by host.

    ``alive_sessions`` are the sessions that hold the service's lock now. ``own`` is node and service ID of the calling
    instance, whose own document does not count: its host recovers it first.
    """
    others = {instance: state for instance, state in view.hosts.items() if not _is_own(instance, own)}
    return tuple(state for state in all_suspects(others, alive_sessions) if state.wanted == digest)


def all_suspects(hosts: Mapping[InstanceKey, HostState], alive_sessions: Collection[str]) -> tuple[HostState, ...]:
    """Return the suspects of every version, sorted by host: reloads whose session is gone, and stranded instances.

    A host publishes "reloading" only in the steps that drain for a version, start it or judge it. A stranded instance
    did not recover on the old version either, so whether the new one is at fault is unknown.
    """
    return tuple(
        state
        for _instance, state in sorted(hosts.items())
        if state.wanted
        and (
            state.state == HostStatus.STRANDED
            or (state.state == HostStatus.RELOADING and state.session not in alive_sessions)
        )
    )


def is_first(view: FleetView, digest: str, own: InstanceKey) -> bool:
    """True if no other instance is known to run ``digest`` after it has settled there."""
    return not any(
        state.state == HostStatus.RUNNING and state.digest == digest and state.is_settled
        for instance, state in view.hosts.items()
        if not _is_own(instance, own)
    )


def _is_own(instance: InstanceKey, own: InstanceKey) -> bool:
    return instance in (own, (own[0], ""))


def alive_sessions(consul: Consul, lock_prefix: str) -> frozenset[str]:
    """Return the sessions that hold a lock now, read from the leader; none if its key is not a lock."""
    try:
        return lock_sessions(consul, lock_prefix)
    except Conflict:
        return frozenset()


def find_suspects(
    consul: Consul, service: str, lock_prefix: str, digest: str, own: InstanceKey
) -> tuple[HostState, ...]:
    """Read what `suspects` needs, and return them. One request suffices if no host is taking ``digest``."""
    view = FleetView(hosts=host_state.read_all(consul, service))
    return _confirmed(consul, service, lock_prefix, suspects(view, digest, frozenset(), own))


def find_all_suspects(consul: Consul, service: str, lock_prefix: str | None) -> tuple[HostState, ...]:
    """Return the suspects of every version. Without a ``lock_prefix``, a session that exists counts as alive."""
    return _confirmed(consul, service, lock_prefix, all_suspects(host_state.read_all(consul, service), ()))


def _confirmed(
    consul: Consul, service: str, lock_prefix: str | None, under_way: tuple[HostState, ...]
) -> tuple[HostState, ...]:
    """Return the suspects among the reloads ``under_way`` (as `suspects` returns them with no session).

    The lock is read after the documents, and the documents are read again after the lock. A reload that begins or ends
    meanwhile does not look suspect, because it publishes its outcome before it releases the lock.
    """
    if not under_way:
        return ()
    if lock_prefix is not None:
        alive = alive_sessions(consul, lock_prefix)
    else:
        # Consul answers 500 for an invalid session ID, and the document may contain anything.
        sessions = {state.session for state in under_way if _SESSION.fullmatch(state.session)}
        alive = frozenset(one for one in sessions if consul.session(one) is not None)
    vanished = {_attempt(state) for state in under_way if state.session not in alive}
    if not vanished:
        return ()
    after = all_suspects(host_state.read_all(consul, service), ())
    return tuple(state for state in after if _attempt(state) in vanished)


def _attempt(state: HostState) -> tuple[str, ...]:
    return state.node, state.service_id, state.session, state.wanted


def clear(consul: Consul, service: str, suspect: HostState) -> bool:
    """Remove a suspect's document. False if its host has changed it meanwhile."""
    _index, pair = consul.kv_get(host_state.place(service, suspect.node, suspect.service_id), consistent=True)
    if pair is None or host_state.parse(pair) != suspect:
        return False
    return consul.kv_delete(pair.key, cas=pair.modify_index)


def what_happened(suspect: HostState) -> str:
    """Return a sentence about a suspect with its host, step and time."""
    since = f", at this step since {suspect.since:%Y-%m-%dT%H:%M:%SZ}" if suspect.since else ""
    if suspect.state == HostStatus.STRANDED:
        return (
            f"{suspect.wanted} is suspect: its reload on {suspect.node} failed, and the host is out of service on the "
            "old version too; it is unknown whether the new version is at fault"
        )
    return (
        f"{suspect.wanted} is suspect: its reload on {suspect.node} disappeared at step {suspect.step}{since}; it is "
        "unknown whether the version is at fault"
    )


def what_to_do(service: str, suspect: HostState) -> str:
    """Return how a suspect is cleared, by its host or by an operator."""
    recover = shlex.join(["svcagent", "recover", service])
    cleared = shlex.join(["svcagent", "quarantine", "clear", service, suspect.wanted])
    forced = shlex.join(["svcagent", "reload", service, "--force"])
    return (
        f"check {suspect.node}: its next register, reload, or {recover} clears the suspicion. If the version is not at "
        f"fault, run: {cleared}. To take it on this host anyway: {forced}"
    )
