import click

from agent.cli import context
from agent.cli.maint_enable import (
    check_again,
    dns_cache_seconds,
    enable_all,
    remaining_maintenance_reported,
    warn_if_none_remain,
)
from agent.cli.maint_input import end_of, operator, reason_options, remember, targets_of, with_maintenance
from agent.cli.maint_output import (
    described,
    show_decisions,
    show_enabled,
    show_expired_maintenance,
    show_status,
)
from agent.cli.options import output_options
from agent.cli.output import show_line, show_warning
from agent.clock import Deadline, Interrupts
from agent.errors import Conflict, TemporaryRefusal
from agent.maintenance import (
    MaintenanceAction,
    MaintenanceDecision,
    MaintenanceTarget,
    await_dns_expiry,
    await_shown,
    by_operator,
    decide_disable,
    decide_enable,
    disable_own_maintenance,
    end_expired,
)

_name = click.argument("name", required=False, shell_complete=context.complete_name)
_wait = click.option(
    "--wait",
    type=context.GoDuration(),
    default="30s",
    show_default=True,
    help="How long to wait until Consul's catalog shows the change; then exit with 69.",
)
_all = click.option("--all", "every", is_flag=True, help="All services of this host.")


@click.group(
    epilog="\b\nExamples:\n"
    '  svcagent maint enable keyword-suggest --reason "disk swap" --for 2h\n'
    "  svcagent maint status\n"
    "  svcagent maint disable keyword-suggest\n"
    "In cron, every minute: svcagent maint expire"
)
def maint() -> None:
    """Enable, disable and show the maintenance of a service or of this host.

    Consul stores owner, reason, start and end as the reason text, readable by all of its users. A reload never
    disables an operator's maintenance. NAME is a service name (all its instances on this host) or a service ID.
    """


@maint.command(
    epilog="\b\nExamples:\n"
    '  svcagent maint enable keyword-suggest --reason "disk swap" --for 2h\n'
    '  svcagent maint enable keyword-suggest --reason "new index" --until 18:00 --wait-drained --guard\n'
    '  svcagent maint enable --node --reason "new kernel" --until 2026-05-01T06:00Z\n'
    '  svcagent maint enable keyword-suggest --reason "my turn" --replace'
)
@_name
@click.option("--node", is_flag=True, help="This host with all its services (node maintenance).")
@_all
@reason_options("disabled")
@click.option("--replace", is_flag=True, help="Replace another owner's maintenance. The instance stays out of service.")
@click.option(
    "--force",
    is_flag=True,
    help="With --replace: replace also a running reload's. The reload then leaves the instance in maintenance.",
)
@click.option(
    "--guard",
    is_flag=True,
    help="Refuse (exit 75) if no other instance passes its checks. Checked again when maintenance is visible, and "
    "disabled again if another instance went into maintenance at the same moment.",
)
@click.option(
    "--wait-drained",
    is_flag=True,
    help="Wait until the health API and DNS no longer return it and cached DNS answers have expired.",
)
@click.option(
    "--drain-timeout",
    type=context.GoDuration(),
    default="5m",
    show_default=True,
    help="How long --wait-drained may take, including the TTL of DNS answers.",
)
@_wait
@output_options
def enable(
    name: str | None,
    *,
    node: bool,
    every: bool,
    reason: str,
    duration: float | None,
    until: str | None,
    replace: bool,
    force: bool,
    guard: bool,
    wait_drained: bool,
    drain_timeout: float,
    wait: float,
) -> None:
    """Enable maintenance, and return when the catalog shows it.

    If you enabled it before with the same reason, only the end changes. If another owner did, prints the owner and the
    reason, changes no service, and exits 1.

    When it expires, the daemon or the next register, reload or maint expire disables it if the checks pass. Exit code
    69 means that Consul did not answer and the state is unknown: run the same command again. After a failure, prints
    what is in maintenance and how to disable it.
    """
    if force and not replace:
        raise click.UsageError("--force requires --replace: together they replace a running reload's maintenance.")
    clock, interrupts = context.system_clock(), Interrupts()
    now = clock.now()
    end = end_of(duration, until, now)
    settings = context.settings()
    with context.consul(settings) as consul, interrupts.caught():
        with interrupts.allowed():
            agent = consul.agent_self()
            wanted = by_operator(operator(), agent.node, reason, now, end)
            decisions = [
                decide_enable(target, held, wanted, is_replacing=replace, is_forced=force)
                for target, held in with_maintenance(consul, targets_of(consul, agent, name, node=node, every=every))
            ]
            _raise_if_refused(decisions)
            entering = [one.target for one in decisions if one.action is MaintenanceAction.ENABLE]
            warn_if_none_remain(consul, agent.node, entering, is_refusing=guard)
            remembered = dns_cache_seconds(consul, agent, entering, drain_timeout) if wait_drained else 0
        with remaining_maintenance_reported(consul, decisions):
            enable_all(consul, decisions)
            remember(settings, decisions)
            with interrupts.allowed():
                for decision in decisions:
                    await_shown(consul, clock, decision.target, decision.wanted, wait)
            if guard:
                check_again(consul, clock, agent.node, [one for one in decisions if one.target in entering])
            show_enabled(decisions)
            if wait_drained:
                limit = Deadline.after(clock, drain_timeout)
                with interrupts.allowed():
                    await_dns_expiry(consul, clock, agent, [one.target for one in decisions], remembered, limit)
                where = "the health API and DNS" if agent.dns else "the health API (the local agent's DNS is off)"
                show_line(f"drained: {where} no longer return it")
    show_decisions(decisions)


@maint.command(
    epilog="\b\nExamples:\n"
    "  svcagent maint disable keyword-suggest\n"
    "  svcagent maint disable --node\n"
    "  svcagent maint disable keyword-suggest --force    (a reload's; if it has crashed, run svcagent recover instead)"
)
@_name
@click.option(
    "--node", is_flag=True, help="This host's node maintenance. The maintenance of single services is not changed."
)
@_all
@click.option(
    "--force", is_flag=True, help="Disable also a reload's maintenance, whether the instance is ready or not."
)
@_wait
@output_options
def disable(name: str | None, *, node: bool, every: bool, force: bool, wait: float) -> None:
    """Disable maintenance, and return when the catalog shows it.

    Does nothing if none is enabled. If a running reload has enabled maintenance of one of the services, changes no
    service and exits 1. Exit code 69 means that Consul did not answer and the state is unknown: run the same command
    again.
    """
    clock, settings = context.system_clock(), context.settings()
    with context.consul(settings) as consul:
        agent = consul.agent_self()
        decisions = [
            decide_disable(target, held, is_forced=force)
            for target, held in with_maintenance(consul, targets_of(consul, agent, name, node=node, every=every))
        ]
        _raise_if_refused(decisions)
        for one in decisions:
            if one.held is not None and not disable_own_maintenance(consul, one.target, one.held):
                raise Conflict(
                    f"another process changed the maintenance of {one.target} at the same moment; "
                    "run: svcagent maint status",
                    kind="maintenance-changed",
                )
        remember(settings, decisions)
        for one in decisions:
            await_shown(consul, clock, one.target, None, wait)
        [(_host, host_held)] = with_maintenance(consul, [MaintenanceTarget(agent.node)])
    show_decisions(decisions)
    if host_held is not None:
        show_warning(
            f"this host is in maintenance, enabled {described(host_held)}. To disable it: svcagent maint disable --node"
        )


@maint.command(
    epilog="\b\nExamples:\n  svcagent maint status\n  svcagent maint status keyword-suggest\n"
    "  svcagent --json maint status"
)
@_name
@click.option("--node", is_flag=True, help="Only this host, without its services.")
@_all
@output_options
def status(name: str | None, *, node: bool, every: bool) -> None:
    """Show what is in maintenance: owner, start, end and reason.

    The owner is unknown if consul maint or the API enabled it. Without NAME: this host and all its services. The
    host's maintenance is shown with every service, because it applies to all of them.
    """
    clock = context.system_clock()
    if sum((bool(name), node, every)) > 1:
        raise click.UsageError("Give only one of NAME, --node and --all.")
    with context.consul(context.settings()) as consul:
        agent = consul.agent_self()
        targets: list[MaintenanceTarget] = []
        if name:
            targets += targets_of(consul, agent, name, node=False, every=False)
        elif not node:
            targets += [MaintenanceTarget(agent.node, one.id, one.name) for one in consul.services().values()]
        targets.append(MaintenanceTarget(agent.node))
        show_status(with_maintenance(consul, targets), clock.now())


@maint.command(
    epilog="\b\nExamples:\n  svcagent maint expire\n  in /etc/cron.d/svcagent:  * * * * * root svcagent maint expire"
)
@output_options
def expire() -> int:
    """Disable expired maintenance if the checks pass. For cron: prints nothing if nothing has expired.

    If the checks of an instance fail, prints the failing check, keeps the maintenance, and exits 75. register and
    reload do the same for their services and this host.
    """
    with context.consul(context.settings()) as consul:
        ended = end_expired(consul, context.system_clock(), consul.agent_self().node)
    show_expired_maintenance(ended, is_document=True)
    return 0 if all(one.may_be_disabled for one in ended) else TemporaryRefusal.exit_code


def _raise_if_refused(decisions: list[MaintenanceDecision]) -> None:
    refused = [
        f"{one.target} is already in maintenance, enabled {described(one.held)}. {one.remedy}"
        for one in decisions
        if one.action is MaintenanceAction.REFUSE and one.held is not None
    ]
    if refused:
        others = "\nNothing was changed" if len(decisions) > 1 else ""
        raise Conflict("\n".join(refused) + others, kind="maintenance-held")
