"""A stand-in for a registry with faults: it passes on what it is asked to a real one, unless a fault is set."""

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any

from tests.support.http import QuietHandler, running

STALLED_BYTES = 1_000_000
"""Larger answers stall half-way; manifests and configurations are smaller."""


@dataclass
class Refusal:
    """What to answer to every request for a manifest or a blob."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class FaultyRegistry(ThreadingHTTPServer):
    """Listens on an address of the host beside the real registry ``upstream`` (``host:port``)."""

    def __init__(self, address: str, upstream: str) -> None:
        super().__init__((address, 0), _Handler)
        self.upstream = upstream
        self.refusal: Refusal | None = None
        self.stalls = False
        self.may_go_on = threading.Event()
        self.is_stalled = threading.Event()

    @property
    def name(self) -> str:
        return f"{self.server_address[0]!s}:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: the Engine ends connections as it likes."""


class _Handler(QuietHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # an Engine that tries TLS first wants to see that this is HTTP
    server: FaultyRegistry

    def do_GET(self) -> None:
        registry = self.server
        if registry.refusal is not None and self.path != "/v2/":
            self._answer(registry.refusal.status, registry.refusal.headers, registry.refusal.body)
            return
        upstream = http.client.HTTPConnection(registry.upstream, timeout=30)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            upstream.request(self.command, self.path, headers=headers)
            response = upstream.getresponse()
            body = response.read()
        finally:
            upstream.close()
        kept = {name: value for name, value in response.getheaders() if name.lower() not in ("date", "connection")}
        self._answer(response.status, kept, body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.stalls and len(body) > STALLED_BYTES:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.server.is_stalled.set()
            self.server.may_go_on.wait(60)
            body = body[len(body) // 2 :]
        self.wfile.write(body)


@contextmanager
def faulty_registry(address: str, upstream: str) -> Iterator[FaultyRegistry]:
    """A stand-in that answers; it is gone afterwards."""
    server = FaultyRegistry(address, upstream)
    with running(server):
        try:
            yield server
        finally:
            server.may_go_on.set()
