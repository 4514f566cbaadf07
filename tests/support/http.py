"""HTTP servers of this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class QuietHandler(BaseHTTPRequestHandler):
    """Answers without logging."""

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], address: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[str]:
    """Serve until the end of the block; yields ``host:port``."""
    with running(ThreadingHTTPServer(address, handler)) as where:
        yield where


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[str]:
    """Run a server until the end of the block; yields ``host:port``."""
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{server.server_address[0]!s}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
