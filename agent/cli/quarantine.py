"""``svcagent quarantine``."""

import re
from collections.abc import Collection

import click

from agent.cli import wiring
from agent.cli.fleet_input import service_of
from agent.cli.fleet_output import first_line, quarantine_document
from agent.cli.maint_output import shown
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_table
from agent.fleet import Quarantine, services
from agent.fleet import quarantine as quarantines

_FULL = re.compile(r"sha256:[0-9a-f]{64}")


@click.group(
    epilog="\b\nExamples:\n"
    "  svcagent quarantine list\n"
    "  svcagent quarantine list keyword-suggest\n"
    "  svcagent quarantine clear keyword-suggest sha256:4f53cda1"
)
def quarantine() -> None:
    """Show and clear images that no host takes, because they failed on one."""


@quarantine.command("list", epilog="\b\nExamples:\n  svcagent quarantine list\n  svcagent quarantine list --json")
@click.argument("name", required=False, shell_complete=wiring.complete_name)
@output_options
def list_(name: str | None) -> None:
    """Show which digests failed, on which host, when and why.

    With NAME also the last lines that each one's container printed. Without: of all services that Consul knows.
    """
    settings = wiring.settings()
    with wiring.consul(settings) as consul:
        chosen = [service_of(settings, consul, name)] if name else services(consul)
        found = [(one, entry) for one in chosen for entry in quarantines.read_all(consul, one).values()]
    if current().as_json:
        show_document([{"service": service, **quarantine_document(entry)} for service, entry in found])
        return
    if not found:
        show_line("nothing is quarantined")
        return
    show_table(
        ("SERVICE", "DIGEST", "HOST", "SINCE", "IMAGE", "WHY"),
        [
            (
                service,
                entry.digest,
                entry.node or "-",
                shown(entry.since) if entry.since else "-",
                entry.image or "-",
                first_line(entry.why) or "-",
            )
            for service, entry in found
        ],
    )
    for _service, entry in found:
        if name and entry.log:
            show_line(f"\nthe last lines of {entry.digest} on {entry.node}:")
            for line in entry.log.splitlines():
                show_line(f"  {line}")


@quarantine.command(
    epilog="\b\nExamples:\n"
    "  svcagent quarantine clear keyword-suggest\n"
    "  svcagent quarantine clear keyword-suggest 4f53cda1\n"
    "  svcagent quarantine clear keyword-suggest --all"
)
@click.argument("name", shell_complete=wiring.complete_name)
@click.argument("digest", required=False)
@click.option("--all", "every", is_flag=True, help="Every digest of NAME.")
@output_options
def clear(name: str, digest: str | None, *, every: bool) -> None:
    """Let hosts take a digest of NAME again that was quarantined.

    The first part of a digest is enough if no other begins with it, and none is needed where there is only one.
    Not quarantined: nothing to do. If its tag still stands for it, the next reload takes it again.
    """
    if digest and every:
        raise click.UsageError("Give a DIGEST or --all, not both.")
    settings = wiring.settings()
    with wiring.consul(settings) as consul:
        service = service_of(settings, consul, name)
        there = quarantines.read_all(consul, service)
        chosen = sorted(there) if every else _chosen(service, digest, there)
        cleared = [entry for one in chosen if (entry := quarantines.clear(consul, service, one)) is not None]
    if current().as_json:
        show_document([{"service": service, **quarantine_document(entry)} for entry in cleared])
    for entry in cleared:
        show_line(f"{service}: {entry.digest} is free again; {_was(entry)}")
    if not cleared:
        show_line(f"{service}: {digest or 'nothing'} is not quarantined" if digest else f"{service}: nothing to clear")


def _chosen(service: str, digest: str | None, there: Collection[str]) -> list[str]:
    """The one that is meant, none if it is not there. A usage error where that is not clear."""
    if not digest and len(there) <= 1:
        return list(there)
    if not digest:
        raise click.UsageError(f"Give a DIGEST or --all; quarantined of {service}: {', '.join(sorted(there))}")
    begin = digest if ":" in digest else f"sha256:{digest}"
    matching = sorted(one for one in there if one.startswith(begin))
    if len(matching) > 1:
        raise click.BadParameter(f"{digest!r} begins more than one: {', '.join(matching)}", param_hint="DIGEST")
    if not matching and not _FULL.fullmatch(begin):
        names = ", ".join(sorted(there)) or "none"
        raise click.BadParameter(
            f"no quarantined digest of {service} begins with {digest!r}; there is: {names}", param_hint="DIGEST"
        )
    return matching


def _was(entry: Quarantine) -> str:
    where = f"it had failed on {entry.node} at {shown(entry.since)}" if entry.since else "before"
    return f"{where}: {first_line(entry.why)}"
