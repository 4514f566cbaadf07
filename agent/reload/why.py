"""Why this host does not run the newest image: everything at once, each with who can clear it. Changes nothing.

What cannot be asked (Docker, the registry, Consul) is one of the reasons, and keeps none of the others from being
found.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from agent.clock import Clock
from agent.consul import AgentSelf, Consul, Instance
from agent.definitions import Reload, Service
from agent.engine import Container, Engine
from agent.errors import DockerUnreachable, SvcagentError
from agent.fleet import View, decide, observe, progress
from agent.maintenance import iso
from agent.reload.guard import Observed, able_nodes, find_obstacles
from agent.reload.host_lock import HostLock


@dataclass(frozen=True)
class Reason:
    """One thing in the way. ``kind``: a `guard.Kind`, or docker, registry, consul, rollout, lock, reload."""

    kind: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


@dataclass(frozen=True)
class Wishes:
    """What the definition wants of time and age. ``created``: when that digest was built, if it is known here."""

    is_window_open: bool = True
    next_opening: datetime | None = None
    min_age: float = 0.0
    created: Callable[[str], datetime | None] = lambda _digest: None


@dataclass(frozen=True)
class Edges:
    """Whom to ask."""

    consul: Consul
    engine: Engine
    clock: Clock
    host_lock: HostLock


@dataclass
class Explanation:
    """``running``: the digest of the container; ``newest``: what its tag stands for; None for what is not known."""

    running: str | None = None
    newest: str | None = None
    wanted: str | None = None
    reasons: list[Reason] = field(default_factory=list)

    @property
    def is_newest(self) -> bool:
        """Is it known that the newest image runs here?"""
        return self.newest is not None and self.running == self.newest


@dataclass(frozen=True)
class _Fleet:
    agent: AgentSelf
    instances: tuple[Instance, ...]
    view: View


def explain(service: Service, reload: Reload, wishes: Wishes, edges: Edges) -> Explanation:
    """Ask everybody, and put together what stands in the way."""
    found = Explanation()
    try:
        _ask_docker(reload, edges.engine, found)
    except DockerUnreachable as error:
        found.reasons.append(Reason("docker", str(error)))
    fleet: _Fleet | None = None
    now = edges.clock.now()
    with _told_as("consul", found):
        agent = edges.consul.agent_self()
        _index, instances = edges.consul.instances(service.name)
        fleet = _Fleet(agent, instances, observe(edges.consul, service.name, now))
    found.wanted = found.newest
    if fleet is not None:
        _judge_rollout(service, reload, fleet, now, found)
        seen = _observed(service, reload, wishes, fleet, now, found.newest)
        found.reasons += [Reason(str(one.kind), one.what, one.remedy) for one in find_obstacles(seen)]
    pid = edges.host_lock.holder()
    if pid is not None:
        what = f"another reload of {service.name} runs on this host (pid {pid})"
        remedy = f"it may be at work on this, and ends by itself; see: svcagent fleet {service.name}"
        found.reasons.append(Reason("reload", what, remedy))
    return found


@contextmanager
def _told_as(kind: str, found: Explanation) -> Iterator[None]:
    """A failure inside is a reason, and says itself what to do; without Docker, once is enough."""
    try:
        yield
    except DockerUnreachable:
        raise
    except SvcagentError as error:
        found.reasons.append(Reason(kind, str(error)))


def _ask_docker(reload: Reload, engine: Engine, found: Explanation) -> None:
    container: Container | None = None
    with _told_as("docker", found):
        container = engine.container(reload.container)
        found.running = engine.digest_of(container, reload.image)
        engine.check_recreatable(reload.container)
    with _told_as("registry", found):
        found.newest = engine.registry_digest(reload.image)
    if container is not None and found.newest is not None:
        # The same image may have several digests in its repository.
        with _told_as("docker", found):
            if engine.runs_digest(container, reload.image, found.newest):
                found.running = found.newest


def _judge_rollout(service: Service, reload: Reload, fleet: _Fleet, now: datetime, found: Explanation) -> None:
    if found.newest is None:
        return
    able, view = able_nodes(fleet.instances), fleet.view
    decision = decide(view, reload.image, found.newest, found.running, able, now)
    found.wanted = decision.wanted
    pin = view.pin
    if decision.wanted == found.newest or pin is None:
        return
    missing = ", ".join(sorted(progress(pin, view.hosts, able).missing))
    since = f" since {iso(pin.since)}" if pin.since else ""
    found.reasons.append(
        Reason(
            "rollout",
            f"a rollout to an older digest, {pin.digest}, is under way, pinned by {pin.node}{since}",
            f"{found.newest} comes when that is on all hosts (it waits for: {missing}), is quarantined, or made no "
            f"progress for an hour; see: svcagent fleet {service.name}",
        )
    )


def _observed(
    service: Service, reload: Reload, wishes: Wishes, fleet: _Fleet, now: datetime, newest: str | None
) -> Observed:
    """What the guard would see, were the newest image the wanted one."""
    # The age of an image that nobody could name is nothing to judge.
    min_age = wishes.min_age if newest is not None else 0.0
    return Observed(
        instances=fleet.instances,
        node=fleet.agent.node,
        service=service.name,
        service_id=service.id,
        min_healthy=reload.min_healthy,
        now=now,
        is_queueing=True,
        wanted=newest or "",
        quarantine=fleet.view.quarantine.get(newest or ""),
        pause=fleet.view.pause,
        image_created=wishes.created(newest) if newest is not None and min_age else None,
        min_age=min_age,
        is_window_open=wishes.is_window_open,
        next_opening=wishes.next_opening,
    )
