"""What the verbs about the fleet print: a service's hosts, pin, pause, and quarantined versions."""

import shlex
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from agent.cli.maint_output import shown
from agent.consul import Instance
from agent.data import dataclass
from agent.fleet import FleetView, HostState, InstanceKey, Pause, Pin, Quarantine, progress, state_of, suspect
from agent.maintenance import iso, parse
from agent.reload.guard import able_instances
from agent.text import clean, counted, short_digest

HEADERS = ("HOST", "DIGEST", "TAG", "STATE", "HEALTH", "MAINTENANCE", "SINCE", "ERROR")


@dataclass(frozen=True)
class ShownFleet:
    """What is shown of a service on all hosts."""

    service: str
    view: FleetView
    instances: tuple[Instance, ...]
    suspects: Collection[HostState]


@dataclass(frozen=True)
class ListedInstance:
    """One instance from the catalog, from a host's document, or from both."""

    node: str
    service_id: str
    instance: Instance | None
    state: HostState | None
    is_suspect: bool

    def label(self, service: str) -> str:
        """Return the host's name, with the service's ID if that differs from the service's name."""
        is_own_id = self.service_id.lower() in ("", service.lower())
        return self.node if is_own_id else f"{self.node} ({self.service_id})"


def rows(fleet: ShownFleet) -> list[tuple[str, ...]]:
    """Return a row for each instance, and one for each document without an instance, ordered by host."""
    return sorted((_row(fleet.service, one) for one in _listed(fleet)), key=lambda row: row[0])


def summary(fleet: ShownFleet) -> Iterator[str]:
    view = fleet.view
    if view.pin is not None:
        yield _pin_line(view.pin, fleet)
    if view.pause is not None:
        resume = shlex.join(["svcagent", "resume", fleet.service])
        yield f"reloads are paused, {view.pause.describe(shown)}; to resume: {resume}"
    for entry in view.quarantine.values():
        where = f"it failed on {entry.node} at {shown(entry.since)}: " if entry.since else ""
        yield f"{short(entry.digest)} is quarantined: {where}{first_line(entry.why)}"
    for one in fleet.suspects:
        yield f"{suspect.what_happened(one)}. To resolve it: {suspect.what_to_do(fleet.service, one)}"


def document(fleet: ShownFleet) -> dict[str, Any]:
    view = fleet.view
    return {
        "service": fleet.service,
        "pin": None if view.pin is None else _pin_document(view.pin, fleet),
        "pause": pause_document(view.pause),
        "quarantine": [quarantine_document(entry) for entry in view.quarantine.values()],
        "suspects": [suspect_document(one) for one in fleet.suspects],
        "hosts": [_host_document(one) for one in _listed(fleet)],
    }


def _listed(fleet: ShownFleet) -> list[ListedInstance]:
    hosts, vanished = fleet.view.hosts, {(one.node, one.service_id) for one in fleet.suspects}
    by_key: dict[InstanceKey, Instance | None] = {(one.node, one.service_id): one for one in fleet.instances}
    known = by_key.keys() | {(one.node, "") for one in fleet.instances}
    by_key |= dict.fromkeys(sorted(hosts.keys() - known))
    return [
        ListedInstance(*key, found, state_of(hosts, key) if found else hosts[key], key in vanished)
        for key, found in by_key.items()
    ]


def suspect_document(state: HostState) -> dict[str, Any]:
    return {
        "digest": state.wanted,
        "host": state.node,
        "service_id": state.service_id or None,
        "step": state.step,
        "since": moment(state.since),
        "reload": state.reload or None,
    }


def pause_document(held: Pause | None) -> dict[str, Any] | None:
    if held is None:
        return None
    return {"by": held.by, "host": held.host, "why": held.why, "since": moment(held.since), "until": moment(held.until)}


def quarantine_document(entry: Quarantine) -> dict[str, Any]:
    return {
        "digest": entry.digest,
        "host": entry.node,
        "since": moment(entry.since),
        "why": entry.why,
        "image": entry.image,
        "log": entry.log,
    }


def short(digest: str) -> str:
    return short_digest(digest) or "-"


def first_line(text: str) -> str:
    return clean(next((line for line in text.splitlines() if line.strip()), ""))


def moment(value: datetime | None) -> str | None:
    return None if value is None else iso(value)


def _pin_line(pin: Pin, fleet: ShownFleet) -> str:
    if pin.problem:
        return f"{pin.problem}. The next rollout replaces it"
    at = progress(pin, fleet.view.hosts, able_instances(fleet.instances))
    since = f" at {shown(pin.since)}" if pin.since else ""
    far = f"{len(at.hosts_done)} of {counted(len(at.hosts_done | at.hosts_missing), 'host')} run it"
    missing = f", not yet: {at.waits_for}" if at.missing else ""
    return f"rollout of {pin.image} to {short(pin.digest)}, pinned by {pin.node}{since}: {far}{missing}"


def _pin_document(pin: Pin, fleet: ShownFleet) -> dict[str, Any]:
    at = progress(pin, fleet.view.hosts, able_instances(fleet.instances))
    return {
        "image": pin.image,
        "digest": pin.digest,
        "host": pin.node,
        "since": moment(pin.since),
        "problem": pin.problem or None,
        "done": sorted(at.hosts_done),
        "missing": sorted(at.hosts_missing),
    }


def _row(service: str, listed: ListedInstance) -> tuple[str, ...]:
    state = listed.state
    return (
        listed.label(service),
        short(state.digest) if state else "-",
        (state.tag if state else "") or "-",
        _state(listed),
        health(listed.instance),
        _maintenance(listed.instance) or "-",
        shown(state.since) if state and state.since else "-",
        first_line(state.error) if state and state.error else "-",
    )


def _state(listed: ListedInstance) -> str:
    state = listed.state
    if state is None:
        return "unknown"
    name = "suspect" if listed.is_suspect else state.state
    return f"{name} ({state.current_step})" if state.current_step else name


def health(instance: Instance | None) -> str:
    """Return the worst status of its checks, without maintenance, or that there is no instance."""
    if instance is None:
        return "no instance"
    statuses = {check.status for check in instance.checks if not check.is_maintenance}
    return next((bad for bad in ("critical", "warning") if bad in statuses), "passing")


def _maintenance(instance: Instance | None) -> str:
    held = instance.maintenance if instance is not None else None
    return parse(held.notes).whose if held is not None else ""


def _host_document(listed: ListedInstance) -> dict[str, Any]:
    instance, state = listed.instance, listed.state
    return {
        "host": listed.node,
        "service_id": listed.service_id or None,
        "digest": state.digest if state else None,
        "tag": state.tag if state else None,
        "state": state.state if state else None,
        "step": (state.current_step or None) if state else None,
        "since": moment(state.since) if state else None,
        "reload": (state.reload or None) if state else None,
        "wanted": (state.wanted or None) if state else None,
        "settled": state.is_settled if state else None,
        "suspect": listed.is_suspect,
        "verdict": (state.verdict or None) if state else None,
        "seen": moment(state.last_seen) if state else None,
        "error": (state.error or None) if state else None,
        "health": health(instance) if instance else None,
        "maintenance": _maintenance(instance) or None,
    }
