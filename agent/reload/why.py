"""Why this host does not run the newest image: every reason, each with its remedy. Changes nothing.

A server that does not answer (Docker, the registry, Consul) is one of the reasons; the others are found nevertheless.
"""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from datetime import datetime
from pathlib import Path

from agent.clock import Clock
from agent.consul import AgentSelf, Consul, Instance, LockStatus, ask_dns, lock_status, queue_of, service_dns_name
from agent.data import dataclass
from agent.definitions import ReloadSection, Service
from agent.engine.stopped import StoppedContainer
from agent.errors import DockerUnreachable, LockBusy, NotFound, SvcagentError, TemporaryRefusal
from agent.fleet import FleetView, HostState, decide, observe, progress
from agent.fleet.rollout import untrusted
from agent.maintenance import iso
from agent.reload.guard import Observed, Obstacle, able_instances, find_obstacles
from agent.reload.host_lock import HostLock
from agent.reload.instance import maintenance_of, own_instance
from agent.reload.restart import Restarter
from agent.reload.unfinished import UnfinishedReload, find_unfinished
from agent.reload.window import WindowState, window_state, zone
from agent.text import short_digest

CONTAINER_STOPPED = "container-stopped"
OLDER_ROLLOUT = "older-rollout"
LOCK_BUSY = LockBusy.kind
RELOAD_RUNNING = "reload-running"
RELOAD_UNFINISHED = "reload-unfinished"


@dataclass(frozen=True)
class WhySources:
    """The sources that `explain` asks.

    ``drain_dns``: the clients' DNS servers. ``preflight``: returns the checks that Consul passes on the running
    instance and svcagent's own probe does not. ``suspect``: returns an instance whose reload to a digest disappeared.
    ``trusts``: True for a digest that this host takes if it is pinned.
    """

    service: Service
    section: ReloadSection
    consul: Consul
    restarter: Restarter
    clock: Clock
    host_lock: HostLock
    state_dir: Path
    drain_dns: tuple[tuple[str, int], ...] = ()
    preflight: Callable[[], tuple[str, ...]] = tuple
    suspect: Callable[[str], HostState | None] = lambda _digest: None
    trusts: Callable[[str], bool] = lambda _digest: True


@dataclass
class Explanation:
    """``running``: the instance's digest; ``newest``: the tag's; None if unknown, or for a service without an image.

    ``stopped``: the container, if it does not run for any reason. ``is_container_known``: Docker showed the container,
    and it runs or an operator stopped it. ``unfinished``: a reload that crashed here; a stopped container must not be
    started then.
    """

    running: str | None = None
    newest: str | None = None
    wanted: str | None = None
    reasons: list[Obstacle] = field(default_factory=list)
    stopped: StoppedContainer | None = None
    is_container_known: bool = False
    unfinished: UnfinishedReload | None = None
    errors: list[SvcagentError] = field(default_factory=list)

    def add_error(self, error: SvcagentError) -> None:
        """Add an error, with which a reload would end now, to the reasons."""
        self.errors.append(error)
        self.reasons.append(Obstacle(error.kind, str(error)))

    @property
    def exit_code(self) -> int:
        """That of the errors; else 75 if something blocks a newer image."""
        blocked = TemporaryRefusal.exit_code if self.reasons and not self.is_newest else 0
        return max((error.exit_code for error in self.errors), default=blocked)

    @property
    def is_newest(self) -> bool:
        """True if the newest image is known to run here."""
        return self.newest is not None and self.running == self.newest


@dataclass(frozen=True)
class _Fleet:
    agent: AgentSelf
    instances: tuple[Instance, ...]
    view: FleetView
    seen_at: datetime


def explain(ask: WhySources) -> Explanation:
    """Ask every server, and return everything that keeps this host from the newest image."""
    found = Explanation()
    service, section, now = ask.service, ask.section, ask.clock.now()
    try:
        _ask_for_images(ask.restarter, found)
    except DockerUnreachable as error:
        found.is_container_known = False
        found.add_error(error)
    found.wanted = found.newest
    window = WindowState(is_open=True)
    with _reasoned(found):
        window = window_state(section.windows, zone(section.timezone), now)
    fleet: _Fleet | None = None
    with _reasoned(found):
        agent = ask.consul.agent_self()
        _index, instances = ask.consul.instances(service.name)
        fleet = _Fleet(agent, instances, observe(ask.consul, service.name, now), now)
    found.unfinished = _find_unfinished(ask, fleet)
    if found.unfinished is not None:
        found.reasons.insert(0, Obstacle(RELOAD_UNFINISHED, found.unfinished.what, found.unfinished.remedy))
    elif found.stopped is not None and not found.stopped.by_hand and found.is_container_known:
        found.reasons.append(Obstacle(CONTAINER_STOPPED, found.stopped.what, found.stopped.remedy))
    if found.stopped is not None and not found.stopped.by_hand:
        found.is_container_known = False
    if fleet is not None:
        _judge_rollout(ask, fleet, found)
        found.reasons += find_obstacles(_observed(ask, fleet, window, found))
        with _reasoned(found):
            status = lock_status(ask.consul, section.lock_prefix(service.name), queue_of(service.name))
            _judge_lock(status, fleet.agent.node, section.max_parallel, found)
    _judge_host_lock(service, ask.host_lock.holder(), found)
    return found


def _observed(ask: WhySources, fleet: _Fleet, window: WindowState, found: Explanation) -> Observed:
    """Return what the guard would judge; a failed request becomes a reason."""
    newest = found.newest or ""
    remembered, differences = 0, tuple[str, ...]()
    vanished: HostState | None = None
    with _reasoned(found):
        name = service_dns_name(ask.service.name, fleet.agent.datacenter, fleet.agent.domain)
        remembered = max((ask_dns(server, name).ttl for server in ask.drain_dns), default=0)
    if found.is_container_known:
        with _reasoned(found):
            differences = ask.preflight()
    with _reasoned(found):
        vanished = ask.suspect(newest)
    return Observed(
        fleet.instances,
        fleet.agent.node,
        ask.service,
        ask.section,
        fleet.seen_at,
        fleet.view,
        is_queueing=True,
        crashed=found.unfinished.id if found.unfinished is not None else "",
        wanted=newest,
        suspect=vanished,
        image_created=_created(ask, found),
        # The age of an unknown image cannot be judged.
        min_age=ask.section.min_age if found.newest else 0.0,
        window=window,
        stopped=found.stopped if found.unfinished is None else None,
        differences=differences,
        remembered=remembered,
    )


def _find_unfinished(ask: WhySources, fleet: _Fleet | None) -> UnfinishedReload | None:
    node = fleet.agent.node if fleet is not None else ""
    own = own_instance(fleet.instances, node, ask.service.id) if fleet is not None else None
    return find_unfinished(ask.state_dir, ask.service.id, ask.clock, maintenance_of(own), node)


@contextmanager
def _reasoned(found: Explanation) -> Iterator[None]:
    """Add a failure in the block to the reasons. `DockerUnreachable` is raised, to be reported once."""
    try:
        yield
    except DockerUnreachable:
        raise
    except SvcagentError as error:
        found.add_error(error)


def _ask_for_images(restarter: Restarter, found: Explanation) -> None:
    with _reasoned(found):
        found.running = restarter.running() or None
        found.stopped = restarter.stopped()
        restarter.check_recreatable()
        found.is_container_known = True
    with _reasoned(found):
        found.newest = restarter.newest() or None
    if found.running and found.newest:
        # The same image may have several digests in its repository.
        with _reasoned(found):
            if restarter.is_current(found.newest):
                found.running = found.newest


def _created(ask: WhySources, found: Explanation) -> datetime | None:
    """Return when the newest image was built; None if that does not matter or it is not on this host yet."""
    if not ask.section.min_age or not found.newest:
        return None
    try:
        return ask.restarter.image_created(found.newest)
    except (NotFound, DockerUnreachable):
        return None


def _judge_rollout(ask: WhySources, fleet: _Fleet, found: Explanation) -> None:
    if found.newest is None:
        return
    name, image, able, view = ask.service.name, ask.section.image, able_instances(fleet.instances), fleet.view
    decision = decide(view, image, found.newest, found.running, able, fleet.seen_at)
    found.wanted = decision.wanted
    pin = view.pin
    if decision.wanted == found.newest or pin is None:
        return
    waits_for = progress(pin, view.hosts, able).waits_for
    since = f" since {iso(pin.since)}" if pin.since else ""
    how = f". To take it now on all hosts, run: {shlex.join(['svcagent', 'reload', name, '--force'])}"
    with _reasoned(found):
        if decision.wanted != found.running and not ask.trusts(decision.wanted):
            how = f". This host does not take it: {untrusted(name, image, pin, fleet.agent.node)}"
    found.reasons.append(
        Obstacle(
            OLDER_ROLLOUT,
            f"a rollout of an older digest, {short_digest(pin.digest)}, is in progress, pinned by {pin.node}{since}",
            f"{short_digest(found.newest)} follows when the older one runs on all hosts (it waits for: "
            f"{waits_for}), is quarantined, "
            f"or has made no progress for an hour. To watch it, run: {shlex.join(['svcagent', 'fleet', name])}{how}",
        )
    )


def _judge_lock(status: LockStatus, node: str, max_parallel: int, found: Explanation) -> None:
    if len(status.holders) < (status.limit or max_parallel) and not status.waiters:
        return
    is_dead = found.unfinished is not None
    holders = [f"the crashed reload on {node}" if is_dead and one.node == node else str(one) for one in status.holders]
    held = f"held by {', '.join(holders)}" if holders else "free"
    waiting = [holder.node for holder in status.waiters]
    line = f"; queue: {', '.join(waiting)}" if waiting else ""
    place = f"; this host is number {waiting.index(node) + 1}" if node in waiting else ""
    found.reasons.append(
        Obstacle(
            LOCK_BUSY,
            f"the lock {status.prefix} is {held}{line}{place}",
            "each host releases it when its reload has ended; Consul releases it within 30 s if a host crashes",
        )
    )


def _judge_host_lock(service: Service, pid: int | None, found: Explanation) -> None:
    if pid is not None:
        what = f"another reload of {service.name} runs on this host (pid {pid})"
        remedy = f"it may install this version. To watch it, run: svcagent fleet {service.name}"
        found.reasons.append(Obstacle(RELOAD_RUNNING, what, remedy))
