"""Asking an instance itself, the way Consul would: the definition's HTTP and TCP checks, and warm-up URLs."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import requests
import urllib3

from agent.clock import Clock, Deadline, SystemClock
from agent.definitions import Check

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Answer:
    """Did the check pass, and in words why or why not."""

    is_passing: bool
    said: str


class Prober:
    """Runs single checks; a connection of its own for each, as new clients would have."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()

    @staticmethod
    def can_probe(check: Check) -> bool:
        """Can svcagent run this kind of check itself?"""
        return check.kind in ("http", "tcp")

    def probe(self, check: Check, limit: float) -> Answer:
        """Run it once, for ``limit`` seconds or the check's own timeout at most."""
        timeout = max(0.05, min(limit, check.timeout_seconds))
        if check.kind == "tcp":
            return self._tcp(str(check.tcp), timeout)
        return self._http(
            str(check.http),
            timeout,
            method=check.method or "GET",
            header=check.header,
            body=check.body or None,
            is_verified=not check.tls_skip_verify,
        )

    def warm_up(self, url: str, limit: float) -> Answer:
        """One request for its side effect: caches filled before the first client comes. ``limit``: seconds."""
        return self._http(url, limit)

    def _tcp(self, address: str, timeout: float) -> Answer:
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout):
                return Answer(True, f"{address} accepts connections")
        except OSError as error:
            return Answer(False, f"{address}: {error.strerror or error}")
        except UnicodeError as error:  # a name that no resolver can be asked for
            return Answer(False, f"{address}: {error}")

    def _http(
        self,
        url: str,
        timeout: float,
        method: str = "GET",
        header: Mapping[str, Sequence[str]] | None = None,
        body: str | None = None,
        *,
        is_verified: bool = True,
    ) -> Answer:
        headers = {"User-Agent": "svcagent", "Connection": "close"}
        headers |= {name: ", ".join(values) for name, values in (header or {}).items()}
        # The timeout of requests is one between bytes; a server that trickles must not outlast the limit either.
        deadline = Deadline.after(self._clock, timeout)
        with requests.Session() as session:
            session.trust_env = False
            try:
                with session.request(
                    method, url, headers=headers, data=body, timeout=timeout, verify=is_verified, stream=True
                ) as reply:
                    while reply.raw.read1(_CHUNK, decode_content=False):
                        if deadline.is_over:
                            return Answer(False, f"{url} was still answering after {timeout:g} s")
            except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError) as error:
                return Answer(False, f"{url}: {_short(error)}")
        return Answer(200 <= reply.status_code < 300, f"{url} answers {reply.status_code}")


def is_passing_now(check: Check) -> bool:
    """Does it pass? What only Consul can run has had no say yet: clients are sent to the service, and stay."""
    prober = Prober()
    return not prober.can_probe(check) or prober.probe(check, check.timeout_seconds).is_passing


def _short(error: BaseException) -> str:
    """The innermost cause: requests wraps `Connection refused` in four layers."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error)
