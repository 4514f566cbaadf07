"""What must hold before an instance may be drained. Pure: it is asked three times, of three fresh observations.

Unknown counts as no: an answer without the own instance in it is not an answer (a missing ``node:read`` empties it),
and an image whose age nobody knows is too young.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from agent.consul import Instance
from agent.definitions import MinHealthy
from agent.fleet import Pause, Quarantine
from agent.maintenance import Maintenance, OwnerKind, iso, length, parse


class Kind(StrEnum):
    """What sort of thing stands in the way."""

    ABSENT = "absent"
    MAINTENANCE = "maintenance"
    PAUSE = "pause"
    QUARANTINE = "quarantine"
    WINDOW = "window"
    AGE = "age"
    HEALTH = "health"


FORCEABLE = frozenset({Kind.PAUSE, Kind.QUARANTINE, Kind.WINDOW, Kind.AGE, Kind.HEALTH})
"""What an operator may decide against. Not: lifting or outliving somebody's maintenance, or draining unseen."""


@dataclass(frozen=True)
class Obstacle:
    """One thing that stands between this host and a drain, and who or what can clear it."""

    kind: Kind
    what: str
    remedy: str

    @property
    def is_forceable(self) -> bool:
        """May ``--force`` override it?"""
        return self.kind in FORCEABLE

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


@dataclass(frozen=True)
class Observed:
    """All that the guard judges, as it was seen at ``now``.

    ``instances`` are the service's in the catalog, of which this host's has ``node`` and ``service_id``.
    ``is_queueing``: asked before waiting for the lock, so instances that a reload has out count as there: they will
    be back when the lock comes to this host. ``quarantine`` is the entry of the ``wanted`` digest, ``pause`` the one
    that counts now. ``min_age``: seconds since ``image_created``, which is asked for only where that is not zero.
    ``next_opening``: of the windows, if any is known. ``is_in_maintenance_allowed``: the operator said that an
    instance which an operator holds out may be reloaded where it stands, out before and after.
    """

    instances: tuple[Instance, ...]
    node: str
    service: str
    service_id: str
    min_healthy: MinHealthy
    now: datetime
    is_queueing: bool = False
    wanted: str = ""
    quarantine: Quarantine | None = None
    pause: Pause | None = None
    image_created: datetime | None = None
    min_age: float = 0.0
    is_window_open: bool = True
    next_opening: datetime | None = None
    is_in_maintenance_allowed: bool = False

    @property
    def own(self) -> Instance | None:
        """This host's instance, as the catalog shows it."""
        return next(
            (one for one in self.instances if one.node == self.node and one.service_id == self.service_id), None
        )


def find_obstacles(seen: Observed) -> tuple[Obstacle, ...]:
    """All that forbids draining this host's instance now; empty when nothing does."""
    of_the_fleet = (*_pause(seen), *_quarantine(seen), *_window(seen), *_age(seen))
    own = seen.own
    return (*_own(seen, own), *(_health(seen, own) if own is not None else ()), *of_the_fleet)


def overridden(obstacles: Iterable[Obstacle], *, is_forced: bool) -> tuple[tuple[Obstacle, ...], tuple[Obstacle, ...]]:
    """Those that stand, and those that ``--force`` overrides, to be said aloud."""
    everything = tuple(obstacles)
    ignored = tuple(one for one in everything if is_forced and one.is_forceable)
    return tuple(one for one in everything if one not in ignored), ignored


def able_instances(instances: Iterable[Instance]) -> frozenset[tuple[str, str]]:
    """Return node and service ID of the instances that could take a new image: a rollout waits for them.

    Not one that an operator, or somebody unknown, holds in maintenance: by default it keeps its image until
    ``reload --in-maintenance``. Not one whose host is down. One that a reload holds in maintenance is taking it now.
    """
    return frozenset(
        (one.node, one.service_id)
        for one in instances
        if not one.is_host_down and not any(map(_is_an_operators, _held(one)))
    )


def _own(seen: Observed, own: Instance | None) -> tuple[Obstacle, ...]:
    if own is None:
        return (
            Obstacle(
                Kind.ABSENT,
                f"Consul's catalog does not show {seen.service_id} on this host ({seen.node})",
                "run: svcagent register. If it is registered, the token lacks service:read or node:read",
            ),
        )
    return tuple(
        _maintenance_obstacle(seen, held, is_nodes=not check_of)
        for held, check_of in _held_with_service(own)
        if not (seen.is_in_maintenance_allowed and _is_an_operators(held))
    )


def _health(seen: Observed, own: Instance) -> tuple[Obstacle, ...]:
    """``min_healthy`` protects clients of a passing instance.

    One that no client is sent to may always be taken out: otherwise a fleet that is down as a whole could never be
    given a good image.
    """
    others = [one for one in seen.instances if one is not own]
    passing = sum(one.is_passing or (seen.is_queueing and _is_being_reloaded(one)) for one in others)
    needed = seen.min_healthy.needed(len(others))
    if not own.is_passing or passing >= needed:
        return ()
    return (
        Obstacle(
            Kind.HEALTH,
            f"{passing} of the {len(others)} other instances of {seen.service} pass their checks, and {needed} must",
            f"wait for them, or repair them; who is missing: svcagent fleet {seen.service}"
            if others
            else "a service that runs on one host alone needs reload.min_healthy: 0 in its definition",
        ),
    )


def _pause(seen: Observed) -> tuple[Obstacle, ...]:
    if seen.pause is None:
        return ()
    end = "it ends by itself then; to go on before that" if seen.pause.until else "when that is done"
    return (
        Obstacle(
            Kind.PAUSE,
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
            Kind.QUARANTINE,
            f"{entry.digest} is quarantined: {where}{entry.why}",
            "push a better image. If the fault was not the image's, run: "
            f"svcagent quarantine clear {seen.service} {entry.digest}",
        ),
    )


def _window(seen: Observed) -> tuple[Obstacle, ...]:
    if seen.is_window_open:
        return ()
    until = "none opens again soon"
    if seen.next_opening is not None:
        until = f"wait until {iso(seen.next_opening.astimezone(UTC))}, when the next one opens"
    return (
        Obstacle(
            Kind.WINDOW,
            f"it is outside the windows of {seen.service}",
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
                Kind.AGE,
                f"{wants}, and when {seen.wanted or 'this one'} was made is not known on this host",
                "it is known once the image has been pulled, which a reload does before it looks",
            ),
        )
    age = seen.now - seen.image_created
    if age >= least:
        return ()
    ready = iso((seen.image_created + least).astimezone(UTC))
    return (Obstacle(Kind.AGE, f"{wants}, and this one was made {length(age)} ago", f"wait until {ready}"),)


def _held(instance: Instance) -> tuple[Maintenance, ...]:
    return tuple(held for held, _service_id in _held_with_service(instance))


def _held_with_service(instance: Instance) -> tuple[tuple[Maintenance, str], ...]:
    """Every maintenance that holds it out, the service's own first; with no service's id the host's."""
    checks = sorted(
        (check for check in instance.checks if check.is_maintenance), key=lambda check: not check.service_id
    )
    return tuple((parse(check.notes), check.service_id) for check in checks)


def _is_an_operators(held: Maintenance) -> bool:
    """Or somebody unknown's, which is treated alike."""
    return held.kind is not OwnerKind.RELOAD


def _is_being_reloaded(instance: Instance) -> bool:
    held = _held(instance)
    return bool(held) and not any(map(_is_an_operators, held))


def _maintenance_obstacle(seen: Observed, held: Maintenance, *, is_nodes: bool) -> Obstacle:
    argument = "--node" if is_nodes else seen.service_id
    subject = f"{seen.node} (this host)" if is_nodes else seen.service_id
    remedy = f"when that is done, run: svcagent maint disable {argument}"
    if held.kind is OwnerKind.RELOAD:
        remedy = f"if that reload is dead, run on {held.host}: svcagent recover {seen.service}"
    else:
        remedy += f". To reload it where it stands and leave it out: svcagent reload {seen.service} --in-maintenance"
    return Obstacle(Kind.MAINTENANCE, f"{subject} is in maintenance, taken out {held.describe()}", remedy)
