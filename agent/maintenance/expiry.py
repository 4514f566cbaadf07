"""Disables maintenance whose end has passed, if the instance passes its checks.

The end is part of the reason text, which Consul does not interpret: the next run of svcagent disables it.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from agent.clock import Clock
from agent.consul import NODE_MAINTENANCE, CheckState, Consul, LocalService
from agent.data import dataclass
from agent.errors import SvcagentError
from agent.maintenance.change import await_shown, disable_own_maintenance
from agent.maintenance.reason import Maintenance, parse
from agent.maintenance.target import MaintenanceTarget


@dataclass(frozen=True)
class ExpiredMaintenance:
    """A maintenance whose end has passed. ``failing``: the checks that keep it enabled."""

    target: MaintenanceTarget
    maintenance: Maintenance
    failing: tuple[CheckState, ...]

    @property
    def may_be_disabled(self) -> bool:
        return not self.failing

    def disable(self, consul: Consul) -> bool:
        """Disable it if the checks pass. Return False if another process changed it meanwhile."""
        return not self.may_be_disabled or disable_own_maintenance(consul, self.target, self.maintenance)


def find_expired(
    services: Mapping[str, LocalService],
    checks: Mapping[str, CheckState],
    node: str,
    now: datetime,
    only: Collection[str] | None = None,
) -> tuple[ExpiredMaintenance, ...]:
    """Return every maintenance whose end has passed: services in order of ID, then the host.

    ``checks``: all checks of the local agent. ``only``: the IDs of the services to look at, or None for all. The host
    is always included. Its checks are the node's, and those of its services that are not in maintenance themselves.
    """
    held = [
        (MaintenanceTarget(node, one.id, one.name), one.maintenance, one.real_checks)
        for one in sorted(services.values(), key=lambda one: one.id)
        if one.maintenance is not None and (only is None or one.id in only)
    ]
    if NODE_MAINTENANCE in checks:
        own = [check for check in checks.values() if not check.service_id and not check.is_maintenance]
        own += [check for one in services.values() if one.maintenance is None for check in one.real_checks]
        held.append((MaintenanceTarget(node), checks[NODE_MAINTENANCE], tuple(own)))
    return tuple(
        ExpiredMaintenance(target, maintenance, _failing(judged))
        for target, check, judged in held
        if (maintenance := parse(check.notes)).is_over(now)
    )


def end_expired(
    consul: Consul, clock: Clock, node: str, only: Collection[str] | None = None
) -> tuple[ExpiredMaintenance, ...]:
    """Disable expired maintenance where the checks pass, and return all of it. ``only``: as in `find_expired`.

    A failure does not keep the others in maintenance; the first one is raised at the end, such as `OutcomeUnknown` if
    the catalog did not show the change in time.
    """
    done: list[ExpiredMaintenance] = []
    failures: list[SvcagentError] = []
    for one in find_expired(consul.services(), consul.checks(), node, clock.now(), only):
        try:
            if one.disable(consul):
                done.append(one)
                if one.may_be_disabled:
                    await_shown(consul, clock, one.target, None)
        except SvcagentError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return tuple(done)


def _failing(checks: Collection[CheckState]) -> tuple[CheckState, ...]:
    """Return the checks that keep it in maintenance. Warnings alone do not: Consul serves such an instance."""
    found = sorted((check for check in checks if check.status != "passing"), key=lambda check: check.id)
    return tuple(found) if any(check.status != "warning" for check in found) else ()
