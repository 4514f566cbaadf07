"""The metrics of a host: its agent, definitions, maintenance, CNAMEs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent import __version__
from agent.clock import Clock
from agent.consul import NODE_MAINTENANCE, CheckState, LocalService
from agent.maintenance import Maintenance, OwnerKind, parse
from agent.metrics.series import SeriesGroup

IN_PLACE = "in place"


@dataclass(frozen=True)
class MaintenanceSample:
    """A service in maintenance; the host itself if ``service`` is empty.

    ``owner`` is a user name, ``svcagent reload``, or ``unknown``. ``since`` is in seconds since the epoch, if known.
    """

    service: str
    owner: str
    since: float | None

    @classmethod
    def of(cls, service: str, it: Maintenance) -> "MaintenanceSample":
        # A reload's ID in a label would create a series for each reload.
        owners = {OwnerKind.OPERATOR: it.owner, OwnerKind.RELOAD: "svcagent reload", OwnerKind.UNKNOWN: "unknown"}
        return cls(service, owners[it.kind], it.since.timestamp() if it.since else None)


def held_maintenance(services: Iterable[LocalService], checks: Mapping[str, CheckState]) -> list[MaintenanceSample]:
    found = [*((one.name, one.maintenance) for one in services), ("", checks.get(NODE_MAINTENANCE))]
    return [MaintenanceSample.of(service, parse(check.notes)) for service, check in found if check is not None]


class HostSeries(SeriesGroup):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._series("svcagent_build_info", "The version of svcagent.", "version", lasting=False).set(1, __version__)
        self._consul = self._series("svcagent_consul_up", "1 if the local Consul agent answers.")
        self._converged = self._series(
            "svcagent_last_convergence_timestamp_seconds",
            "When the local Consul agent was last made to hold what services.d says.",
        )
        self._refused = self._series(
            "svcagent_registrations_refused", "Services that another owner registered and that were not changed."
        )
        self._consent = self._series(
            "svcagent_consent_needed",
            "1 while services stay registered as they are until an operator runs svcagent register --allow-removals.",
        )
        self._faults = self._series("svcagent_definition_faults", "Faults in a file of definitions.", "file")
        self._maintenance = self._series(
            "svcagent_maintenance_since_timestamp_seconds",
            "Since when a service (the host itself if empty) is in maintenance, or was first seen so.",
            "service",
            "owner",
        )

    def consul(self, *, is_up: bool) -> None:
        self._consul.set(is_up)

    def faulty(self, faults: Mapping[str, int]) -> None:
        """Replace the number of faults by file."""
        self._faults.values = {(file,): count for file, count in sorted(faults.items()) if count}

    def consent(self, *, is_needed: bool) -> None:
        self._consent.set(is_needed)

    def converged(self, held: Iterable[MaintenanceSample], refused: int, *, needs_consent: bool = False) -> None:
        """Record a completed convergence. ``refused`` counts services that others registered."""
        self.consent(is_needed=needs_consent)
        now = self._now()
        self._converged.set(now)
        self._refused.set(refused)
        since: dict[tuple[str, ...], float] = {}
        for one in held:
            labels = (one.service, one.owner)
            known = self._maintenance.values.get(labels, now) if one.since is None else one.since
            since[labels] = min(known, since.get(labels, known))  # a service may have two instances here
        self._maintenance.values = since


class CnameSeries(SeriesGroup):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._state = self._series(
            "svcagent_cname_state", "The state of a CNAME: 1 for the current one.", "record", "state"
        )
        self._synced = self._series("svcagent_cname_last_sync_timestamp_seconds", "When CNAMEs were last looked after.")

    def synced(self, document: Mapping[str, Any], *, is_all: bool = True) -> None:
        """Update from the document of ``svcagent --json cname sync``. ``is_all`` is False if records were named."""
        if "records" not in document or document.get("dry_run"):
            return
        if is_all:
            self._state.values = {}
        for one in document["records"]:
            self._state.forget(one["record"])
            self._state.set(1, one["record"], IN_PLACE if one["is_done"] else one["outcome"])
        self._synced.set(self._now())
