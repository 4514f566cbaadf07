"""The two ways to an agent that requests does not know: TLS with a context of our own, and a unix socket."""

import socket
import ssl
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError
from urllib3.util.retry import Retry


class TlsAdapter(HTTPAdapter):
    """HTTPS with this context and nothing else: requests adds its own authorities to what it is given."""

    def __init__(self, context: ssl.SSLContext, server_name: str | None, retries: Retry) -> None:
        """``server_name``: what the certificate is for, where that is not the address (CONSUL_TLS_SERVER_NAME)."""
        self._tls: dict[str, Any] = {"ssl_context": context}
        if server_name:
            self._tls["server_hostname"] = server_name
        super().__init__(max_retries=retries)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool: Any) -> None:
        """Every connection gets the context."""
        super().init_poolmanager(connections, maxsize, block, **pool, **self._tls)

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, *_args: Any, **_kwargs: Any
    ) -> HTTPConnectionPool:
        """The pool for this host; requests would put its own TLS settings into it."""
        pool: HTTPConnectionPool = self.poolmanager.connection_from_url(str(request.url))
        return pool

    def cert_verify(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: the context verifies. requests would load its own bundle of authorities."""


class UnixAdapter(HTTPAdapter):
    """HTTP over the agent's unix socket."""

    def __init__(self, path: str, connect_seconds: float, retries: Retry) -> None:
        super().__init__(max_retries=retries)
        self._pool = _UnixPool(path, connect_seconds)

    def get_connection_with_tls_context(self, *_args: Any, **_kwargs: Any) -> HTTPConnectionPool:
        """The one pool."""
        return self._pool

    def request_url(self, request: requests.PreparedRequest, _proxies: Any) -> str:
        """The path alone: there is no host to name."""
        return request.path_url

    def close(self) -> None:
        """Close its connection."""
        self._pool.close()
        super().close()


class _UnixPool(HTTPConnectionPool):
    def __init__(self, path: str, connect_seconds: float) -> None:
        super().__init__("consul")
        self._path = path
        self._connect_seconds = connect_seconds

    def _new_conn(self) -> "_UnixConnection":
        return _UnixConnection(self._path, self._connect_seconds)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, connect_seconds: float) -> None:
        super().__init__("consul")
        self._path = path
        self._connect_seconds = connect_seconds

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._connect_seconds)
        try:
            self.sock.connect(self._path)
        except OSError as error:
            self.sock.close()
            raise NewConnectionError(self, str(error)) from error
