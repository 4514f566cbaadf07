import re
import shlex
from collections.abc import Collection
from datetime import datetime
from typing import Any

import click

from agent.cli import context
from agent.cli.fleet_input import lock_prefix_of, service_of
from agent.cli.fleet_output import first_line, quarantine_document, suspect_document
from agent.cli.maint_input import operator
from agent.cli.maint_output import shown
from agent.cli.options import current, output_options
from agent.cli.output import show_document, show_line, show_table
from agent.consul import Consul
from agent.data import dataclass
from agent.definitions import Settings
from agent.fleet import HostState, Quarantine, rollout, services, suspect
from agent.fleet import quarantine as quarantines

_FULL = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Blocked:
    """A version that no host takes: quarantined, or suspect on one host."""

    service: str
    cause: Quarantine | HostState

    @property
    def digest(self) -> str:
        return self.cause.digest if isinstance(self.cause, Quarantine) else self.cause.wanted

    @property
    def since(self) -> datetime | None:
        """When it failed, or when the last step of the lost reload began."""
        return self.cause.since

    @property
    def why(self) -> str:
        if isinstance(self.cause, Quarantine):
            return first_line(self.cause.why)
        return suspect.what_happened(self.cause)

    @property
    def image(self) -> str:
        return self.cause.image if isinstance(self.cause, Quarantine) else ""

    def document(self) -> dict[str, Any]:
        if isinstance(self.cause, Quarantine):
            return {"service": self.service, "kind": "quarantined", **quarantine_document(self.cause)}
        fields = {**suspect_document(self.cause), "why": self.why, "image": "", "log": ""}
        return {"service": self.service, "kind": "suspect", **fields}

    def clear(self, consul: Consul) -> bool:
        """Remove what blocks the version. Return False if that changed or disappeared meanwhile."""
        if isinstance(self.cause, Quarantine):
            return quarantines.clear(consul, self.service, self.digest) is not None
        return suspect.clear(consul, self.service, self.cause)


def _blocked(settings: Settings, consul: Consul, service: str) -> list[Blocked]:
    quarantined = [Blocked(service, entry) for entry in quarantines.read_all(consul, service).values()]
    vanished = suspect.find_all_suspects(consul, service, lock_prefix_of(settings, service))
    return [*quarantined, *(Blocked(service, state) for state in vanished)]


@click.group(
    epilog="\b\nExamples:\n"
    "  svcagent quarantine list\n"
    "  svcagent quarantine list keyword-suggest\n"
    "  svcagent quarantine clear keyword-suggest sha256:4f53cda1"
)
def quarantine() -> None:
    """Show and clear versions that no host takes: quarantined because they failed, or suspect."""


@quarantine.command("list", epilog="\b\nExamples:\n  svcagent quarantine list\n  svcagent quarantine list --json")
@click.argument("name", required=False, shell_complete=context.complete_name)
@output_options
def list_(name: str | None) -> None:
    """Show quarantined and suspect digests with host, time and cause.

    A digest is quarantined if it failed on a host where the old version then passed the same checks. It is suspect
    while the host or process that reloaded to it has disappeared, or is still out of service. With NAME, also prints
    the last lines of the failed container if [log] share_tails is on; they are also in that host's log. Without NAME:
    all services in Consul.
    """
    settings = context.settings()
    with context.consul(settings) as consul:
        chosen = [service_of(settings, consul, name)] if name else services(consul)
        found = [blocked for one in chosen for blocked in _blocked(settings, consul, one)]
    if current().as_json:
        show_document([one.document() for one in found])
        return
    if not found:
        show_line("nothing is quarantined or suspect")
        return
    show_table(
        ("SERVICE", "DIGEST", "HOST", "SINCE", "IMAGE", "WHY"),
        [
            (
                one.service,
                one.digest,
                one.cause.node or "-",
                shown(one.since) if one.since else "-",
                one.image or "-",
                one.why or "-",
            )
            for one in found
        ],
    )
    for one in found:
        if name and isinstance(one.cause, Quarantine) and one.cause.log:
            show_line(f"\nLast lines of {one.digest} on {one.cause.node}:")
            for line in one.cause.log.splitlines():
                show_line(f"  {line}")


@quarantine.command(
    epilog="\b\nExamples:\n"
    "  svcagent quarantine clear keyword-suggest\n"
    "  svcagent quarantine clear keyword-suggest 4f53cda1\n"
    "  svcagent quarantine clear keyword-suggest --all"
)
@click.argument("name", shell_complete=context.complete_name)
@click.argument("digest", required=False)
@click.option("--all", "every", is_flag=True, help="All digests of NAME.")
@output_options
def clear(name: str, digest: str | None, *, every: bool) -> None:
    """Let hosts take a quarantined or suspect digest of NAME again.

    An unambiguous prefix of DIGEST is enough; omit it if there is only one. The next reload takes the digest if the tag
    still points to it or its rollout is in progress. A suspect version is cleared automatically when its host has
    recovered; clear it here if that host does not return and the version is not at fault.
    """
    if digest and every:
        raise click.UsageError("Give a DIGEST or --all, not both.")
    settings = context.settings()
    with context.consul(settings) as consul:
        service = service_of(settings, consul, name)
        there = _blocked(settings, consul, service)
        digests = {one.digest for one in there}
        chosen = digests if every else _chosen(service, digest, digests)
        cleared = [one for one in there if one.digest in chosen and one.clear(consul)]
        pin = rollout.find(consul, service)[0] if cleared else None
    by = operator()
    if current().as_json:
        show_document([{**one.document(), "by": by} for one in cleared])
    for one in cleared:
        show_line(f"{service}: {one.digest} was cleared by {by}; {_was(one)}")
    if pin is not None and any(one.digest == pin.digest for one in cleared):
        show_line(
            f"{service}: the rollout of this digest continues, even if {pin.image} has a newer one. "
            f"To take what the tag points to instead, run: {shlex.join(['svcagent', 'reload', service, '--force'])}"
        )
    if not cleared:
        show_line(
            f"{service}: {digest} is neither quarantined nor suspect" if digest else f"{service}: nothing to clear"
        )


def _chosen(service: str, digest: str | None, there: Collection[str]) -> set[str]:
    if not digest and len(there) <= 1:
        return set(there)
    if not digest:
        raise click.UsageError(f"Give a DIGEST or --all; quarantined of {service}: {', '.join(sorted(there))}")
    begin = digest if ":" in digest else f"sha256:{digest}"
    matching = sorted(one for one in there if one.startswith(begin))
    if len(matching) > 1:
        raise click.BadParameter(f"{digest!r} matches several digests: {', '.join(matching)}", param_hint="DIGEST")
    if not matching and not _FULL.fullmatch(begin):
        names = ", ".join(sorted(there)) or "none"
        raise click.BadParameter(
            f"no quarantined digest of {service} begins with {digest!r}; quarantined: {names}", param_hint="DIGEST"
        )
    return set(matching)


def _was(blocked: Blocked) -> str:
    since = f" at {shown(blocked.since)}" if blocked.since else ""
    if not isinstance(blocked.cause, Quarantine):
        return f"cause: {blocked.why}"
    return f"it failed on {blocked.cause.node}{since}: {blocked.why}" if since else f"cause: {blocked.why}"
