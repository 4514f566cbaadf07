"""What must hold before an instance may be drained. Pure: it judges three fresh observations of a reload.

Unknown counts as no. An answer without the own instance is incomplete (a missing ``node:read`` empties it), an image of
unknown age is too young, and an instance that is missing from the catalog passes no checks.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from agent.consul import Instance
from agent.data import dataclass
from agent.definitions import MinHealthy
from agent.fleet import HostState, Pause, Quarantine, suspect
from agent.maintenance import Maintenance, OwnerKind, iso, length, parse

MOST_NAMES = 5


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
    """One reason not to drain this host's instance now, and its remedy."""

    kind: ObstacleKind
    what: str
    remedy: str

    @property
    def is_forceable(self) -> bool:
        return self.kind in FORCEABLE

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


@dataclass(frozen=True)
class Observed:
    """Everything that the guard judges, as observed at ``now``.

    :ivar instances: those of the service in the catalog; this host's has ``node`` and ``service_id``
    :ivar known: node and service ID of the instances that were reported within the last day; they count as existing
        even if the catalog does not show them
    :ivar is_queueing: this host still has to wait for the lock, so instances that a reload holds in maintenance count
        as healthy: they will be back when this host gets the lock
    :ivar own_reload: the ID of the reload after it has enabled maintenance. Its maintenance is no obstacle, and the
        instance is judged as it would be without it
    :ivar quarantine: the entry of the ``wanted`` digest
    :ivar suspect: an instance whose reload to the ``wanted`` digest has disappeared, if there is one
    :ivar pause: the pause that is in force
    :ivar min_age: the least seconds since ``image_created``, which is read only if this is not zero
    :ivar next_opening: when the next window opens, if that is known
    :ivar is_in_maintenance_allowed: an instance in an operator's maintenance may be reloaded and left in it
    :ivar stopped: how an operator stopped the container; empty if none did
    :ivar start_it: how to start that container
    :ivar differences: checks that Consul passes on the running instance and svcagent's own probe does not
    :ivar remembered: for how many seconds DNS clients may cache the instance
    :ivar drain_max: how many seconds a drain may take
    """

    instances: tuple[Instance, ...]
    node: str
    service: str
    service_id: str
    min_healthy: MinHealthy
    now: datetime
    known: frozenset[tuple[str, str]] = frozenset()
    is_queueing: bool = False
    own_reload: str = ""
    wanted: str = ""
    quarantine: Quarantine | None = None
    suspect: HostState | None = None
    pause: Pause | None = None
    image_created: datetime | None = None
    min_age: float = 0.0
    is_window_open: bool = True
    next_opening: datetime | None = None
    is_in_maintenance_allowed: bool = False
    stopped: str = ""
    start_it: str = ""
    differences: tuple[str, ...] = ()
    remembered: float = 0.0
    drain_max: float = 0.0

    @property
    def own(self) -> Instance | None:
        """This host's instance, as the catalog shows it."""
        return next((one for one in self.instances if _key(one) == self.own_key), None)

    @property
    def own_key(self) -> tuple[str, str]:
        return self.node, self.service_id

    @property
    def departed(self) -> frozenset[tuple[str, str]]:
        """The other known instances that are missing from the catalog."""
        return self.known - {_key(one) for one in self.instances} - {self.own_key}


def find_obstacles(seen: Observed) -> tuple[Obstacle, ...]:
    """Return everything that forbids draining this host's instance now; empty if nothing does."""
    own = seen.own
    memory = dns_cache_obstacle(seen.service, seen.remembered, seen.drain_max)
    return (
        *_own(seen, own),
        *(_health(seen, own) if own is not None else ()),
        *_stopped(seen, own),
        *_pause(seen),
        *_quarantine(seen),
        *_suspect(seen),
        *_window(seen),
        *_age(seen),
        *_readiness(seen),
        *((memory,) if memory is not None else ()),
    )


def overridden(obstacles: Iterable[Obstacle], *, is_forced: bool) -> tuple[tuple[Obstacle, ...], tuple[Obstacle, ...]]:
    """Return the obstacles that remain, and those that ``--force`` overrides, to be printed."""
    everything = tuple(obstacles)
    ignored = tuple(one for one in everything if is_forced and one.is_forceable)
    return tuple(one for one in everything if one not in ignored), ignored


def able_instances(instances: Iterable[Instance]) -> frozenset[tuple[str, str]]:
    """Return node and service ID of the instances that can take a new image: a rollout waits for them.

    Not included: one that an operator or an unknown owner holds in maintenance, because by default it keeps its image
    until ``reload --in-maintenance``; and one whose node has failed. One that a reload holds in maintenance is
    included, because it is taking the image.
    """
    return frozenset(
        _key(one) for one in instances if not one.is_node_dead and not any(map(_is_an_operators, _held(one)))
    )


def dns_cache_obstacle(service: str, remembered: float, drain_max: float) -> Obstacle | None:
    """Refuse to drain if DNS clients may cache the instance for longer than a drain may take. Pure.

    The alternatives would be to hold the fleet's lock for that long, or to restart while clients still connect.
    """
    if remembered <= drain_max:
        return None
    return Obstacle(
        ObstacleKind.DNS,
        f"DNS clients may remember {service} for {remembered:g} s (the TTL of its answers), and a drain may take "
        f"{drain_max:g} s (reload.drain.max)",
        "lower dns_config.service_ttl in Consul, or the TTL of a DNS server that caches its answers, or raise "
        "reload.drain.max in the definition",
    )


def _names(found: Iterable[str]) -> str:
    """Return some of the names in order, and how many more there are."""
    listed = sorted(set(found))
    more = f" and {len(listed) - MOST_NAMES} more" if len(listed) > MOST_NAMES else ""
    return ", ".join(listed[:MOST_NAMES]) + more


def _own(seen: Observed, own: Instance | None) -> tuple[Obstacle, ...]:
    if own is None:
        return (
            Obstacle(
                ObstacleKind.ABSENT,
                f"Consul's catalog does not show {seen.service_id} on this host ({seen.node})",
                "run: svcagent register. If it is registered, the token lacks service:read or node:read",
            ),
        )
    return tuple(
        _maintenance_obstacle(seen, held, is_nodes=not check_of)
        for held, check_of in _held_with_service(own)
        if not (seen.is_in_maintenance_allowed and _is_an_operators(held)) and not _is_of_this_reload(seen, held)
    )


def _health(seen: Observed, own: Instance) -> tuple[Obstacle, ...]:
    """Protect the clients of an instance that is served, including one in warning.

    They need another instance that is at least as healthy: a passing one for a passing one; a served one for one in
    warning, because clients that ask for passing instances do not use that one anyway. An instance that no client is
    sent to may always be drained: otherwise a fleet that is down as a whole could never get a good image.
    """
    own_reasons = {one.notes for one in own.checks if one.is_maintenance and _is_of_this_reload(seen, parse(one.notes))}
    before = own.without_maintenance(own_reasons)
    if not before.is_served:
        return ()
    others = [one for one in seen.instances if one is not own]
    healthy = sum(
        (one.is_passing if before.is_passing else one.is_served) or (seen.is_queueing and _is_being_reloaded(one))
        for one in others
    )
    count = len(others) + len(seen.departed)
    needed = seen.min_healthy.needed(count)
    if healthy >= needed:
        return ()
    departed = _names(node for node, _service_id in seen.departed)
    return (
        Obstacle(
            ObstacleKind.HEALTH,
            f"{healthy} of the {count} other instances of {seen.service} "
            f"{'pass their checks' if before.is_passing else 'are served'}, and {needed} must"
            + (f" (known within the last day, but not in Consul's catalog: {departed})" if departed else ""),
            f"wait for them, or repair them; to see which: svcagent fleet {seen.service}"
            if count
            else "a service that runs on one host alone needs reload.min_healthy: 0 in its definition",
        ),
    )


def _stopped(seen: Observed, own: Instance | None) -> tuple[Obstacle, ...]:
    """Respect an operator's ``docker stop``, unless the operator of a maintenance requests the reload."""
    is_asked_for = seen.is_in_maintenance_allowed and own is not None and any(map(_is_an_operators, _held(own)))
    if not seen.stopped or is_asked_for:
        return ()
    return (
        Obstacle(
            ObstacleKind.STOPPED,
            seen.stopped,
            f"when that is done, run: {seen.start_it}. To replace it all the same: "
            f"svcagent reload {seen.service_id} --force",
        ),
    )


def _pause(seen: Observed) -> tuple[Obstacle, ...]:
    if seen.pause is None:
        return ()
    end = "it ends by itself then; to go on before that" if seen.pause.until else "when that is done"
    return (
        Obstacle(
            ObstacleKind.PAUSE,
            f"reloads of {seen.service} are paused, {seen.pause.describe(iso)}",
            f"{end}, run: svcagent resume {seen.service}",
        ),
    )


def _quarantine(seen: Observed) -> tuple[Obstacle, ...]:
    entry = seen.quarantine
    if entry is None:
        return ()
    where = f"it failed on {entry.node} at {iso(entry.since)}: " if entry.since else ""
    return (
        Obstacle(
            ObstacleKind.QUARANTINE,
            f"{entry.digest} is quarantined: {where}{entry.why}",
            "push a better image. If the fault was not the image's, run: "
            f"svcagent quarantine clear {seen.service} {entry.digest}",
        ),
    )


def _suspect(seen: Observed) -> tuple[Obstacle, ...]:
    if seen.suspect is None:
        return ()
    what, remedy = suspect.what_happened(seen.suspect), suspect.what_to_do(seen.service, seen.suspect)
    return (Obstacle(ObstacleKind.SUSPECT, what, remedy),)


def _window(seen: Observed) -> tuple[Obstacle, ...]:
    if seen.is_window_open:
        return ()
    until = "none opens soon"
    if seen.next_opening is not None:
        until = f"wait until {iso(seen.next_opening.astimezone(UTC))}, when the next one opens"
    return (
        Obstacle(
            ObstacleKind.WINDOW,
            f"no window of {seen.service} is open now",
            f"{until}; or change reload.windows in its definition",
        ),
    )


def _age(seen: Observed) -> tuple[Obstacle, ...]:
    if not seen.min_age:
        return ()
    least = timedelta(seconds=seen.min_age)
    wants = f"{seen.service} takes no image younger than {length(least)} (reload.min_age)"
    if seen.image_created is None:
        return (
            Obstacle(
                ObstacleKind.AGE,
                f"{wants}, and it is not known on this host when {seen.wanted or 'this one'} was built",
                "it is known once a reload has pulled the image",
            ),
        )
    age = seen.now - seen.image_created
    if age >= least:
        return ()
    ready = iso((seen.image_created + least).astimezone(UTC))
    return (Obstacle(ObstacleKind.AGE, f"{wants}, and this one was built {length(age)} ago", f"wait until {ready}"),)


def _readiness(seen: Observed) -> tuple[Obstacle, ...]:
    if not seen.differences:
        return ()
    return (
        Obstacle(
            ObstacleKind.READINESS,
            f"svcagent cannot judge {seen.service_id} as Consul does: {'; '.join(seen.differences)}",
            "correct the check, or the service, so that both agree. If the new version corrects it, run: "
            f"svcagent reload {seen.service_id} --force",
        ),
    )


def _key(instance: Instance) -> tuple[str, str]:
    return instance.node, instance.service_id


def _is_of_this_reload(seen: Observed, held: Maintenance) -> bool:
    return bool(seen.own_reload) and held.kind is OwnerKind.RELOAD and held.owner == seen.own_reload


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
    argument = "--node" if is_nodes else seen.service_id
    subject = f"{seen.node} (this host)" if is_nodes else seen.service_id
    remedy = f"when that is done, run: svcagent maint disable {argument}"
    if held.kind is OwnerKind.RELOAD:
        remedy = f"if that reload has crashed, run on {held.host}: svcagent recover {seen.service}"
    else:
        remedy += f". To reload it and leave it in maintenance: svcagent reload {seen.service} --in-maintenance"
    return Obstacle(ObstacleKind.MAINTENANCE, f"{subject} is in maintenance, enabled {held.describe()}", remedy)
