"""What the verbs about the whole fleet print: a service's hosts, its pin, its pause, what is quarantined."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

from agent.cli.maint_output import shown
from agent.consul import Instance
from agent.fleet import HostState, Pause, Pin, Quarantine, View, progress
from agent.maintenance import iso, parse
from agent.reload.guard import able_nodes
from agent.text import clean

SHORT_DIGEST = 19
MOST_NAMES = 5

HEADERS = ("HOST", "DIGEST", "TAG", "STATE", "HEALTH", "MAINTENANCE", "SINCE", "ERROR")


@dataclass(frozen=True)
class Row:
    """One host, as a row of the table."""

    host: str
    digest: str
    tag: str
    state: str
    health: str
    maintenance: str
    since: str
    error: str

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of `HEADERS`."""
        return astuple(self)


def rows(service: str, view: View, instances: tuple[Instance, ...]) -> list[Row]:
    """A row for each instance, and one for each host that told something and has none; in order of hosts."""
    found = [_row(service, one.node, one, view.hosts.get(one.node)) for one in instances]
    absent = sorted(view.hosts.keys() - {one.node for one in instances})
    return sorted([*found, *(_row(service, node, None, view.hosts[node]) for node in absent)], key=lambda row: row.host)


def summary(service: str, view: View, instances: tuple[Instance, ...]) -> Iterator[str]:
    """Lines about the service as a whole."""
    if view.pin is not None:
        yield _pin_line(view.pin, view, instances)
    if view.pause is not None:
        yield f"reloads are paused, {view.pause.describe(shown)}; to go on: svcagent resume {service}"
    for entry in view.quarantine.values():
        where = f"it failed on {entry.node} at {shown(entry.since)}: " if entry.since else ""
        yield f"{short(entry.digest)} is quarantined: {where}{first_line(entry.why)}"


def document(service: str, view: View, instances: tuple[Instance, ...]) -> dict[str, Any]:
    """All of it for programs."""
    of_node = {one.node: one for one in instances}
    return {
        "service": service,
        "pin": None if view.pin is None else _pin_document(view.pin, view, instances),
        "pause": pause_document(view.pause),
        "quarantine": [quarantine_document(entry) for entry in view.quarantine.values()],
        "hosts": [
            *(_host_document(one.node, one, view.hosts.get(one.node)) for one in instances),
            *(_host_document(node, None, view.hosts[node]) for node in sorted(view.hosts.keys() - of_node.keys())),
        ],
    }


def pause_document(held: Pause | None) -> dict[str, Any] | None:
    """A pause for programs; None where there is none."""
    if held is None:
        return None
    return {"by": held.by, "host": held.host, "why": held.why, "since": moment(held.since), "until": moment(held.until)}


def quarantine_document(entry: Quarantine) -> dict[str, Any]:
    """One quarantined digest for programs, with the log's last lines."""
    return {
        "digest": entry.digest,
        "host": entry.node,
        "since": moment(entry.since),
        "why": entry.why,
        "image": entry.image,
        "log": entry.log,
    }


def short(digest: str) -> str:
    """So much of a digest that people can tell it from others."""
    return digest[:SHORT_DIGEST] or "-"


def first_line(text: str) -> str:
    """What fits into a table."""
    return clean(next((line for line in text.splitlines() if line.strip()), ""))


def moment(value: datetime | None) -> str | None:
    """For programs: UTC, to the second."""
    return None if value is None else iso(value)


def names(nodes: frozenset[str]) -> str:
    """Some of them by name."""
    listed = sorted(nodes)
    more = f" and {len(listed) - MOST_NAMES} more" if len(listed) > MOST_NAMES else ""
    return ", ".join(listed[:MOST_NAMES]) + more


def _pin_line(pin: Pin, view: View, instances: tuple[Instance, ...]) -> str:
    if pin.problem:
        return f"{pin.problem}; the next rollout replaces it"
    at = progress(pin, view.hosts, able_nodes(instances))
    since = f" at {shown(pin.since)}" if pin.since else ""
    far = f"{len(at.done)} of {len(at.done) + len(at.missing)} hosts run it"
    missing = f", not yet: {names(at.missing)}" if at.missing else ""
    return f"rollout of {pin.image} to {short(pin.digest)}, pinned by {pin.node}{since}: {far}{missing}"


def _pin_document(pin: Pin, view: View, instances: tuple[Instance, ...]) -> dict[str, Any]:
    at = progress(pin, view.hosts, able_nodes(instances))
    return {
        "image": pin.image,
        "digest": pin.digest,
        "host": pin.node,
        "since": moment(pin.since),
        "problem": pin.problem or None,
        "done": sorted(at.done),
        "missing": sorted(at.missing),
    }


def _row(service: str, node: str, instance: Instance | None, state: HostState | None) -> Row:
    is_own_id = instance is None or instance.service_id == service
    return Row(
        host=node if is_own_id or instance is None else f"{node} ({instance.service_id})",
        digest=short(state.digest) if state else "-",
        tag=(state.tag if state else "") or "-",
        state=_state(state),
        health=health(instance),
        maintenance=_maintenance(instance) or "-",
        since=shown(state.since) if state and state.since else "-",
        error=first_line(state.error) if state and state.error else "-",
    )


def _state(state: HostState | None) -> str:
    if state is None:
        return "not told"
    return f"{state.state} ({state.step})" if state.step else state.state


def health(instance: Instance | None) -> str:
    """The worst of its checks, maintenance left out; or that there is no instance."""
    if instance is None:
        return "no instance"
    statuses = {check.status for check in instance.checks if not check.is_maintenance}
    return next((bad for bad in ("critical", "warning") if bad in statuses), "passing")


def _maintenance(instance: Instance | None) -> str:
    held = instance.maintenance if instance is not None else None
    return parse(held.notes).whose if held is not None else ""


def _host_document(node: str, instance: Instance | None, state: HostState | None) -> dict[str, Any]:
    return {
        "host": node,
        "service_id": instance.service_id if instance else None,
        "digest": state.digest if state else None,
        "tag": state.tag if state else None,
        "state": state.state if state else None,
        "step": (state.step or None) if state else None,
        "since": moment(state.since) if state else None,
        "reload": (state.reload or None) if state else None,
        "error": (state.error or None) if state else None,
        "health": health(instance) if instance else None,
        "maintenance": _maintenance(instance) or None,
    }
