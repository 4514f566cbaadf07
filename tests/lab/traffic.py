"""The load generator, run beside a lab: started, read while it runs, stopped, and its result as plain data."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.lab import image
from tests.lab.ground import LabError
from tests.lab.lab import Lab
from tests.lab.parts import DATACENTER
from tests.lab.server import REPOSITORY, spawn


@dataclass(frozen=True)
class Snapshot:
    """The counts so far; ``per_second`` is over the last 0.2 s, in a summary over the whole run."""

    t: float
    requests: int
    failures: int
    versions: Mapping[str, int]
    errors: Mapping[str, int]
    per_second: float


@dataclass(frozen=True)
class Failure:
    """One failed request: seconds since the start, the address asked (if DNS gave one), the resolver, and what."""

    t: float
    address: str | None
    resolver: str
    what: str


@dataclass(frozen=True)
class Summary(Snapshot):
    """The counts of a whole run and its last failures, twenty at most."""

    failed: tuple[Failure, ...]


NOTHING = Snapshot(0.0, 0, 0, {}, {}, 0.0)


@dataclass(frozen=True)
class Url:
    name: str = f"{image.NAME}.service.{DATACENTER}.consul"
    port: int = image.PORT
    path: str = "/"


class Load:
    """Clients of a lab's service, from ``with`` to `stop` or its end."""

    def __init__(
        self,
        lab: Lab,
        *,
        rate: float = 400,
        workers: int = 8,
        timeout: float = 5,
        dns: Sequence[tuple[str, int]] | None = None,
        url: Url = Url(),
    ) -> None:
        """``dns``: the resolvers asked in turn; by default the Consul agents of all hosts.

        ``timeout``: seconds that a client waits for the whole of one request.
        """
        resolvers = [host.dns for host in lab.hosts] if dns is None else dns
        self._argv = [
            *(sys.executable, "-m", "tests.lab.load"),
            *(word for address, port in resolvers for word in ("--dns", f"{address}:{port}")),
            *("--name", url.name, "--port", str(url.port), "--path", url.path),
            *("--workers", str(workers), "--rate", str(rate), "--timeout", str(timeout)),
        ]
        self._environment = lab.environment()
        self._log = lab.directory / "load.log"
        self._news = threading.Condition()
        self._latest = NOTHING
        self._summary: Summary | None = None
        self._has_ended = False
        self._process: subprocess.Popen[str]
        self._reader: threading.Thread

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = spawn(
                self._argv,
                self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=REPOSITORY,
            )
        self._reader = threading.Thread(target=self._read, name="load reader")
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(kill=error is not None)

    def snapshot(self) -> Snapshot:
        """The latest counts, at most 0.2 s old."""
        with self._news:
            return self._latest

    def wait_for(
        self, *, requests: int = 0, until: Callable[[Snapshot], bool] = lambda _: True, seconds: float = 30
    ) -> Snapshot:
        """Wait for that many more requests than now and for what ``until`` asks of the counts."""
        with self._news:
            wanted = self._latest.requests + requests
            came = self._news.wait_for(
                lambda: self._has_ended or (self._latest.requests >= wanted and until(self._latest)), seconds
            )
            if self._has_ended:
                raise LabError(f"the load generator has ended: {self._log.read_text()}")
            if not came:
                raise LabError(f"after {seconds:g} s the load generator is still at {self._latest}")
            return self._latest

    def stop(self) -> Summary:
        """Let the requests under way finish, and end; the counts of the whole run."""
        self._end(kill=False)
        if self._summary is None:
            raise LabError(f"the load generator died: {self._log.read_text()}")
        return self._summary

    def _end(self, *, kill: bool) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        if kill:
            self._process.kill()
        try:
            self._process.wait(15)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._take(json.loads(line))
        with self._news:
            self._has_ended = True
            self._news.notify_all()

    def _take(self, counts: dict[str, Any]) -> None:
        with self._news:
            if counts.pop("final", False):
                failed = tuple(Failure(**failure) for failure in counts.pop("failed"))
                self._latest = self._summary = Summary(**counts, failed=failed)
            else:
                self._latest = Snapshot(**counts)
            self._news.notify_all()
