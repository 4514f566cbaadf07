"""What must hold before an instance may be drained. Pure: it is asked three times, of three fresh observations.

Unknown counts as no: an answer without the own instance in it is not an answer (a missing ``node:read`` empties it).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from agent.consul import Instance
from agent.definitions import MinHealthy
from agent.maintenance import Maintenance, OwnerKind, parse


@dataclass(frozen=True)
class Obstacle:
    """One thing that stands between this host and a drain, and who or what can clear it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def find_obstacles(
    instances: Iterable[Instance], node: str, service_id: str, min_healthy: MinHealthy, *, is_queueing: bool = False
) -> tuple[Obstacle, ...]:
    """All that forbids draining this host's instance now; empty when nothing does.

    ``is_queueing``: asked before waiting for the lock, so instances that a reload has out count as there: they will
    be back when the lock comes to this host.

    ``min_healthy`` protects clients of a passing instance. One that no client is sent to may always be taken out:
    otherwise a fleet that is down as a whole could never be given a good image.
    """
    everyone = tuple(instances)
    own = next((one for one in everyone if one.node == node and one.service_id == service_id), None)
    if own is None:
        return (
            Obstacle(
                f"Consul's catalog does not show {service_id} on this host ({node})",
                "run: svcagent register. If it is registered, the token lacks service:read or node:read",
            ),
        )
    found = []
    if own.maintenance is not None:
        found.append(_maintenance_obstacle(service_id, parse(own.maintenance.notes)))
    others = [one for one in everyone if one is not own]
    passing = sum(one.is_passing or (is_queueing and _is_being_reloaded(one)) for one in others)
    needed = min_healthy.needed(len(others))
    if own.is_passing and passing < needed:
        found.append(
            Obstacle(
                f"{passing} of the {len(others)} other instances of {service_id} pass their checks, and {needed} must",
                "wait for them, or repair them"
                if others
                else "a service that runs on one host alone needs reload.min_healthy: 0 in its definition",
            )
        )
    return tuple(found)


def _is_being_reloaded(instance: Instance) -> bool:
    return instance.maintenance is not None and parse(instance.maintenance.notes).kind is OwnerKind.RELOAD


def _maintenance_obstacle(service_id: str, maintenance: Maintenance) -> Obstacle:
    remedy = f"when that is done, run: svcagent maint disable {service_id}"
    if maintenance.kind is OwnerKind.RELOAD:
        remedy = f"if that reload is dead, run: svcagent maint disable {service_id} --force"
    return Obstacle(f"{service_id} is in maintenance, taken out {maintenance.describe()}", remedy)
