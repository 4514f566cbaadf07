"""An endpoint for notifications, as Apprise's ``json://`` speaks to it: an HTTP server that keeps what it is told."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agent.files import write_atomically
from tests.lab.ground import wait_until
from tests.real.access_fixture import Listener
from tests.support.http import QuietHandler

PASSWORD = "hush-hush"
"""In every endpoint's URL."""


class Endpoint:
    """Takes messages, or refuses them with ``status``."""

    def __init__(self, address: str = "127.0.0.1", status: int = 200) -> None:
        self.messages: list[dict[str, Any]] = []
        """As they came, each with the time ``at`` which it did, in seconds since the epoch."""
        self._server = ThreadingHTTPServer((address, 0), self._handler(status))
        self._server.daemon_threads = True
        host, port = self._server.server_address[:2]
        self.host = str(host)
        self.url = f"json://svcagent:{PASSWORD}@{self.host}:{port}/{PASSWORD}"

    def __enter__(self) -> "Endpoint":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_ended: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def titles(self) -> list[str]:
        return [one["title"] for one in self.messages]

    def wait_for(self, count: int, seconds: float = 20) -> None:
        wait_until(lambda: len(self.messages) >= count, seconds, f"{count} messages have come: {self.titles}")

    def _handler(self, status: int) -> type[BaseHTTPRequestHandler]:
        messages = self.messages

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                messages.append({**json.loads(body), "at": time.time()})
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_said: object) -> None:
                """Print nothing."""

        return Handler


@contextmanager
def hanging() -> Iterator[str]:
    """The URL of an endpoint that takes connections and never answers."""
    with Listener(_never) as listener:
        yield f"json://svcagent:{PASSWORD}@127.0.0.1:{listener.port}/{PASSWORD}"


def settings_file(directory: Path, urls: Sequence[str], stuck_after: str = "30m") -> Path:
    """Settings that name these endpoints; others may be reading those that were there before."""
    file = directory / "svcagent.toml"
    text = f"[notify]\nurls = {json.dumps(list(urls))}\nstuck_after = {json.dumps(stuck_after)}\n"
    write_atomically(file, text, mode=0o600)
    return file


def _never(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass
