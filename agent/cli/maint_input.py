"""Interpret the arguments of ``svcagent maint``: the targets, the end, and the operator."""

import getpass
import os
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import reduce

import click

from agent.cli import context
from agent.cli.options import F
from agent.consul import AgentSelf, Consul
from agent.definitions import Settings
from agent.errors import NotFound, SvcagentError
from agent.logs import log
from agent.maintenance import InvalidTime, Maintenance, MaintenanceDecision, MaintenanceTarget, parse, parse_end, render
from agent.registration import LastSeenFile


def targets_of(
    consul: Consul, agent: AgentSelf, name: str | None, *, node: bool, every: bool
) -> list[MaintenanceTarget]:
    """Return the named targets: any service of this host, whether svcagent registered it or not."""
    if sum((bool(name), node, every)) != 1:
        raise click.UsageError("Give the NAME of a service, --node for this host, or --all for all its services.")
    if node:
        return [MaintenanceTarget(agent.node)]
    services = sorted(consul.services().values(), key=lambda service: service.id)
    chosen = [one for one in services if every or name in (one.id, one.name)]
    if not chosen and every:
        raise NotFound("no service is registered on this host; run: svcagent register", kind="nothing-registered")
    if not chosen:
        there = ", ".join(one.id if one.id == one.name else f"{one.id} ({one.name})" for one in services) or "none"
        raise click.BadParameter(
            f"no service {name!r} is registered on this host; there is: {there}"
            f"{context.did_you_mean(name or '', (one.id for one in services))}",
            param_hint="NAME",
        )
    return [MaintenanceTarget(agent.node, one.id, one.name) for one in chosen]


def with_maintenance(
    consul: Consul, targets: list[MaintenanceTarget]
) -> list[tuple[MaintenanceTarget, Maintenance | None]]:
    checks = consul.checks()
    return [(one, parse(checks[one.check_id].notes) if one.check_id in checks else None) for one in targets]


def remember(settings: Settings, decisions: Iterable[MaintenanceDecision]) -> None:
    """Record the decisions, so that a service that Consul removes is registered again in the same maintenance.

    If the user may not write the state directory, the next registration or the daemon records it.
    """
    kept = LastSeenFile(settings.state_dir, context.system_clock())
    try:
        for one in decisions:
            kept.record_maintenance(one.target.service_id, None if one.wanted is None else render(one.wanted))
    except SvcagentError as error:
        log(f"{error}; the next registration records the maintenance")


def reason_options(ended: str) -> Callable[[F], F]:
    """Accept ``--reason``, ``--for`` and ``--until``. ``ended``: what ends it if it has no end."""
    until = "End time: HH:MM (its next occurrence) or ISO 8601; local time unless it has a zone."
    options = (
        click.option("--reason", required=True, help="Reason, shown to others.", callback=_one_line),
        click.option(
            "--for", "duration", type=context.GoDuration(), help=f"Duration: 90m, 2h. Default: until {ended}."
        ),
        click.option("--until", metavar="TIME", help=until),
    )
    return lambda command: reduce(lambda command, option: option(command), reversed(options), command)


def _one_line(_ctx: click.Context, _parameter: click.Parameter, reason: str) -> str:
    if not reason.split():
        raise click.BadParameter("must not be empty", param_hint="--reason")
    return " ".join(reason.split())


def end_of(duration: float | None, until: str | None, now: datetime) -> datetime | None:
    """Return the end from ``--for`` or ``--until``; None for no end.

    :raises click.UsageError: it is not in the future.
    """
    if duration is not None and until is not None:
        raise click.UsageError("Give --for or --until, not both.")
    if until is not None:
        try:
            return parse_end(until, now)
        except InvalidTime as error:
            raise click.BadParameter(str(error), param_hint="--until") from error
    if duration is None:
        return None
    try:
        end = now + timedelta(seconds=duration)
    except OverflowError as error:
        raise click.BadParameter("the end time is too far in the future", param_hint="--for") from error
    if duration <= 0:
        raise click.BadParameter("must be greater than 0", param_hint="--for")
    return end


def operator() -> str:
    """Return the operator's user name, also under sudo."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"
