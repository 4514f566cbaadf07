"""What Prometheus is told of this host: reloads, maintenance, definitions, CNAMEs.

Fed with what is known anyway, in the words of the log and of ``--json``; nothing here asks Consul, Docker or DNS.
Importing this is slow and large (prometheus_client): done only where metrics are on.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server
from prometheus_client.core import Metric

from agent.clock import Clock
from agent.daemon.host_series import CnameSeries, Held, HostSeries, held_by, held_of
from agent.daemon.reload_series import ReloadSeries
from agent.daemon.series import Family
from agent.errors import SvcagentError

if TYPE_CHECKING:
    from agent.reload import HostReload

__all__ = ["Held", "Metrics", "held_by", "held_of"]


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

    def reloads_run(self, running: "Iterable[tuple[str, HostReload]]") -> None:
        """The reloads that run on this host now, by service name."""
        with self._lock:
            self._reloads.run(running)

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

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client asks a collector for, with the metrics of this process."""
        with self._lock:
            found = [metric for part in (self._reloads, self._host, self._cnames) for metric in metrics_of(part)]
        return [*found, *self._process.collect()]


def serve(metrics: Metrics, address: str) -> Callable[[], None]:
    """Serve ``/metrics`` on ``host:port``; return what stops it.

    :raises SvcagentError: the address cannot be used.
    """
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise SvcagentError(
            f"cannot listen on {address}: {error.strerror}. Free it, or name another as listen in [daemon] or in "
            "SVCAGENT_LISTEN"
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


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
