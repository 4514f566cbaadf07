"""Metrics as files for node_exporter's textfile collector, for commands that run from cron without the daemon.

There is one file per reloaded service, one for the host, and one for its CNAMEs, because node_exporter refuses a series
in two files. Counters are read from the file and continued.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families

from agent.clock import Clock, Deadline, poll
from agent.errors import SvcagentError
from agent.files import FileLock, NotRegularFile, is_special_file, read_regular, write_atomically
from agent.metrics.exposition import text_of
from agent.metrics.host_series import CnameSeries, HostSeries, MaintenanceSample
from agent.metrics.reload_series import ReloadSeries
from agent.metrics.series import SeriesGroup

G = TypeVar("G", bound=SeriesGroup)

HOST, CNAMES = "svcagent_register.prom", "svcagent_cname.prom"
RELOAD = "svcagent_reload_{}.prom"
LOCK = "textfile.lock"

READABLE = 0o644
"""node_exporter is another user, and nothing here is secret."""

LOCK_SECONDS = 2.0
LOCK_PAUSE = 0.02


class Textfiles:
    """The files of one directory. Methods raise `SvcagentError` if a file cannot be read or written."""

    def __init__(
        self, directory: Path, clock: Clock, warn: Callable[[str], None], state_dir: Path | None = None
    ) -> None:
        """``state_dir`` has the lock file. Without it the directory is locked, which its readers can do, too."""
        self._directory = directory
        self._lock = directory if state_dir is None else state_dir / LOCK
        self._clock = clock
        self._warn = warn

    def reloads_ended(self, results: Iterable[Mapping[str, Any]]) -> None:
        """Like `Metrics.reload_ended`, for several reloads of any services."""
        by_service: dict[str, list[Mapping[str, Any]]] = {}
        for result in results:
            by_service.setdefault(str(result["service"]), []).append(result)
        for service, ended in by_service.items():
            with self._updated(_of_service(service), ReloadSeries) as reloads:
                for result in ended:
                    reloads.ended(result)

    def converged(
        self, services: Iterable[str], faults: Mapping[str, int], held: Iterable[MaintenanceSample], refused: int
    ) -> None:
        """Like `Metrics.converged`. With faults, no service counts as gone."""
        with self._updated(HOST, HostSeries) as host:
            host.consul(is_up=True)
            host.faulty(faults)
            host.converged(held, refused)
        if faults:
            return
        wanted = {_of_service(service) for service in services}
        for file in self._directory.glob(RELOAD.format("*")):
            if file.name not in wanted and not is_special_file(file):
                file.unlink(missing_ok=True)

    def update_host(self, update: Callable[[HostSeries], None]) -> None:
        with self._updated(HOST, HostSeries) as host:
            update(host)

    def cnames(self, document: Mapping[str, Any], *, is_all: bool) -> None:
        """Like `Metrics.cnames`. ``is_all`` is False if records were named."""
        with self._updated(CNAMES, CnameSeries) as cnames:
            cnames.synced(document, is_all=is_all)

    @contextmanager
    def _updated(self, name: str, make: Callable[[Clock], G]) -> Iterator[G]:
        """Yield the file's metrics for updating, and write them at the end of the block."""
        with self._locked():
            file = self._directory / name
            if is_special_file(file):
                raise SvcagentError(
                    f"{file} is not a regular file, so it is not replaced. Remove it", kind="not-regular-file"
                )
            group = self._read(file, make)
            yield group
            write_atomically(file, text_of(group.metrics).decode(), mode=READABLE)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude other commands. Wait only briefly: a lost count matters little. Other users cannot open the file."""
        try:
            os.stat(f"{self._directory}/")  # noqa: PTH116  # pathlib drops the slash, which demands a directory
        except OSError as error:
            raise SvcagentError(
                f"cannot use {self._directory}: {error.strerror}. Make the directory, or set another textfile_dir",
                kind="cannot-write",
            ) from error
        with FileLock(self._lock) as lock:
            poll(lock.try_acquire, Deadline.after(self._clock, LOCK_SECONDS), LOCK_PAUSE)
            yield

    def _read(self, file: Path, make: Callable[[Clock], G]) -> G:
        group = make(self._clock)
        families = {family.name.removesuffix("_total"): family for family in group.lasting}
        try:
            for metric in text_string_to_metric_families(read_regular(file).decode()):
                if family := families.get(metric.name):
                    family.resume(metric.samples)
        except FileNotFoundError:
            return group
        except NotRegularFile as error:
            raise SvcagentError(
                f"{file} does not lead to a regular file, so it is not replaced. Remove it", kind="not-regular-file"
            ) from error
        except OSError as error:
            raise SvcagentError(
                f"cannot read {file}: {error.strerror}. Let svcagent read it, or remove it", kind="cannot-read"
            ) from error
        # The file is not UTF-8, not in Prometheus's format, or from a version with other metrics.
        except Exception as error:  # noqa: BLE001 - the parser raises many types, depending on the content: ValueError, KeyError, …
            self._warn(f"{file} is damaged ({type(error).__name__}: {error}); its counters start from zero")
            return make(self._clock)
        return group


def _of_service(name: str) -> str:
    """Return a service's file. Its name may contain characters that file names cannot."""
    return RELOAD.format(quote(name, safe=""))
