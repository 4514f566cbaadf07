"""What ``svcagent maint enable`` checks before and after its writes, and what it prints after a failure."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from agent.cli.maint_input import with_maintenance
from agent.cli.maint_output import described
from agent.cli.output import show_warning
from agent.clock import Clock
from agent.consul import AgentSelf, Consul
from agent.definitions import durations
from agent.errors import ConsulUnreachable, GuardRefused, OutcomeUnknown, SvcagentError, Unreachable
from agent.maintenance import (
    ClientView,
    MaintenanceAction,
    MaintenanceDecision,
    MaintenanceTarget,
    RemainingInstances,
    await_shown,
    client_views,
    disable_own_maintenance,
    dns_cache_time,
    enable_maintenance,
    render,
)


def enable_all(consul: Consul, decisions: Iterable[MaintenanceDecision]) -> None:
    for one in decisions:
        if one.wanted is not None and one.action is not MaintenanceAction.KEEP:
            enable_maintenance(consul, one.target, one.wanted, is_rewrite=one.action is MaintenanceAction.REWRITE)


def warn_if_none_remain(consul: Consul, node: str, targets: Sequence[MaintenanceTarget], *, is_refusing: bool) -> None:
    """Warn, or refuse, if a service's clients would have no instance left."""
    try:
        views = client_views(consul, node, targets)
    except ConsulUnreachable as error:
        if is_refusing:
            raise
        show_warning(f"unknown whether clients have another instance: {error}")
        return
    for one in views:
        if problem := _none_remain(one):
            if is_refusing:
                ids = ", ".join(one.service_ids)
                raise GuardRefused(
                    f"{ids}: maintenance not enabled: {problem}. To enable it anyway, omit --guard",
                    kind="no-instance-left",
                )
            show_warning(problem)


def check_again(consul: Consul, clock: Clock, node: str, entered: Sequence[MaintenanceDecision]) -> None:
    """Check again once the catalog shows maintenance, and disable it if clients have no instance left.

    Another operator or a reload may have enabled maintenance of another instance at the same moment, and each saw the
    other instance in service. After this check at least one of them has seen both.

    :raises GuardRefused: clients would have no instance left; maintenance is disabled again.
    """
    reasons = {render(one.wanted) for one in entered if one.wanted is not None}
    try:
        views = client_views(consul, node, [one.target for one in entered], ignoring=reasons)
        problem = "; ".join(text for one in views if (text := _none_remain(one)))
    except SvcagentError as error:
        problem = f"unknown whether clients have another instance: {error}"
    if not problem:
        return
    for one in entered:
        if one.wanted is not None and disable_own_maintenance(consul, one.target, one.wanted):
            await_shown(consul, clock, one.target, None)
    out = ", ".join(str(one.target) for one in entered)
    raise GuardRefused(
        f"{out}: maintenance was enabled and disabled again, because another instance entered maintenance at the "
        f"same moment: {problem}. Run the command again, or omit --guard",
        kind="no-instance-left",
    )


def dns_cache_seconds(consul: Consul, agent: AgentSelf, targets: Sequence[MaintenanceTarget], timeout: float) -> int:
    """Return for how many seconds DNS clients may cache the targets; refuse what would outlast the timeout.

    :raises GuardRefused: nothing was changed.
    """
    remembered = dns_cache_time(consul, agent, targets)
    if remembered > timeout:
        raise GuardRefused(
            f"nothing was changed: DNS clients may cache the addresses of {', '.join(map(str, targets))} for "
            f"{remembered} s (the TTL of the answers), and --drain-timeout is {durations.text(timeout)}. Set "
            f"--drain-timeout to {remembered}s or more, lower dns_config.service_ttl in Consul, or omit --wait-drained",
            kind="dns-ttl-too-long",
        )
    return remembered


@contextmanager
def remaining_maintenance_reported(consul: Consul, decisions: Sequence[MaintenanceDecision]) -> Iterator[None]:
    """If the block fails, print which of the targets are in maintenance, its owner, and how to disable it."""
    try:
        yield
    except BaseException as error:  # also a signal's: it leaves what was enabled
        for line in _remaining(consul, decisions, is_silent=isinstance(error, Unreachable)):
            show_warning(line)
        raise


def _remaining(consul: Consul, decisions: Sequence[MaintenanceDecision], *, is_silent: bool) -> Iterator[str]:
    """Yield a line for each target. ``is_silent``: Consul has just failed to answer, and is not queried again."""
    try:
        if is_silent:
            raise OutcomeUnknown
        found = with_maintenance(consul, [one.target for one in decisions])
    except SvcagentError:
        for one in decisions:
            yield (
                f"{one.target} may be in maintenance. To check: svcagent maint status {one.target.argument}. "
                f"To disable maintenance: svcagent maint disable {one.target.argument}"
            )
        return
    for target, held in found:
        if held is not None:
            yield (
                f"{target} is still in maintenance, enabled {described(held)}. "
                f"To disable it: svcagent maint disable {target.argument}"
            )


def _none_remain(one: ClientView) -> str:
    match one.remaining:
        case RemainingInstances.SOME:
            return ""
        case RemainingInstances.NONE:
            return f"no other instance of {one.name} passes its checks; its clients would have none"
        case RemainingInstances.UNKNOWN:
            return (
                f"Consul's catalog does not show {one.name} on this host, so it is unknown whether its clients have "
                "another instance. If it was registered just now, try again; otherwise the token may lack node:read"
            )
