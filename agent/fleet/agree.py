"""Choose the digest that a host takes. A pin in Consul KV ensures that one rollout has one digest."""

import shlex
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from agent.clock import Clock
from agent.consul import Consul
from agent.data import dataclass
from agent.errors import Conflict
from agent.fleet.host_state import HostState, InstanceKey, state_of
from agent.fleet.rollout import Pin, pin
from agent.fleet.view import FleetView, observe
from agent.text import some_of

STALLED_AFTER = timedelta(hours=1)
"""A rollout without progress for this long no longer binds other hosts."""

ATTEMPTS = 10


class VersionAction(StrEnum):
    KEEP = "keep"
    PIN = "pin"
    REPLACE = "replace"


@dataclass(frozen=True)
class VersionDecision:
    """The digest that this host takes (possibly the one that it runs), what happens to the pin, and why."""

    wanted: str
    action: VersionAction
    why: str


@dataclass(frozen=True)
class HostProgress:
    """The instances that run the pinned digest, and those that can take it but do not run it yet.

    ``unpublished`` are those missing instances whose host has published no state.
    """

    done: frozenset[InstanceKey] = frozenset()
    missing: frozenset[InstanceKey] = frozenset()
    unpublished: frozenset[InstanceKey] = frozenset()

    @property
    def hosts_missing(self) -> frozenset[str]:
        """The hosts with at least one instance that does not run the digest yet."""
        return frozenset(node for node, _service_id in self.missing)

    @property
    def hosts_done(self) -> frozenset[str]:
        """The hosts whose instances all run the digest."""
        return frozenset(node for node, _service_id in self.done) - self.hosts_missing

    @property
    def waits_for(self) -> str:
        hosts = some_of(sorted(self.hosts_missing))
        if silent := some_of(sorted({node for node, _service_id in self.unpublished})):
            hosts += f" (no state published by {silent}: check that the definition there has a reload section)"
        return hosts


def decide(
    view: FleetView,
    image: str,
    registry_digest: str,
    running_digest: str | None,
    awaited: Collection[InstanceKey],
    now: datetime,
) -> VersionDecision:
    """Return what this host takes.

    ``registry_digest`` is the current digest of ``image`` (name and tag); ``running_digest`` is what runs here.
    ``awaited`` are the instances that could take a new image, without those in an operator's maintenance or on failed
    hosts. The first matching rule applies:

    - the newest digest runs here already: do nothing, even if another one is pinned
    - the newest is quarantined and no pin binds this host: do not pin it; the guard refuses it
    - there is no pin, it is unreadable or invalid, or it is of another image: pin the newest
    - the newest is pinned: take it
    - the pinned digest is quarantined, runs on every awaited instance, or made no progress for `STALLED_AFTER`: replace
      it by the newest
    - otherwise a rollout is under way: take the pinned digest, although the tag has moved
    """
    if registry_digest == running_digest:
        return VersionDecision(registry_digest, VersionAction.KEEP, "the newest version already runs here")
    released = _why_not_bound(view, image, registry_digest, awaited, now)
    if view.pin is not None and not released:
        if view.pin.digest == registry_digest:
            return VersionDecision(registry_digest, VersionAction.KEEP, "the newest version is the pinned one")
        waits_for = progress(view.pin, view.hosts, awaited).waits_for
        return VersionDecision(
            view.pin.digest,
            VersionAction.KEEP,
            f"the rollout of {view.pin.digest}, pinned by {view.pin.node}, is in progress; it waits for {waits_for}. "
            "The tag now points to another digest",
        )
    if registry_digest in view.quarantine:
        return VersionDecision(registry_digest, VersionAction.KEEP, "the newest version is quarantined")
    return VersionDecision(registry_digest, VersionAction.PIN if view.pin is None else VersionAction.REPLACE, released)


def progress(pin: Pin, hosts: Mapping[InstanceKey, HostState], awaited: Collection[InstanceKey]) -> HostProgress:
    states = {instance: state_of(hosts, instance) for instance in awaited}
    done = frozenset(instance for instance, state in states.items() if state and state.digest == pin.digest)
    unpublished = frozenset(instance for instance, state in states.items() if state is None)
    return HostProgress(done, frozenset(awaited) - done, unpublished)


def agree(
    consul: Consul,
    service: str,
    node: str,
    image: str,
    registry_digest: str,
    running_digest: str | None,
    awaited: Collection[InstanceKey],
    clock: Clock,
) -> tuple[VersionDecision, FleetView]:
    """Decide and write the pin. Decide again if another host was first. Return the decision and the last view.

    :raises Conflict: the pin changed at each of `ATTEMPTS` attempts.
    """
    for _attempt in range(ATTEMPTS):
        now = clock.now()
        view = observe(consul, service, now)
        decision = decide(view, image, registry_digest, running_digest, awaited, now)
        if decision.action is VersionAction.KEEP:
            return decision, view
        wanted = Pin(image, decision.wanted, node, now)
        if pin(consul, service, wanted, view.pin_index) is wanted:
            return decision, view
    raise Conflict(
        f"hosts do not agree on an image of {service}: the pin changed {ATTEMPTS} times in succession. Check whether "
        f"their definitions name different tags: {shlex.join(['svcagent', 'fleet', service])}",
        kind="pin-unstable",
    )


def _why_not_bound(view: FleetView, image: str, newest: str, awaited: Collection[InstanceKey], now: datetime) -> str:
    """Return why the pin does not bind this host; empty if it does."""
    pinned = view.pin
    if pinned is None:
        return "nothing is pinned"
    if pinned.problem:
        return pinned.problem
    if pinned.image != image:
        return f"the pin is of another image, {pinned.image}"
    if pinned.digest == newest:
        return ""
    if pinned.digest in view.quarantine:
        return "the pinned version is quarantined"
    if not progress(pinned, view.hosts, awaited).missing:
        return "the pinned version runs on every host that can take it"
    return (
        "" if _is_moving(pinned, view.hosts, now) else "the rollout of the pinned version made no progress for an hour"
    )


def _is_moving(pinned: Pin, hosts: Mapping[InstanceKey, HostState], now: datetime) -> bool:
    """True if the rollout began, or any host took the digest, less than `STALLED_AFTER` ago.

    Hosts use their own clocks. A time far in the future does not count, or a fast clock would hold the fleet.
    """
    moments = [pinned.since, *(state.since for state in hosts.values() if state.digest == pinned.digest)]
    return any(moment is not None and abs(now - moment) < STALLED_AFTER for moment in moments)
