"""The Prometheus metrics of this host: reloads, maintenance, definitions, CNAMEs.

Their data is already known, in the words of the log and of ``--json``; nothing here queries Consul, Docker or DNS. This
module imports prometheus_client, which is slow and large, so import it only where metrics are enabled.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server
from prometheus_client.core import Metric

from agent.clock import Clock
from agent.errors import SvcagentError
from agent.metrics.host_series import CnameSeries, HostSeries, MaintenanceSample
from agent.metrics.reload_series import ReloadSeries

if TYPE_CHECKING:
    from agent.reload.host_lock import HostReload


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
        held: Iterable[MaintenanceSample],
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
            self._reloads.keep_only(services)
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
            found = [*self._reloads.metrics, *self._host.metrics, *self._cnames.metrics]
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


def text_of(metrics: Iterable[Metric]) -> bytes:
    return generate_latest(SimpleNamespace(collect=lambda: metrics))
