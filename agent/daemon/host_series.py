"""What Prometheus is told of a host: its agent, definitions, maintenance, CNAMEs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent import __version__
from agent.clock import Clock
from agent.consul import NODE_MAINTENANCE, CheckState, LocalService
from agent.daemon.series import Family, Series
from agent.maintenance import Maintenance, OwnerKind, parse

IN_PLACE = "in place"


@dataclass(frozen=True)
class Held:
    """A service, or the host itself if ``service`` is empty, that is in maintenance.

    ``owner``: a user name, ``svcagent reload``, or ``unknown``. ``since``: seconds since the epoch, if anybody knows.
    """

    service: str
    owner: str
    since: float | None


def held_by(services: Iterable[LocalService], checks: Mapping[str, CheckState]) -> tuple[Held, ...]:
    """The maintenances that the local agent holds, from what it says of its services and of all checks."""
    found = [(one.name, one.maintenance) for one in services]
    found.append(("", checks.get(NODE_MAINTENANCE)))
    return tuple(held_of(service, parse(check.notes)) for service, check in found if check is not None)


def held_of(service: str, it: Maintenance) -> Held:
    """One of them."""
    # A reload's id in a label would be a new series for each reload.
    owner = {OwnerKind.OPERATOR: it.owner, OwnerKind.RELOAD: "svcagent reload", OwnerKind.UNKNOWN: "unknown"}[it.kind]
    return Held(service, owner, it.since.timestamp() if it.since else None)


class HostSeries:
    """Of this host as a whole."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._build = Series("svcagent_build_info", "The version of svcagent.", ("version",))
        self._build.set(1, __version__)
        self._consul = Series("svcagent_consul_up", "1 if the local Consul agent answers.")
        self._converged = Series(
            "svcagent_last_convergence_timestamp_seconds",
            "When the local Consul agent was last made to hold what services.d says.",
        )
        self._refused = Series(
            "svcagent_registrations_refused", "Services that are registered by somebody else and were left alone."
        )
        self._consent = Series(
            "svcagent_consent_needed",
            "1 while services stay registered as they are until an operator runs svcagent register --allow-removals.",
        )
        self._faults = Series("svcagent_definition_faults", "Faults in a file of definitions.", ("file",))
        self._maintenance = Series(
            "svcagent_maintenance_since_timestamp_seconds",
            "Since when a service (the host itself if empty) is in maintenance, or was first seen so.",
            ("service", "owner"),
        )
        self.lasting: tuple[Family, ...] = (
            self._consul,
            self._converged,
            self._refused,
            self._consent,
            self._faults,
            self._maintenance,
        )
        self.families = (self._build, *self.lasting)

    def consul(self, *, is_up: bool) -> None:
        """Does the local agent answer?"""
        self._consul.set(is_up)

    def faulty(self, faults: Mapping[str, int]) -> None:
        """These files, and no others, have so many faults."""
        self._faults.values = {(file,): count for file, count in sorted(faults.items()) if count}

    def consent(self, *, is_needed: bool) -> None:
        """Note whether changes wait for an operator's consent."""
        self._consent.set(is_needed)

    def converged(self, held: Iterable[Held], refused: int, *, needs_consent: bool = False) -> None:
        """The agent holds what it should, but for so many services that are somebody else's.

        ``needs_consent``: and but for changes that wait for an operator's consent.
        """
        self.consent(is_needed=needs_consent)
        now = self._clock.now().timestamp()
        self._converged.set(now)
        self._refused.set(refused)
        since: dict[tuple[str, ...], float] = {}
        for one in held:
            labels = (one.service, one.owner)
            known = self._maintenance.values.get(labels, now) if one.since is None else one.since
            since[labels] = min(known, since.get(labels, known))  # a service may have two instances here
        self._maintenance.values = since


class CnameSeries:
    """Of the records that this host keeps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._state = Series(
            "svcagent_cname_state", "How a CNAME stands: 1 for the state that it is in.", ("record", "state")
        )
        self._synced = Series("svcagent_cname_last_sync_timestamp_seconds", "When CNAMEs were last looked after.")
        self.lasting: tuple[Family, ...] = (self._state, self._synced)
        self.families = self.lasting

    def synced(self, document: Mapping[str, Any], *, is_all: bool = True) -> None:
        """What ``svcagent --json cname sync`` says; ``is_all``: of all records, or of some that were named."""
        if "records" not in document or document.get("dry_run"):
            return
        if is_all:
            self._state.values = {}
        for one in document["records"]:
            self._state.forget(one["record"])
            self._state.set(1, one["record"], IN_PLACE if one["is_done"] else one["outcome"])
        self._synced.set(self._clock.now().timestamp())
