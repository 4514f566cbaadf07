"""Which digest a host takes, so that one rollout is one digest: decided here, pinned in Consul for all."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from agent.clock import Clock
from agent.consul import Consul
from agent.errors import Conflict
from agent.fleet.host_state import HostState
from agent.fleet.rollout import Pin, pin
from agent.fleet.view import View, observe

STALLED_AFTER = timedelta(hours=1)
"""Without progress for so long, a rollout no longer binds those that come after it."""

ATTEMPTS = 10


class Action(StrEnum):
    """What happens to the pin."""

    KEEP = "keep"
    PIN = "pin"
    REPLACE = "replace"


@dataclass(frozen=True)
class Decision:
    """The digest that this host takes (it may be the one that it runs), what happens to the pin, and why."""

    wanted: str
    action: Action
    why: str


@dataclass(frozen=True)
class Progress:
    """Of the hosts that can take the pinned digest: which run it, and which do not yet."""

    done: frozenset[str]
    missing: frozenset[str]


def decide(
    view: View, image: str, registry_digest: str, running_digest: str | None, awaited: Collection[str], now: datetime
) -> Decision:
    """What this host takes.

    ``registry_digest`` is what ``image``, name and tag, stands for now; ``running_digest`` what runs here.
    ``awaited``: the nodes whose instance could take a new image, so none that an operator holds out. In this order:

    - the newest runs here already: nothing to do, whatever is pinned
    - the newest is quarantined and nothing binds this host to another one: it is not pinned; the guard refuses it
    - no pin, one that cannot be read, or one of another image: the newest is pinned
    - the newest is pinned: it is taken
    - the pinned one is quarantined, runs on every awaited host, or made no progress for `STALLED_AFTER`: the newest
      takes its place
    - else a rollout is under way: the pinned one is taken though the tag has moved
    """
    if registry_digest == running_digest:
        return Decision(registry_digest, Action.KEEP, "the newest runs here already")
    released = _why_not_bound(view, image, registry_digest, awaited, now)
    if view.pin is not None and not released:
        if view.pin.digest == registry_digest:
            return Decision(registry_digest, Action.KEEP, "the newest is the pinned one")
        return Decision(
            view.pin.digest,
            Action.KEEP,
            f"a rollout is under way, pinned by {view.pin.node}, though the tag has moved since",
        )
    if registry_digest in view.quarantine:
        return Decision(registry_digest, Action.KEEP, "the newest is quarantined")
    return Decision(registry_digest, Action.PIN if view.pin is None else Action.REPLACE, released)


def progress(pin: Pin, hosts: Mapping[str, HostState], awaited: Collection[str]) -> Progress:
    """How far a rollout is."""
    done = frozenset(node for node in awaited if node in hosts and hosts[node].digest == pin.digest)
    return Progress(done, frozenset(awaited) - done)


def agree(
    consul: Consul,
    service: str,
    node: str,
    image: str,
    registry_digest: str,
    running_digest: str | None,
    awaited: Collection[str],
    clock: Clock,
) -> tuple[Decision, View]:
    """Decide, and pin what was decided; decide again when another host was first. With what was seen at the end.

    :raises Conflict: the pin changed under it time and again.
    """
    for _attempt in range(ATTEMPTS):
        now = clock.now()
        view = observe(consul, service, now)
        decision = decide(view, image, registry_digest, running_digest, awaited, now)
        if decision.action is Action.KEEP:
            return decision, view
        wanted = Pin(image, decision.wanted, node, now)
        if pin(consul, service, wanted, view.pin_index) is wanted:
            return decision, view
    raise Conflict(
        f"hosts do not agree on an image of {service}: its pin changes all the time. Do their definitions name "
        f"different tags? See: svcagent fleet {service}"
    )


def _why_not_bound(view: View, image: str, newest: str, awaited: Collection[str], now: datetime) -> str:
    """Why the pin does not bind this host; empty when it does."""
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
        return "the pinned one is quarantined"
    if not progress(pinned, view.hosts, awaited).missing:
        return "the pinned one runs on every host that can take it"
    return "" if _is_moving(pinned, view.hosts, now) else "the rollout of the pinned one made no progress for an hour"


def _is_moving(pinned: Pin, hosts: Mapping[str, HostState], now: datetime) -> bool:
    """Did the rollout begin, or any host take the digest, less than `STALLED_AFTER` ago?

    Each wrote by its own clock. One that is far ahead must not hold the fleet for as long, so a moment that far in
    the future is no progress either.
    """
    moments = [pinned.since, *(state.since for state in hosts.values() if state.digest == pinned.digest)]
    return any(moment is not None and abs(now - moment) < STALLED_AFTER for moment in moments)
