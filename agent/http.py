"""One kept-alive HTTP connection to a server on this host, over TCP, TLS or a unix socket, and what comes back on it.

Python's own HTTP client, not requests, whose import alone costs what reading hundreds of definitions does, and whose
every call costs several of these. What fails is raised as it is, an `OSError` or an `HTTPException`.
"""

import contextlib
import json
import select
import socket
import ssl
from collections.abc import Mapping
from email.message import Message
from functools import cached_property
from http.client import HTTPConnection
from typing import Any

from agent.data import dataclass


@dataclass(frozen=True)
class Answer:
    """A whole answer. The first three names are those that python-consul2 looks for."""

    code: int
    headers: Message
    content: bytes

    @cached_property
    def body(self) -> str:
        """The content as text; what is not UTF-8 in it is replaced."""
        return self.content.decode("utf-8", "replace")

    @cached_property
    def json(self) -> Any:
        """The content as JSON; raises `ValueError`."""
        return json.loads(self.content)


class KeptConnection(HTTPConnection):
    """Connects when `open` finds that there is no connection, or none any more.

    ``socket_path``: of a unix socket, in place of host and port. ``tls``: with the name that the certificate is for.
    """

    def __init__(
        self,
        host: str,
        port: int | None,
        connect_seconds: float,
        *,
        socket_path: str | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> None:
        self._socket_path = socket_path
        self._tls = tls
        self._server_name = server_name
        super().__init__(host, port, timeout=connect_seconds)

    def open(self) -> None:
        """Connect, unless the connection of the last call is still there."""
        if self.sock is not None and _has_news(self.sock):
            # Nothing was asked: that is its end.
            self.close()
        if self.sock is None:
            try:
                self.connect()
            except BaseException:
                self.close()
                raise

    def connect(self) -> None:
        """What the base class calls when there is no connection."""
        if self._socket_path is not None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._socket_path)
        else:
            super().connect()
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)

    def hang_up(self) -> None:
        """End what another thread waits for on this connection: there it fails as if the server had closed it.

        Closing alone would not wake that thread.
        """
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                # Not TLS's own shutdown, which would change what the other thread is using.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def is_ended(self, seconds: float) -> bool:
        """Does the server close the open connection, on which nothing is asked, within that time? It says nothing."""
        return _has_news(self.sock, seconds)

    def ask(
        self, method: str, target: str, content: str | bytes | None, headers: Mapping[str, str], seconds: float
    ) -> Answer:
        """Send and receive on the open connection. ``seconds``: how long the server may be silent."""
        try:
            self.sock.settimeout(seconds)
            self.request(method, target, content.encode() if isinstance(content, str) else content, headers)
            with self.getresponse() as response:
                return Answer(response.status, response.headers, response.read())
        except BaseException:
            # The rest of this answer would be taken for the next one's.
            self.close()
            raise


def was_dropped(error: Exception) -> bool:
    """Was a connection closed under the request, as when the server restarted since the last one?"""
    return not isinstance(error, ssl.SSLError | TimeoutError)


def _has_news(sock: socket.socket, seconds: float = 0) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(1000 * seconds))
