"""Disables maintenance whose end has passed, if the instance passes its checks.

The end is part of the reason text, which Consul does not interpret: the next run of svcagent disables it.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from agent.clock import Clock
from agent.consul import NODE_MAINTENANCE, CheckState, Consul, LocalService
from agent.data import dataclass
from agent.errors import SvcagentError
from agent.maintenance.change import await_shown, lift_own
from agent.maintenance.reason import Maintenance, parse
from agent.maintenance.target import Target


@dataclass(frozen=True)
class Ended:
    """A maintenance whose end has passed. ``failing``: the checks that keep it enabled."""

    target: Target
    maintenance: Maintenance
    failing: tuple[CheckState, ...]

    @property
    def is_liftable(self) -> bool:
        return not self.failing


def find_ended(
    services: Mapping[str, LocalService],
    checks: Mapping[str, CheckState],
    node: str,
    now: datetime,
    only: Collection[str] | None = None,
) -> tuple[Ended, ...]:
    """Return every maintenance whose end has passed: services in order of ID, then the host.

    ``checks``: all checks of the local agent. ``only``: the IDs of the services to look at, or None for all. The host
    is always included. Its checks are the node's, and those of its services that are not in maintenance themselves.
    """
    found = []
    for service in sorted(services.values(), key=lambda one: one.id):
        if service.maintenance is not None and (only is None or service.id in only):
            held = parse(service.maintenance.notes)
            if held.is_over(now):
                found.append(Ended(Target(node, service.id, service.name), held, _failing(service.real_checks)))
    if NODE_MAINTENANCE in checks:
        held = parse(checks[NODE_MAINTENANCE].notes)
        if held.is_over(now):
            own = [check for check in checks.values() if not check.service_id and not check.is_maintenance]
            own += [check for one in services.values() if one.maintenance is None for check in one.real_checks]
            found.append(Ended(Target(node), held, _failing(own)))
    return tuple(found)


def lift_expired(consul: Consul, clock: Clock, node: str, only: Collection[str] | None = None) -> tuple[Ended, ...]:
    """Disable expired maintenance where the checks pass, and return all that has expired. ``only``: as in `find_ended`.

    A failure does not keep the others in maintenance; the first one is raised at the end, such as `OutcomeUnknown` if
    the catalog did not show the change in time.
    """
    done: list[Ended] = []
    troubles: list[SvcagentError] = []
    for one in find_ended(consul.services(), consul.checks(), node, clock.now(), only):
        try:
            for lifted in lift_ended(consul, [one]):
                done.append(lifted)
                if lifted.is_liftable:
                    await_shown(consul, clock, lifted.target, None)
        except SvcagentError as error:
            troubles.append(error)
    if troubles:
        raise troubles[0]
    return tuple(done)


def lift_ended(consul: Consul, ended: Iterable[Ended]) -> tuple[Ended, ...]:
    """Disable those whose checks pass. Return all, except those that another process changed meanwhile."""
    return tuple(one for one in ended if not one.is_liftable or lift_own(consul, one.target, one.maintenance))


def _failing(checks: Collection[CheckState]) -> tuple[CheckState, ...]:
    """Return the checks that keep it in maintenance. Warnings alone do not: Consul serves such an instance."""
    found = sorted((check for check in checks if check.status != "passing"), key=lambda check: check.id)
    return tuple(found) if any(check.status != "warning" for check in found) else ()
