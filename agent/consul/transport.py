"""How requests reach the Consul agent: python-consul2's HTTP seam, with time limits and typed failures.

python-consul2 reads CONSUL_HTTP_ADDR itself, breaks on addresses with a scheme, a socket or IPv6 in them, and has
no time limits. So its client is built here without its constructor, on a transport of our own. Above this module a
failure is one of `agent.errors`; what requests and python-consul2 raise stays below it.
"""

import re
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias
from urllib.parse import unquote

import consul.base
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError
from urllib3.util.retry import Retry

from agent.definitions import ConsulSettings
from agent.errors import ConsulUnreachable, Denied, OutcomeUnknown, Rejected

CONNECT_SECONDS = 3.0
# A frozen server makes an agent answer a write 20 s late; past that the outcome is called unknown.
ANSWER_SECONDS = 10.0

Params: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any]] | None


class Transport(consul.base.HTTPClient):  # type: ignore[misc]  # python-consul2 ships no types
    """One kept-alive session to one agent. Not for use by two threads at once."""

    def __init__(self, settings: ConsulSettings) -> None:
        self.settings = settings
        self.session = requests.Session()
        # The environment's proxies and CA bundles are not meant for the agent on this host.
        self.session.trust_env = False
        authority = settings.ca_file or settings.ca_path
        self.session.verify = str(authority) if settings.verify and authority else settings.verify
        if settings.client_cert:
            own = str(settings.client_cert)
            self.session.cert = (own, str(settings.client_key)) if settings.client_key else own
        # Only connecting is retried: what was sent may have been carried out.
        retries = Retry(total=None, connect=2, read=False, redirect=0, status=0, other=0, backoff_factor=0.05)
        if settings.address.startswith("unix://"):
            self.base_uri = "http+unix://consul"
            self.session.mount("http+unix://", _UnixAdapter(settings.address.removeprefix("unix://"), retries))
        else:
            self.base_uri = settings.address
            self.session.mount("http://", HTTPAdapter(max_retries=retries))
            self.session.mount("https://", _NamedAdapter(settings.tls_server_name, retries))
        if token := read_token(settings):
            self.session.headers["X-Consul-Token"] = token

    def get(self, callback: Callable[[Any], Any], path: str, params: Params = None, headers: Any = None) -> Any:
        """Read; asked a second time when the kept-alive connection turns out to be gone."""
        try:
            return self._request("GET", callback, path, params, headers)
        except _Dropped:
            return self._request("GET", callback, path, params, headers)

    def put(
        self, callback: Callable[[Any], Any], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> Any:
        """Write."""
        return self._request("PUT", callback, path, params, headers, data)

    def delete(
        self, callback: Callable[[Any], Any], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> Any:
        """Delete."""
        return self._request("DELETE", callback, path, params, headers, data)

    def post(
        self, callback: Callable[[Any], Any], path: str, params: Params = None, headers: Any = None, data: Any = ""
    ) -> Any:
        """Post."""
        return self._request("POST", callback, path, params, headers, data)

    def _request(
        self,
        method: str,
        callback: Callable[[Any], Any],
        path: str,
        params: Params,
        headers: Any,
        data: Any = None,
    ) -> Any:
        wait = _wait_seconds(params)
        # Consul adds up to a sixteenth to the wait it was asked for, so that waiters do not wake together.
        timeout = (CONNECT_SECONDS, ANSWER_SECONDS + wait + wait / 16)
        try:
            response = self.session.request(
                method, self.uri(path, params), data=data, headers=headers, timeout=timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            self._raise_unanswered(method, path, error)
        response.encoding = "utf-8"
        self._raise_for_status(method, path, response)
        return callback(consul.base.Response(response.status_code, response.headers, response.text, response.content))

    def _raise_unanswered(self, method: str, path: str, error: requests.RequestException) -> NoReturn:
        where = f"the Consul agent at {self.settings.address} (from {self.settings.address_source})"
        if isinstance(error, requests.exceptions.SSLError):
            raise ConsulUnreachable(
                f"no TLS connection to {where}: {_root_cause(error)}. Check CONSUL_CACERT, CONSUL_CLIENT_CERT, "
                "CONSUL_CLIENT_KEY and CONSUL_TLS_SERVER_NAME"
            ) from error
        if isinstance(error, requests.ConnectTimeout) or _never_connected(error):
            raise ConsulUnreachable(
                f"cannot reach {where}: {_root_cause(error)}. Start the agent, or set CONSUL_HTTP_ADDR to its address"
            ) from error
        if method != "GET":
            raise OutcomeUnknown(
                f"{where} did not answer {method} {path}; it is unknown whether it was carried out"
            ) from error
        if isinstance(error, requests.ReadTimeout):
            raise ConsulUnreachable(f"{where} did not answer GET {path} in time; is a server of it alive?") from error
        raise _Dropped(f"{where} closed the connection on GET {path}") from error

    def _raise_for_status(self, method: str, path: str, response: requests.Response) -> None:
        status = response.status_code
        if status < 400 or status == 404:
            return
        said = f"the Consul agent at {self.settings.address} answered {method} {path} with {status}"
        reason = response.text.strip()[:500]
        if status in (401, 403):
            raise Denied(f"{said}: {reason}. Check CONSUL_HTTP_TOKEN and the policy of its token")
        if status < 500:
            raise Rejected(f"{said}: {reason}")
        if method == "GET":
            raise ConsulUnreachable(f"{said}: {reason}")
        raise OutcomeUnknown(f"{said}: {reason}; it is unknown whether it was carried out")


class Api(consul.base.Consul):  # type: ignore[misc]  # python-consul2 ships no types
    """python-consul2's calls on our transport. Its constructor would read and misread the environment."""

    def __init__(self, transport: Transport) -> None:
        self.http = transport
        self.token = None  # the transport sends it
        self.dc = None
        self.consistency = "default"
        self.agent = consul.base.Consul.Agent(self)
        self.kv = consul.base.Consul.KV(self)
        self.session = consul.base.Consul.Session(self)


def read_token(settings: ConsulSettings) -> str | None:
    """The ACL token; a token file that is not empty wins over a token given directly, as in Consul's own tools."""
    if settings.token_file:
        try:
            if token := settings.token_file.read_text().strip():
                return token
        except OSError as error:
            raise Denied(
                f"cannot read the Consul token file {settings.token_file}: {error.strerror}. Check "
                "CONSUL_HTTP_TOKEN_FILE and the file's owner and mode"
            ) from error
    return settings.token.get_secret_value() if settings.token else None


class _Dropped(ConsulUnreachable):
    """A kept-alive connection was gone when it was used again."""


class _NamedAdapter(HTTPAdapter):
    """TLS to a server whose certificate carries another name than the address (CONSUL_TLS_SERVER_NAME)."""

    def __init__(self, server_name: str | None, retries: Retry) -> None:
        self._names = {"server_hostname": server_name, "assert_hostname": server_name} if server_name else {}
        super().__init__(max_retries=retries)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **pool, **self._names)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__("consul", **kwargs)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_SECONDS)
        try:
            self.sock.connect(self._path)
        except OSError as error:
            self.sock.close()
            raise NewConnectionError(self, str(error)) from error


class _UnixPool(HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("consul")
        self._path = path

    def _new_conn(self) -> _UnixConnection:
        return _UnixConnection(self._path)


class _UnixAdapter(HTTPAdapter):
    """HTTP over the agent's unix socket."""

    def __init__(self, path: str, retries: Retry) -> None:
        super().__init__(max_retries=retries)
        self._pool = _UnixPool(unquote(path))

    def get_connection_with_tls_context(self, *_args: Any, **_kwargs: Any) -> HTTPConnectionPool:
        return self._pool

    def request_url(self, request: requests.PreparedRequest, _proxies: Any) -> str:
        return request.path_url

    def close(self) -> None:
        self._pool.close()
        super().close()


def _wait_seconds(params: Params) -> float:
    items = params.items() if isinstance(params, Mapping) else params or ()
    for key, value in items:
        if key == "wait":
            match = re.fullmatch(r"([\d.]+)(ms|s)", str(value))
            if match is None:
                raise ValueError(f"wait={value!r}: waits are written in ms or s")
            return float(match[1]) / (1000 if match[2] == "ms" else 1)
    return 0.0


def _never_connected(error: BaseException) -> bool:
    """Did it fail before a byte was sent? urllib3 tells by type, at the end of requests' chain of causes."""
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", cause), NewConnectionError)


def _root_cause(error: BaseException) -> str:
    """The operating system's or OpenSSL's own words, without the layers around them."""
    seen: BaseException = error
    while True:
        reason = getattr(seen, "reason", None)
        inner = reason if isinstance(reason, BaseException) else seen.__cause__ or seen.__context__
        if inner is None or inner is seen:
            break
        seen = inner
    return (seen.strerror if isinstance(seen, OSError) and seen.strerror else str(seen)) or type(seen).__name__
