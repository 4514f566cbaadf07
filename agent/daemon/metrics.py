"""What Prometheus is told of this host: reloads, maintenance, definitions, CNAMEs.

Fed with what is known anyway, in the words of the log and of ``--json``; nothing here asks Consul, Docker or DNS.
Importing this is slow and large (prometheus_client): done only where metrics are on.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import Metric

from agent.clock import Clock
from agent.daemon.host_series import CnameSeries, Held, HostSeries, held_by, held_of
from agent.daemon.reload_series import ReloadSeries
from agent.daemon.series import Family

__all__ = ["Held", "Metrics", "held_by", "held_of"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text that every version of Prometheus reads, and node_exporter."""


class Part(Protocol):
    """Some of it."""

    @property
    def families(self) -> tuple[Family, ...]:
        """What it tells."""

    @property
    def lasting(self) -> tuple[Family, ...]:
        """Those of them that may be taken up from what another process told."""


class Metrics:
    """All of it, told by one thread and rendered by any."""

    def __init__(self, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._reloads, self._host, self._cnames = ReloadSeries(clock), HostSeries(clock), CnameSeries(clock)
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
        self,
        services: Iterable[str],
        faults: Mapping[str, int],
        held: Iterable[Held],
        refused: int = 0,
        *,
        needs_consent: bool = False,
    ) -> None:
        """Registration is as it should be.

        ``services``: names of those that are reloaded here, others are forgotten. ``faults``: how many by file.
        ``held``: what is in maintenance. ``refused``: how many services are registered by somebody else.
        ``needs_consent``: changes wait for an operator's consent.
        """
        with self._lock:
            self._reloads.only(services)
            self._host.consul(is_up=True)
            self._host.faulty(faults)
            self._host.converged(held, refused, needs_consent=needs_consent)

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
            told = [metric for part in (self._reloads, self._host, self._cnames) for metric in metrics_of(part)]
        return text_of([*told, *self._process.collect()]), CONTENT_TYPE


def metrics_of(part: Part) -> list[Metric]:
    """Those of its families that have any series."""
    return [metric for family in part.families if (metric := family.metric())]


@dataclass(frozen=True)
class _Collected:
    """What there is, as the library wants to be given it."""

    metrics: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def text_of(metrics: Iterable[Metric]) -> bytes:
    """In Prometheus's text format."""
    return generate_latest(_Collected(metrics))
