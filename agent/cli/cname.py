from collections.abc import Sequence
from functools import partial

import click

from agent.cli import context
from agent.cli.cname_context import CnameContext, cname_context, complete_record, find_zone
from agent.cli.cname_output import results_document, show_reports, show_results
from agent.cli.options import current, output_options
from agent.cli.output import show_warning
from agent.cli.textfile import record_cnames
from agent.cname import RecordOutcome, SyncResult
from agent.errors import DnsUnreachable

_names = click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_record)
_force = click.option(
    "--force", is_flag=True, help="Publish a record also if Consul DNS returns no instance for its target."
)


@click.group(
    epilog="\b\nExamples:\n"
    "  svcagent cname plan\n"
    "  svcagent cname sync\n"
    "  svcagent cname status\n"
    "In cron, on every host: svcagent cname sync"
)
def cname() -> None:
    """Manage CNAMEs in the organisation's DNS that point to services' Consul DNS names.

    Every host may run it at any time: hosts with the same definition write once, and of different definitions the one
    with the higher gen wins. A TXT record marks what svcagent publishes; records without it are never changed. NAME is
    the name of a record, or of the service that it points to. Files with faults are left out (exit code 78; with NAME
    only if NAME is in one of them).
    """


@cname.command(epilog="\b\nExamples:\n  svcagent cname plan\n  svcagent --json cname plan chocon")
@_names
@_force
@output_options
def plan(names: tuple[str, ...], *, force: bool) -> int:
    """Show what sync would do to every record. Changes nothing.

    For records that sync would write, also checks the rights of the key.
    """
    with cname_context(names) as here:
        results = here.sync.plan(here.wanted, is_forced=force)
    return show_results(results, is_plan=True)


@cname.command(
    epilog="\b\nExamples:\n  svcagent cname sync\n  svcagent cname sync --dry-run\n"
    "  svcagent cname sync '*.ccnproxy-https.' --force"
)
@_names
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing (same as plan).")
@_force
@click.option(
    "--wait",
    type=context.GoDuration(),
    default="10s",
    show_default=True,
    help="After a change, how long to wait for the zone's other servers; the late ones are reported.",
)
@output_options
def sync(names: tuple[str, ...], *, dry_run: bool, force: bool, wait: float) -> int:
    """Publish the records that services.d defines. Prints nothing if all are in place.

    Never writes a record because a check changed, and never removes one. A record of another owner, or another
    definition with the same gen, is a conflict (exit 1).
    """
    with cname_context(names) as here:
        if dry_run:
            return show_results(here.sync.plan(here.wanted, is_forced=force), is_plan=True)
        results = here.sync.sync(here.wanted, is_forced=force)
        late = _late(here, results, wait)
        notify_of_conflicts(here, results)
    record_cnames(results_document(results, is_plan=False), is_all=not names)
    return show_results(results, is_plan=False, late=late)


@cname.command(epilog="\b\nExamples:\n  svcagent cname status\n  svcagent --json cname status chocon")
@_names
@output_options
def status(names: tuple[str, ...]) -> int:
    """Show what clients see: records on all servers, and addresses.

    Queries every server of the zone for the record, and the resolver down to addresses. Requires no key. Exits 1 if a
    server lacks the record or is behind, or if the resolver returns an address where no instance passes; 69 if the
    only problem is that a server does not answer.
    """
    from agent.cname import verify, zones

    reports = []
    with cname_context(names) as here:
        resolver = zones.resolver(here.dns)
        for one in here.wanted:
            servers = verify.observe_servers(zones.authority(here.dns), resolver, one)
            clients = verify.observe_clients(resolver, one)
            reports.append(verify.report(one, servers, clients, here.consul.instances(one.service)[1]))
    show_reports(reports)
    wrong = [one for one in reports if one.problems]
    return 0 if not wrong else DnsUnreachable.exit_code if all(one.is_silent for one in wrong) else 1


@cname.command(epilog="\b\nExamples:\n  svcagent cname adopt '*.ccnproxy-https.'\n  svcagent cname adopt chocon")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_record)
@output_options
def adopt(names: tuple[str, ...]) -> int:
    """Let svcagent manage an existing record, by adding the marker.

    The record must match its definition. Any other record is reported and not changed (exit 1).
    """
    with cname_context(names) as here:
        results = here.sync.adopt(here.wanted)
    return show_results(results, is_plan=False)


@cname.command(
    epilog="\b\nExamples:\n  svcagent cname remove '*.ccnproxy-https.'\n"
    "  svcagent cname remove www.example.com. --owner web/production/dc1"
)
@click.argument("name", shell_complete=complete_record)
@click.option("--owner", metavar="OWNER", help="The expected owner, if no definition on this host has the record.")
@click.option("--zone", metavar="ZONE", help="The zone of the record, if no definition on this host has it.")
@output_options
def remove(name: str, *, owner: str | None, zone: str | None) -> int:
    """Remove a record that svcagent published, if it is unchanged since.

    NAME is the complete name of the record, or a service that one record points to. Remove it from the definitions of
    all hosts first; otherwise the next sync of such a host publishes it again.
    """
    with cname_context((name,), is_lenient=True) as here:
        result = _removed(here, name, owner, zone)
    return show_results([result], is_plan=False)


def _removed(here: CnameContext, name: str, owner: str | None, zone: str | None) -> SyncResult:
    from agent.cname.marker import place
    from agent.definitions import InvalidValue, complete, record_name, zone_finding

    if len(here.wanted) > 1:
        raise click.BadParameter(
            f"{name} has several records: {', '.join(one.name for one in here.wanted)}. Give one of these names"
        )
    for defined in here.wanted:
        return here.sync.remove(defined.place, defined.provider, owner, defined)
    try:
        full = record_name(name, zone)
    except InvalidValue as wrong:
        raise click.BadParameter(str(wrong)) from wrong
    found = complete(zone) if zone else find_zone(here.dns, full)
    if finding := zone_finding(full, found):
        raise click.BadParameter(finding.problem)
    return here.sync.remove(place(found, full), here.dns.provider, owner, None)


def notify_of_conflicts(here: CnameContext, results: Sequence[SyncResult]) -> None:
    """Notify of conflicts of this host's records: one notice per conflict and fleet, until the record is in place.

    Only a record that is in place, uncontested, ends its conflict. For example, a record may yield to a newer
    generation while two hosts contend.
    """
    if not context.settings().notify.urls:
        return
    from agent.notify import sent  # most hosts send no notifications
    from agent.notify.delivery import Deliveries
    from agent.notify.notices import Notice, conflict, due_conflict

    deliveries = Deliveries("cname sync", context.system_clock(), current().config, show_warning)
    found: list[Notice] = []
    for one in results:
        name, wanted, is_conflict = one.place.name, one.wanted, one.outcome is RecordOutcome.CONFLICT
        if wanted is None or not (is_conflict or one.outcome is RecordOutcome.IN_PLACE):
            continue
        notice = conflict(wanted.service, name, wanted.owner, one.why, here.agent.node) if is_conflict else None
        where = sent.place(wanted.service, name)
        with deliveries.failures_reported(f"{name}: notification of its conflict not sent", record=name):
            found += sent.take(here.consul, where, partial(due_conflict, notice, wanted.owner))
    deliveries.send(found)
    deliveries.wait()


def _late(here: CnameContext, results: tuple[SyncResult, ...], wait: float) -> dict[str, list[str]]:
    written = [one.wanted for one in results if one.is_done and one.wanted is not None]
    if not written:
        return {}
    from agent.cname import verify, zones

    authority, resolver = zones.authority(here.dns), zones.resolver(here.dns)
    late: dict[str, list[str]] = {}
    for one in written:
        try:
            views = verify.await_secondaries(authority, resolver, one, context.system_clock(), wait)
        except DnsUnreachable as error:
            late[one.name] = [str(error)]
            continue
        if views:
            late[one.name] = [view.line for view in views]
    return late
