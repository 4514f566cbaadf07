"""The Prometheus metrics of this host: reloads, maintenance, definitions, CNAMEs.

Their data is already known, in the words of the log and of ``--json``; nothing here queries Consul, Docker or DNS. This
module imports prometheus_client, which is slow and large, so import it only where metrics are enabled.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server
from prometheus_client.core import Metric

from agent.clock import Clock
from agent.errors import SvcagentError
from agent.metrics.host_series import CnameSeries, Held, HostSeries, held_by, held_of
from agent.metrics.reload_series import ReloadSeries
from agent.metrics.series import Family

if TYPE_CHECKING:
    from agent.reload.host_lock import HostReload

__all__ = ["Held", "Metrics", "held_by", "held_of"]


class MetricsPart(Protocol):
    """A group of metric families."""

    @property
    def families(self) -> tuple[Family, ...]:
        """All families."""

    @property
    def lasting(self) -> tuple[Family, ...]:
        """The families that may be resumed from another process's output."""


class Metrics:
    """All metrics of the host. One thread updates them; any thread may render them."""

    def __init__(self, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._reloads, self._host, self._cnames = ReloadSeries(clock), HostSeries(clock), CnameSeries(clock)
        self._process = ProcessCollector(registry=None)

    def reloads_run(self, running: "Iterable[tuple[str, HostReload]]") -> None:
        """Replace the running reloads, by service name."""
        with self._lock:
            self._reloads.run(running)

    def reload_ended(self, result: Mapping[str, Any]) -> None:
        """Record a reload's end: ``asdict`` of its `Result`, or at least ``service`` and ``exit_code``."""
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
        """Record a completed convergence.

        ``services`` are the names of those that are reloaded here; series of others are dropped. ``faults`` counts by
        file. ``held`` is what is in maintenance. ``refused`` counts services that others registered. ``needs_consent``
        is True if changes wait for an operator's consent.
        """
        with self._lock:
            self._reloads.only(services)
            self._host.consul(is_up=True)
            self._host.faulty(faults)
            self._host.converged(held, refused, needs_consent=needs_consent)

    def faulty(self, faults: Mapping[str, int]) -> None:
        with self._lock:
            self._host.faulty(faults)

    def consul(self, *, is_up: bool) -> None:
        with self._lock:
            self._host.consul(is_up=is_up)

    def cnames(self, document: Mapping[str, Any]) -> None:
        """Update from the document of ``svcagent --json cname sync``. An error document changes nothing."""
        with self._lock:
            self._cnames.synced(document)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics for prometheus_client, including those of this process."""
        with self._lock:
            found = [metric for part in (self._reloads, self._host, self._cnames) for metric in metrics_of(part)]
        return [*found, *self._process.collect()]


def serve(metrics: Metrics, address: str) -> Callable[[], None]:
    """Serve ``/metrics`` on ``host:port``; return a stop function. Raise `SvcagentError` if that fails."""
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise SvcagentError(
            f"cannot listen on {address}: {error.strerror}. Free it, or name another as listen in [daemon] or in "
            "SVCAGENT_LISTEN",
            kind="cannot-listen",
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


def metrics_of(part: MetricsPart) -> list[Metric]:
    """Return the families that have any series."""
    return [metric for family in part.families if (metric := family.metric())]


@dataclass(frozen=True)
class _Collected:
    """A fixed list of metrics as a prometheus_client collector."""

    metrics: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def text_of(metrics: Iterable[Metric]) -> bytes:
    """Return the metrics in Prometheus's text format."""
    return generate_latest(_Collected(metrics))
