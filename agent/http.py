"""One keep-alive HTTP connection to a server on this host, over TCP, TLS or a unix socket.

It uses Python's own HTTP client, not requests: importing requests takes as long as reading hundreds of definitions,
and each of its calls takes several times as long. Errors are passed on as `OSError` or `HTTPException`.
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
class HttpAnswer:
    """A complete answer. python-consul2 looks for the first three names."""

    code: int
    headers: Message
    content: bytes

    @cached_property
    def body(self) -> str:
        return self.content.decode("utf-8", "replace")

    @cached_property
    def json(self) -> Any:
        return json.loads(self.content)


class KeptConnection(HTTPConnection):
    """A connection that `open` makes when there is none, or when the server has closed it.

    ``socket_path`` names a unix socket, instead of host and port. ``tls`` needs ``server_name``, the certificate's
    name.
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
        """Connect, unless the connection of the last call is still open."""
        if self.sock is not None and _is_readable(self.sock):
            # Nothing was requested, so what arrived is the end of the connection.
            self.close()
        if self.sock is None:
            try:
                self.connect()
            except BaseException:
                self.close()
                raise

    def connect(self) -> None:
        if self._socket_path is not None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._socket_path)
        else:
            super().connect()
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)

    def hang_up(self) -> None:
        """Fail what another thread waits for on this connection, as if the server had closed it.

        Closing the socket alone would not wake that thread.
        """
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                # TLS's own shutdown would change what the other thread is using.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def is_ended(self, seconds: float) -> bool:
        """True if the server closes the idle open connection within that time, without sending anything."""
        return _is_readable(self.sock, seconds)

    def ask(
        self, method: str, target: str, content: str | bytes | None, headers: Mapping[str, str], seconds: float
    ) -> HttpAnswer:
        """Send a request and receive the answer on the open connection. The server may be silent for ``seconds``."""
        try:
            self.sock.settimeout(seconds)
            self.request(method, target, content.encode() if isinstance(content, str) else content, headers)
            with self.getresponse() as response:
                return HttpAnswer(response.status, response.headers, response.read())
        except BaseException:
            # The rest of this answer would be read as the next answer.
            self.close()
            raise


def was_dropped(error: Exception) -> bool:
    """True if the connection was closed during the request, for example because the server has restarted."""
    return not isinstance(error, ssl.SSLError | TimeoutError)


def _is_readable(sock: socket.socket, seconds: float = 0) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(1000 * seconds))
