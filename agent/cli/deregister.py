from collections.abc import Iterable, Mapping, Sequence

import click

from agent.cli import context
from agent.cli.options import current, output_options
from agent.cli.output import show_bug_of, show_document, show_line, show_warning
from agent.cli.registration_output import exit_code, failure_document, keep, show_failures
from agent.consul import Consul, LocalService
from agent.daemon.status import read_status
from agent.definitions import Settings
from agent.errors import TemporaryRefusal
from agent.registration import Change, ChangeAction, CollectedFailures, Failure, apply_change, make_removal
from agent.reload.host_lock import HostLock
from agent.text import quoted_command


@click.command(epilog="Examples: svcagent deregister keyword-suggest; svcagent deregister --all --dry-run")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=context.complete_name)
@click.option("--all", "is_all", is_flag=True, help="Everything that svcagent registered on this host.")
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and change nothing.")
@output_options
def deregister(names: tuple[str, ...], *, is_all: bool, dry_run: bool) -> int:
    """Remove services that svcagent registered from the local Consul agent.

    Services that svcagent did not register are reported and not changed. A name that is not registered is no error.
    While the daemon runs, a service that a definition still defines is refused with exit code 75, because the daemon
    would register it again within a second. So is a service that a reload on this host is replacing, and any removal
    while it is unknown whether the daemon runs.
    """
    if bool(names) == is_all:
        raise click.UsageError("Name the services to deregister, or give --all.")
    settings = context.settings()
    with context.consul(settings) as consul:
        expected = {name: name for name in names} or _defined(settings, consul)
        failures: tuple[Failure, ...] = ()
        services = consul.services(expected)
        plan = make_removal(services, frozenset(names))
        _warn_of_faults(settings, plan, services)
        if not dry_run:
            _refuse_defined_services(settings, plan)
            _refuse_reloading_services(settings, plan)
            done: list[Change] = []
            failures = _remove(consul, plan, done)
            keep(settings, lambda last: last.after_changes(done))
    failed = {one.service_id for one in failures}
    if current().as_json:
        changes = [{"service": one.service_id, "action": str(one.action), "why": one.why} for one in plan]
        show_document({"dry_run": dry_run, "changes": changes} | failure_document(failures))
    show_failures(plan, failures)
    for change in plan:
        if change.action is not ChangeAction.REFUSE and change.service_id not in failed:
            show_line(f"{change.service_id}: {'would be deregistered' if dry_run else 'deregistered'}")
    there = {known for one in services.values() for known in (one.id, one.name)}
    for name in names:
        if name not in there:
            show_warning(f"{name} is not registered on this host{context.did_you_mean(name, there)}")
    if not plan:
        show_line("nothing to deregister" + ("" if expected else ", as far as the Consul token may see"))
    return exit_code(plan, failures)


def _remove(consul: Consul, plan: Iterable[Change], done: list[Change]) -> tuple[Failure, ...]:
    failures = CollectedFailures(show_bug_of)
    for change in plan:
        with failures.collected(change.service_id):
            if apply_change(consul, change, lambda _check: "critical"):
                done.append(change)
    return tuple(failures.found)


def _refuse_defined_services(settings: Settings, plan: Sequence[Change]) -> None:
    """Refuse to remove what the daemon would register again.

    :raises TemporaryRefusal: the daemon runs, and an active definition defines one of the services, or that is unknown;
        nothing was changed.
    """
    removed = [one.service_id for one in plan if one.action is ChangeAction.REMOVE]
    status = read_status(settings, context.system_clock())
    if status.is_unknown and removed:
        raise TemporaryRefusal(
            f"nothing was changed: a running daemon could register {', '.join(removed)} again, and whether one runs "
            f"is {status.problem}. If none runs, remove that file",
            kind="daemon-unknown",
        )
    daemon = status.document
    if daemon is None:
        return
    defined = frozenset(daemon.get("service_ids", ()))
    back = [one for one in removed if one in defined]
    if back:
        raise TemporaryRefusal(
            f"nothing was changed: {settings.services_dir} defines {', '.join(back)}, and the daemon (pid "
            f"{daemon['pid']}) would register that again within a second. Remove the definition, and the daemon "
            "deregisters the service; or stop the daemon first: systemctl stop svcagent",
            kind="still-defined",
        )


def _refuse_reloading_services(settings: Settings, plan: Iterable[Change]) -> None:
    """Refuse to remove a service that a reload is about to return to service.

    :raises TemporaryRefusal: such a reload runs on this host; nothing was changed.
    """
    for change in plan:
        holder = HostLock(settings.state_dir, change.service_id, context.system_clock(), 0.0).holder()
        if change.action is ChangeAction.REMOVE and holder is not None:
            watch = quoted_command(["svcagent", "status", change.service_id])
            raise TemporaryRefusal(
                f"nothing was changed: a reload of {change.service_id} is running (pid {holder}). Try again when it "
                f"has ended; to watch it, run: {watch}",
                kind="reload-running",
            )


def _warn_of_faults(settings: Settings, plan: Iterable[Change], services: Mapping[str, LocalService]) -> None:
    """Warn of services that a file with errors may define: register and the daemon register them again afterwards."""
    loaded = context.definitions_without_agent(settings)
    defined = {service.id for one in loaded.definitions for service in one.services}
    for change in plan:
        found = services.get(change.service_id)
        if change.action is not ChangeAction.REMOVE or found is None or found.id in defined:
            continue
        if files := loaded.files_in_doubt(found.id, found.name):
            show_warning(
                f"{found.id}: {', '.join(files)} may define it and has errors. When that file is corrected, "
                "svcagent registers the service again",
                service=found.id,
            )


def _defined(settings: Settings, consul: Consul) -> dict[str, str]:
    """Return the services of services.d by ID, to detect that the token hides them."""
    found = context.good_definitions(settings, lambda: consul.agent_self().address)
    return {service.id: service.name for definition in found.definitions for service in definition.services}
