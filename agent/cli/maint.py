"""``svcagent maint``."""

import getpass
import os
from datetime import timedelta

import click

from agent.cli import wiring
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_table
from agent.consul import NODE_MAINTENANCE, Consul, LocalService
from agent.errors import Conflict, NotFound
from agent.maintenance import Maintenance, OwnerKind, by_operator, parse, put_out, render


@click.group(epilog='Example: svcagent maint enable keyword-suggest --reason "disk swap" --for 2h')
def maint() -> None:
    """Take a service or this host out of service and put it back.

    svcagent remembers who did it, why, and until when, in the reason that Consul keeps. A reload never lifts it.
    """


@maint.command()
@click.argument("name", required=False, shell_complete=wiring.complete_name)
@click.option("--node", is_flag=True, help="This host with all its services, instead of one service.")
@click.option("--reason", required=True, help="Why: others will read it.")
@click.option("--for", "duration", type=wiring.GoDuration(), help="An end: 90m, 2h. Without it, until disabled.")
@output_options
def enable(name: str | None, *, node: bool, reason: str, duration: float | None) -> None:
    """Take it out, and return when the catalog shows it.

    With --for, the next register or reload after that time puts the service back, if its checks pass.
    """
    _one_of(name, is_node=node)
    clock = wiring.system_clock()
    if duration is not None and duration <= 0:
        raise click.BadParameter("an end must lie in the future", param_hint="--for")
    with wiring.consul(wiring.settings()) as consul:
        host = consul.agent_self().node
        until = clock.now() + timedelta(seconds=duration) if duration else None
        wanted = by_operator(_operator(), host, reason, clock.now(), until)
        services = [] if node else _services(consul, name)
        held = [_held_node(consul)] if node else [_held(service) for service in services]
        for target, maintenance in zip([host] if node else [s.id for s in services], held, strict=True):
            if maintenance is not None:
                raise Conflict(f"{target} is out of service already, taken {maintenance.describe()}; it stays as it is")
        if node:
            consul.enable_node_maintenance(render(wanted))
        for service in services:
            put_out(consul, clock, service.id, service.name, host, wanted)
    _show_done([host] if node else [service.id for service in services], "out of service", wanted)


@maint.command()
@click.argument("name", required=False, shell_complete=wiring.complete_name)
@click.option("--node", is_flag=True, help="This host with all its services, instead of one service.")
@click.option("--force", is_flag=True, help="Also lift a reload's maintenance, once you know that it is dead.")
@output_options
def disable(name: str | None, *, node: bool, force: bool) -> None:
    """Put it back, and say whose maintenance that was. Not out of service: nothing to do."""
    _one_of(name, is_node=node)
    with wiring.consul(wiring.settings()) as consul:
        if node:
            lifted = [(consul.agent_self().node, _held_node(consul))]
            if lifted[0][1] is not None:
                consul.disable_node_maintenance()
        else:
            lifted = [(service.id, _held(service)) for service in _services(consul, name)]
            for service_id, maintenance in lifted:
                if maintenance is not None and maintenance.kind is OwnerKind.RELOAD and not force:
                    raise Conflict(
                        f"{service_id} was taken out {maintenance.describe()}, which puts it back itself. If that "
                        f"reload is dead, run: svcagent maint disable {service_id} --force"
                    )
            for service_id, maintenance in lifted:
                if maintenance is not None:
                    consul.disable_maintenance(service_id)
    for target, maintenance in lifted:
        _show_done([target], "in service again" if maintenance else "not in maintenance", maintenance)


@maint.command()
@click.argument("name", required=False, shell_complete=wiring.complete_name)
@click.option("--node", is_flag=True, help="This host alone, without its services.")
@output_options
def status(name: str | None, *, node: bool) -> None:
    """Show who took what out of service, since when, until when, and why."""
    if name and node:
        raise click.UsageError("Give NAME or --node, not both.")
    with wiring.consul(wiring.settings()) as consul:
        found: list[tuple[str, Maintenance | None]] = []
        if not name:
            found.append((f"{consul.agent_self().node} (this host)", _held_node(consul)))
        if not node:
            found += [(service.id, _held(service)) for service in _services(consul, name)]
    if current().as_json:
        show_document([_as_document(target, maintenance) for target, maintenance in found])
        return
    out = [(target, maintenance) for target, maintenance in found if maintenance is not None]
    if not out:
        show_line("nothing is in maintenance")
        return
    rows = [(target, str(m.kind), m.owner, m.host, str(m.since or ""), str(m.until or ""), m.why) for target, m in out]
    show_table(("OUT", "BY", "WHO", "ON", "SINCE", "UNTIL", "WHY"), rows)


def _one_of(name: str | None, *, is_node: bool) -> None:
    if bool(name) == is_node:
        raise click.UsageError("Give the service's NAME, or --node for this host.")


def _services(consul: Consul, name: str | None) -> list[LocalService]:
    """This host's services of that name or id, whoever registered them: an operator may take out anything."""
    services = sorted(consul.services().values(), key=lambda service: service.id)
    if name is None:
        return services
    chosen = [service for service in services if name in (service.id, service.name)]
    if not chosen:
        there = ", ".join(service.id for service in services) or "none"
        raise NotFound(f"no service {name} is registered on this host; there is: {there}")
    return chosen


def _held(service: LocalService) -> Maintenance | None:
    return parse(service.maintenance.notes) if service.maintenance else None


def _held_node(consul: Consul) -> Maintenance | None:
    check = consul.checks().get(NODE_MAINTENANCE)
    return parse(check.notes) if check else None


def _operator() -> str:
    return os.environ.get("SUDO_USER") or getpass.getuser()


def _show_done(targets: list[str], what: str, maintenance: Maintenance | None) -> None:
    if current().as_json:
        show_document([{**_as_document(target, maintenance), "now": what} for target in targets])
    for target in targets:
        show_line(f"{target}: {what}" + (f" (taken out {maintenance.describe()})" if maintenance else ""))


def _as_document(target: str, maintenance: Maintenance | None) -> dict[str, object]:
    if maintenance is None:
        return {"target": target, "maintenance": None}
    details = {
        "owner": str(maintenance.kind),
        "who": maintenance.owner,
        "host": maintenance.host,
        "reason": maintenance.why,
        "since": maintenance.since and maintenance.since.isoformat(),
        "until": maintenance.until and maintenance.until.isoformat(),
    }
    return {"target": target, "maintenance": details}
