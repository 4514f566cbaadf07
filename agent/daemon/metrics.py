"""What Prometheus is told of this host: reloads, maintenance, definitions, CNAMEs.

Fed with what is known anyway, in the words of the log and of ``--json``; nothing here asks Consul, Docker or DNS.
Importing this is slow and large (prometheus_client): done only where metrics are on.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric

from agent import __version__
from agent.clock import Clock
from agent.consul import NODE_MAINTENANCE, CheckState, LocalService
from agent.daemon.series import Family, Histogram, Series
from agent.errors import NotNow
from agent.maintenance import OwnerKind, parse

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text that every version of Prometheus reads, and node_exporter."""

STEP_SECONDS = (0.1, 1, 5, 30, 120, 600)
WAIT_SECONDS = (0.1, 1, 10, 60, 300, 1800, 3600)

RESULTS = ("up to date", "reloaded", "refused", "rolled back", "interrupted", "failed", "stranded", "recovered")
"""How a reload or a recovery can end (`agent.reload.Result`)."""
GOOD = ("up to date", "reloaded")
"""After these the newest image runs here that may."""

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
    return tuple(_held(service, check.notes) for service, check in found if check is not None)


def _held(service: str, notes: str) -> Held:
    it = parse(notes)
    # A reload's id in a label would be a new series for each reload.
    owner = {OwnerKind.OPERATOR: it.owner, OwnerKind.RELOAD: "svcagent reload", OwnerKind.UNKNOWN: "unknown"}[it.kind]
    return Held(service, owner, it.since.timestamp() if it.since else None)


class Reloads:
    """Of every service that is reloaded here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        by = ("service",)
        self._ended = Series(
            "svcagent_reloads_total", "Reloads that ended, and recoveries, by how.", ("service", "result")
        )
        self._steps = Histogram(
            "svcagent_reload_step_seconds", "How long the steps of reloads took.", ("service", "step"), STEP_SECONDS
        )
        self._waits = Histogram(
            "svcagent_lock_wait_seconds", "How long reloads waited for the fleet's lock.", by, WAIT_SECONDS
        )
        self._last_run = Series("svcagent_last_run_timestamp_seconds", "When a reload last ended, however.", by)
        self._last_success = Series(
            "svcagent_last_success_timestamp_seconds",
            "When a reload last ended with what is wanted running.",
            by,
        )
        self._stranded = Series(
            "svcagent_stranded", "1 if a reload left the instance out of service and could not put it back.", by
        )
        self._image = Series(
            "svcagent_image_info", "The digest that runs, as the last reload saw it.", ("service", "image", "digest")
        )
        self._queue = Series(
            "svcagent_lock_queue_length", "The place in the line for the lock of a reload that waits; 1 is next.", by
        )
        self._under_way = Series(
            "svcagent_reload_step_since_timestamp_seconds",
            "When the step began that a running reload is at.",
            ("service", "step"),
        )

    @property
    def families(self) -> tuple[Family, ...]:
        """All of it."""
        return (*self._lasting, *self._passing)

    @property
    def _lasting(self) -> tuple[Family, ...]:
        return (
            self._ended,
            self._steps,
            self._waits,
            self._last_run,
            self._last_success,
            self._stranded,
            self._image,
        )

    @property
    def _passing(self) -> tuple[Family, ...]:
        return (self._queue, self._under_way)

    def only(self, services: Iterable[str]) -> None:
        """These are reloaded here; what was told of others is forgotten, and these begin with zeros."""
        wanted = frozenset(services)
        for service in {labels[0] for labels in self._ended.values} - wanted:
            for family in self.families:
                family.forget(service)
        for service in sorted(wanted):
            self._begin(service)

    def event(self, record: Mapping[str, Any]) -> None:
        """One line of a running reload's log."""
        service, step = str(record.get("service", "")), str(record.get("step", ""))
        if not service or not step:
            return
        if record.get("phase") == "begin":
            for family in self._passing:
                family.forget(service)
            self._under_way.set(self._now(), service, step)
        if isinstance(place := record.get("place"), int):
            self._queue.set(place, service)

    def ended(self, result: Mapping[str, Any]) -> None:
        """A reload or a recovery is over."""
        service, outcome = str(result["service"]), _outcome(result)
        self._begin(service)
        self._ended.add(service, outcome)
        self._last_run.set(self._now(), service)
        if outcome in GOOD:
            self._last_success.set(self._now(), service)
        # A reload that has an id had put right before what the last one left.
        if outcome == "stranded" or outcome == "recovered" or result.get("id"):
            self._stranded.set(outcome == "stranded", service)
        if result.get("image") and result.get("running"):
            self._image.forget(service)
            self._image.set(1, service, str(result["image"]), str(result["running"]))
        for step in result.get("steps") or ():
            self._steps.observe(step["seconds"], service, step["step"])
            if step["step"] == "acquire":
                self._waits.observe(step["seconds"], service)
        for family in self._passing:
            family.forget(service)

    def _begin(self, service: str) -> None:
        """Zeros first: what appears as 1 is no increase to Prometheus."""
        for result in RESULTS:
            self._ended.add(service, result, by=0)
        self._stranded.add(service, by=0)

    def _now(self) -> float:
        return self._clock.now().timestamp()


class Host:
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
        self._faults = Series("svcagent_definition_faults", "Faults in a file of definitions.", ("file",))
        self._maintenance = Series(
            "svcagent_maintenance_since_timestamp_seconds",
            "Since when a service (the host itself if empty) is in maintenance, or was first seen so.",
            ("service", "owner"),
        )

    @property
    def families(self) -> tuple[Family, ...]:
        """All of it."""
        return (self._build, self._consul, self._converged, self._refused, self._faults, self._maintenance)

    def consul(self, *, is_up: bool) -> None:
        """Does the local agent answer?"""
        self._consul.set(is_up)

    def faulty(self, faults: Mapping[str, int]) -> None:
        """These files, and no others, have so many faults."""
        self._faults.values = {(file,): count for file, count in sorted(faults.items()) if count}

    def converged(self, held: Iterable[Held], refused: int) -> None:
        """The agent holds what it should, but for so many services that are somebody else's."""
        now = self._clock.now().timestamp()
        self._converged.set(now)
        self._refused.set(refused)
        since: dict[tuple[str, ...], float] = {}
        for one in held:
            labels = (one.service, one.owner)
            known = self._maintenance.values.get(labels, now) if one.since is None else one.since
            since[labels] = min(known, since.get(labels, known))  # a service may have two instances here
        self._maintenance.values = since


class Cnames:
    """Of the records that this host keeps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._state = Series(
            "svcagent_cname_state", "How a CNAME stands: 1 for the state that it is in.", ("record", "state")
        )
        self._synced = Series("svcagent_cname_last_sync_timestamp_seconds", "When CNAMEs were last looked after.")

    @property
    def families(self) -> tuple[Family, ...]:
        """All of it."""
        return (self._state, self._synced)

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


class Metrics:
    """All of it, told by one thread and rendered by any."""

    def __init__(self, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._reloads, self._host, self._cnames = Reloads(clock), Host(clock), Cnames(clock)
        self._process = ProcessCollector(registry=None)

    def reload_event(self, record: Mapping[str, Any]) -> None:
        """A line of a reload's log. Of use are ``service``, ``step``, ``phase``, and ``place`` in the line."""
        with self._lock:
            self._reloads.event(record)

    def reload_ended(self, result: Mapping[str, Any]) -> None:
        """How a reload ended: ``dataclasses.asdict`` of its `Result`.

        Of one that left none, ``service`` and ``exit_code`` do.
        """
        with self._lock:
            self._reloads.ended(result)

    def converged(
        self, services: Iterable[str], faults: Mapping[str, int], held: Iterable[Held], refused: int = 0
    ) -> None:
        """Registration is as it should be.

        ``services``: names of those that are reloaded here, others are forgotten. ``faults``: how many by file.
        ``held``: what is in maintenance. ``refused``: how many services are registered by somebody else.
        """
        with self._lock:
            self._reloads.only(services)
            self._host.consul(is_up=True)
            self._host.faulty(faults)
            self._host.converged(held, refused)

    def faulty(self, faults: Mapping[str, int]) -> None:
        """How many faults which files have now."""
        with self._lock:
            self._host.faulty(faults)

    def consul(self, *, is_up: bool) -> None:
        """Does the local agent answer?"""
        with self._lock:
            self._host.consul(is_up=is_up)

    def cnames(self, document: Mapping[str, Any]) -> None:
        """The document of ``svcagent --json cname sync``; one that tells of an error changes nothing."""
        with self._lock:
            self._cnames.synced(document)

    def render(self) -> tuple[bytes, str]:
        """The text, with that of this process, and its content type."""
        with self._lock:
            metrics = tuple(metrics_of(self._reloads.families, self._host.families, self._cnames.families))
        return text_of((*metrics, *self._process.collect())), CONTENT_TYPE


def metrics_of(*groups: Iterable[Family]) -> Iterator[Metric]:
    """Those that have series."""
    for group in groups:
        for family in group:
            if metric := family.metric():
                yield metric


def text_of(metrics: Iterable[Metric]) -> bytes:
    """In Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(metrics))
    return generate_latest(registry)


class _Given:
    """A collector of what is there already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _outcome(result: Mapping[str, Any]) -> str:
    """As `agent.reload.Result` says; where a verb ended before it had one, by its exit code."""
    if outcome := result.get("outcome"):
        return str(outcome)
    code = int(result.get("exit_code", 1))
    if code == NotNow.exit_code:
        return "refused"
    return "interrupted" if code >= 128 else "failed"
