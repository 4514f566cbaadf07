"""What must hold before an instance may be drained. Pure: it judges three fresh observations of a reload.

Unknown counts as no. An answer without the own instance is incomplete (a missing ``node:read`` empties it), an image of
unknown age is too young, and an instance that is missing from the catalog passes no checks.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from agent.consul import Instance
from agent.data import dataclass
from agent.definitions import ReloadSection, Service
from agent.engine.stopped import StoppedContainer
from agent.fleet import FleetView, HostState, suspect
from agent.fleet.host_state import InstanceKey
from agent.maintenance import Maintenance, OwnerKind, iso, length, parse
from agent.reload.window import WindowState
from agent.text import short_digest, some_of

KNOWN_FOR = timedelta(days=1)
"""How long an instance that is missing from the catalog counts as existing after its host reported it."""


class ObstacleKind(StrEnum):
    """What forbids to drain an instance. A reload that is refused has the kind of its first obstacle."""

    ABSENT = "not-in-catalog"
    MAINTENANCE = "in-maintenance"
    PAUSE = "paused"
    QUARANTINE = "quarantined"
    SUSPECT = "suspect"
    WINDOW = "window-closed"
    AGE = "too-young"
    HEALTH = "too-few-healthy"
    STOPPED = "stopped-by-operator"
    READINESS = "readiness-unknown"
    DNS = "dns-ttl-too-long"


FORCEABLE = frozenset(ObstacleKind) - {ObstacleKind.ABSENT, ObstacleKind.MAINTENANCE}
"""The kinds that ``--force`` overrides: not another owner's maintenance, nor an instance missing from the catalog."""


@dataclass(frozen=True)
class Obstacle:
    """One reason not to drain this host's instance now, and its remedy.

    ``kind``: an `ObstacleKind`; in the answer of ``svcagent why`` also that of an error.
    """

    kind: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


@dataclass(frozen=True)
class Observed:
    """Everything that the guard judges, as observed at ``now``.

    :ivar instances: those of the service in the catalog; this host's has ``node`` and the service's ID
    :ivar view: the documents that the fleet shares
    :ivar is_queueing: this host still has to wait for the lock, so instances that a reload holds in maintenance count
        as healthy: they will be back when this host gets the lock
    :ivar own_reload: the ID of the reload after it has enabled maintenance. Its maintenance is no obstacle, and the
        instance is judged as it would be without it
    :ivar crashed: the ID of a crashed reload of this host, which is reported apart from its maintenance
    :ivar suspect: an instance whose reload to the ``wanted`` digest has disappeared, if there is one
    :ivar min_age: the least seconds since ``image_created``, which is read only if this is not zero
    :ivar is_in_maintenance_allowed: an instance in an operator's maintenance may be reloaded and left in it
    :ivar stopped: the container, if it does not run
    :ivar differences: checks that Consul passes on the running instance and svcagent's own probe does not
    :ivar remembered: for how many seconds DNS clients may cache the instance
    """

    instances: tuple[Instance, ...]
    node: str
    service: Service
    section: ReloadSection
    now: datetime
    view: FleetView = FleetView()
    is_queueing: bool = False
    own_reload: str = ""
    crashed: str = ""
    wanted: str = ""
    suspect: HostState | None = None
    image_created: datetime | None = None
    min_age: float = 0.0
    window: WindowState = WindowState(is_open=True)
    is_in_maintenance_allowed: bool = False
    stopped: StoppedContainer | None = None
    differences: tuple[str, ...] = ()
    remembered: float = 0.0

    @property
    def own(self) -> Instance | None:
        """This host's instance, as the catalog shows it."""
        return next((one for one in self.instances if _key(one) == self.own_key), None)

    @property
    def own_key(self) -> InstanceKey:
        return self.node, self.service.id

    @property
    def departed(self) -> frozenset[InstanceKey]:
        """The other known instances that are missing from the catalog."""
        known = known_instances(self.view, self.instances, self.now)
        return known - {_key(one) for one in self.instances} - {self.own_key}


def find_obstacles(seen: Observed) -> tuple[Obstacle, ...]:
    """Return everything that forbids draining this host's instance now; empty if nothing does."""
    rules = (_own, _health, _stopped, _pause, _quarantine, _suspect, _window, _age, _readiness, _dns)
    return tuple(obstacle for rule in rules for obstacle in rule(seen))


def overridden(obstacles: Iterable[Obstacle], *, is_forced: bool) -> tuple[tuple[Obstacle, ...], tuple[Obstacle, ...]]:
    """Return the obstacles that remain, and those that ``--force`` overrides, to be printed."""
    everything = tuple(obstacles)
    ignored = tuple(one for one in everything if is_forced and one.kind in FORCEABLE)
    return tuple(one for one in everything if one not in ignored), ignored


def able_instances(instances: Iterable[Instance]) -> frozenset[InstanceKey]:
    """Return node and service ID of the instances that can take a new image: a rollout waits for them.

    Not included: one that an operator or an unknown owner holds in maintenance, because by default it keeps its image
    until ``reload --in-maintenance``; and one whose node has failed. One that a reload holds in maintenance is
    included, because it is taking the image.
    """
    return frozenset(
        _key(one) for one in instances if not one.is_node_dead and not any(map(_is_an_operators, _held(one)))
    )


def known_instances(view: FleetView, instances: tuple[Instance, ...], now: datetime) -> frozenset[InstanceKey]:
    """Return the instances that the catalog shows, or whose host reported within a day.

    A host's clock may be wrong: a report from the future counts as well.
    """
    in_catalog = {_key(one) for one in instances}
    nodes = {node for node, _service_id in in_catalog}
    reported = {
        (node, instance)
        for (node, instance), state in view.hosts.items()
        if (instance or node not in nodes) and state.last_seen is not None and now - state.last_seen < KNOWN_FOR
    }
    return frozenset(in_catalog | reported)


def _own(seen: Observed) -> Iterator[Obstacle]:
    own = seen.own
    if own is None:
        yield Obstacle(
            ObstacleKind.ABSENT,
            f"Consul's catalog does not show {seen.service.id} on this host ({seen.node})",
            "run: svcagent register. If it is already registered, the token lacks service:read or node:read",
        )
        return
    for held, check_of in _held_with_service(own):
        is_allowed = seen.is_in_maintenance_allowed and _is_an_operators(held)
        if not (is_allowed or _is_of_reload(held, seen.own_reload) or _is_of_reload(held, seen.crashed)):
            yield _maintenance_obstacle(seen, held, is_nodes=not check_of)


def _health(seen: Observed) -> Iterator[Obstacle]:
    """Protect the clients of an instance that is served, including one in warning.

    They need another instance that is at least as healthy: a passing one for a passing one; a served one for one in
    warning, because clients that ask for passing instances do not use that one anyway. An instance that no client is
    sent to may always be drained: otherwise a fleet that is down as a whole could never get a good image.
    """
    own, name = seen.own, seen.service.name
    if own is None:
        return
    own_reasons = {
        one.notes for one in own.checks if one.is_maintenance and _is_of_reload(parse(one.notes), seen.own_reload)
    }
    before = own.without_maintenance(own_reasons)
    if not before.is_served:
        return
    others = [one for one in seen.instances if one is not own]
    healthy = sum(
        (one.is_passing if before.is_passing else one.is_served) or (seen.is_queueing and _is_being_reloaded(one))
        for one in others
    )
    departed = seen.departed
    count = len(others) + len(departed)
    needed = seen.section.min_healthy.needed(count)
    if healthy < needed:
        nodes = some_of(sorted({node for node, _service_id in departed}))
        yield Obstacle(
            ObstacleKind.HEALTH,
            f"{healthy} of the {count} other instances of {name} "
            f"{'are passing' if before.is_passing else 'are in service'}; reload.min_healthy requires {needed}"
            + (f" (seen in the last 24 hours, but not in the catalog: {nodes})" if nodes else ""),
            f"wait for them, or repair them. To list them, run: svcagent fleet {name}"
            if count
            else "for a service that runs on one host only, set reload.min_healthy to 0 in its definition",
        )


def _stopped(seen: Observed) -> Iterator[Obstacle]:
    """Respect an operator's ``docker stop``, unless the operator of a maintenance requests the reload."""
    own, stopped = seen.own, seen.stopped
    is_requested = seen.is_in_maintenance_allowed and own is not None and any(map(_is_an_operators, _held(own)))
    if stopped is not None and stopped.by_hand and not is_requested:
        yield Obstacle(
            ObstacleKind.STOPPED,
            stopped.what,
            f"{stopped.remedy}. To replace it now: svcagent reload {seen.service.id} --force",
        )


def _pause(seen: Observed) -> Iterator[Obstacle]:
    if pause := seen.view.pause:
        end = "it expires then. To resume earlier" if pause.until else "to resume"
        yield Obstacle(
            ObstacleKind.PAUSE,
            f"reloads of {seen.service.name} are paused, {pause.describe(iso)}",
            f"{end}, run: svcagent resume {seen.service.name}",
        )


def _quarantine(seen: Observed) -> Iterator[Obstacle]:
    if entry := seen.view.quarantine.get(seen.wanted):
        where = f"it failed on {entry.node} at {iso(entry.since)}: " if entry.since else ""
        yield Obstacle(
            ObstacleKind.QUARANTINE,
            f"{short_digest(entry.digest)} is quarantined: {where}{entry.why}",
            "push a corrected image. If the image was not the cause, run: "
            f"svcagent quarantine clear {seen.service.name} {short_digest(entry.digest)}",
        )


def _suspect(seen: Observed) -> Iterator[Obstacle]:
    if seen.suspect is not None:
        what, remedy = suspect.what_happened(seen.suspect), suspect.what_to_do(seen.service.name, seen.suspect)
        yield Obstacle(ObstacleKind.SUSPECT, what, remedy)


def _window(seen: Observed) -> Iterator[Obstacle]:
    if not seen.window.is_open:
        until = "no window opens soon"
        if seen.window.opens_at is not None:
            until = f"the next one opens at {iso(seen.window.opens_at.astimezone(UTC))}"
        yield Obstacle(
            ObstacleKind.WINDOW,
            f"{seen.service.name} is outside its reload windows",
            f"{until}; to reload earlier, change reload.windows in the definition",
        )


def _age(seen: Observed) -> Iterator[Obstacle]:
    least, created = timedelta(seconds=seen.min_age), seen.image_created
    wants = f"{seen.service.name} requires an image that is at least {length(least)} old (reload.min_age)"
    if seen.min_age and created is None:
        yield Obstacle(
            ObstacleKind.AGE,
            f"{wants}, and the age of {short_digest(seen.wanted) or 'this one'} is unknown on this host",
            "a reload that pulls the image determines it",
        )
    elif seen.min_age and created is not None and (age := seen.now - created) < least:
        ready = iso((created + least).astimezone(UTC))
        yield Obstacle(ObstacleKind.AGE, f"{wants}, and this one was built {length(age)} ago", f"wait until {ready}")


def _readiness(seen: Observed) -> Iterator[Obstacle]:
    if seen.differences:
        yield Obstacle(
            ObstacleKind.READINESS,
            f"svcagent's own checks of {seen.service.id} differ from Consul's: {'; '.join(seen.differences)}",
            "correct the check or the service. If the new version corrects it, run: "
            f"svcagent reload {seen.service.id} --force",
        )


def _dns(seen: Observed) -> Iterator[Obstacle]:
    """Refuse to drain if DNS clients may cache the instance for longer than a drain may take.

    The alternatives would be to hold the fleet's lock for that long, or to restart while clients still connect.
    """
    limit = seen.section.drain.max
    if seen.remembered > limit:
        yield Obstacle(
            ObstacleKind.DNS,
            f"DNS clients may cache {seen.service.name} for {seen.remembered:g} s (the TTL of its DNS "
            "answers), longer than a "
            f"drain may take: {limit:g} s (reload.drain.max)",
            "lower dns_config.service_ttl in Consul or the TTL of a DNS server that caches its answers, or raise "
            "reload.drain.max in the definition",
        )


def _key(instance: Instance) -> InstanceKey:
    return instance.node, instance.service_id


def _is_of_reload(held: Maintenance, reload_id: str) -> bool:
    return bool(reload_id) and held.kind is OwnerKind.RELOAD and held.owner == reload_id


def _held(instance: Instance) -> tuple[Maintenance, ...]:
    return tuple(held for held, _service_id in _held_with_service(instance))


def _held_with_service(instance: Instance) -> tuple[tuple[Maintenance, str], ...]:
    """Return every maintenance of it with its service ID: the service's first, then the host's, with an empty one."""
    checks = sorted(
        (check for check in instance.checks if check.is_maintenance), key=lambda check: not check.service_id
    )
    return tuple((parse(check.notes), check.service_id) for check in checks)


def _is_an_operators(held: Maintenance) -> bool:
    """True for an operator's maintenance, and for an unknown owner's, which is treated alike."""
    return held.kind is not OwnerKind.RELOAD


def _is_being_reloaded(instance: Instance) -> bool:
    held = _held(instance)
    return bool(held) and not any(map(_is_an_operators, held))


def _maintenance_obstacle(seen: Observed, held: Maintenance, *, is_nodes: bool) -> Obstacle:
    argument = "--node" if is_nodes else seen.service.id
    subject = f"{seen.node} (this host)" if is_nodes else seen.service.id
    remedy = f"to disable it, run: svcagent maint disable {argument}"
    if held.kind is OwnerKind.RELOAD and held.host == seen.node:
        remedy = f"that reload disables it. If no reload runs here, run: svcagent recover {seen.service.name}"
    elif held.kind is OwnerKind.RELOAD:
        remedy = f"if that reload has crashed, run on {held.host}: svcagent recover {seen.service.name}"
    else:
        remedy += f". To reload it and leave it in maintenance: svcagent reload {seen.service.name} --in-maintenance"
    return Obstacle(ObstacleKind.MAINTENANCE, f"{subject} is in maintenance, enabled {held.describe()}", remedy)
