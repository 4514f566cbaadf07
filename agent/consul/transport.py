"""How requests reach the Consul agent: python-consul2's HTTP seam, with time limits and typed failures.

python-consul2 reads CONSUL_HTTP_ADDR itself, breaks on addresses with a scheme, a socket or IPv6 in them, and has
no time limits. So its client is built here without its constructor, on a transport of our own. Above this module a
failure is one of `agent.errors`; what requests and python-consul2 raise stays below it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import consul.base
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.exceptions import InsecureRequestWarning
from urllib3.util.retry import Retry

from agent.consul.adapters import TlsAdapter, UnixAdapter
from agent.consul.failures import Failures, was_dropped
from agent.consul.tls import make_context
from agent.consul.token import Token
from agent.definitions import ConsulSettings
from agent.errors import Rejected

CONNECT_SECONDS = 3.0
# A frozen server makes an agent answer a write 20 s late; past that the outcome is called unknown.
ANSWER_SECONDS = 10.0

T = TypeVar("T")
Params: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any]] | None


class Transport(consul.base.HTTPClient):  # type: ignore[misc]  # python-consul2 ships no types
    """One kept-alive session to one agent. Not for use by two threads at once."""

    def __init__(self, settings: ConsulSettings) -> None:
        self._token = Token(settings)
        self.failures = Failures(settings, self._token)
        self.session = requests.Session()
        # The environment's proxies and CA bundles are not meant for the agent on this host.
        self.session.trust_env = False
        # Only connecting is retried: what was sent may have been carried out.
        retries = Retry(total=None, connect=2, read=False, redirect=0, status=0, other=0, backoff_factor=0.05)
        self.base_uri = settings.address
        if settings.address.startswith("unix://"):
            self.base_uri = "http+unix://consul"
            socket = settings.address.removeprefix("unix://")
            self.session.mount("http+unix://", UnixAdapter(socket, CONNECT_SECONDS, retries))
        elif settings.address.startswith("https://"):
            if not settings.verify:
                # The user asked for it; a warning of Python's, with a line of its source, is not for a terminal.
                urllib3.disable_warnings(InsecureRequestWarning)
            self.session.mount("https://", TlsAdapter(make_context(settings), settings.tls_server_name, retries))
        else:
            self.session.mount("http://", HTTPAdapter(max_retries=retries))

    def get(self, callback: Callable[[Any], T], path: str, params: Params = None, headers: Any = None) -> T:
        """Read; asked a second time when the kept-alive connection turns out to be gone."""
        return self._request("GET", callback, path, params, headers)

    def put(
        self, callback: Callable[[Any], T], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> T:
        """Write."""
        return self._request("PUT", callback, path, params, headers, data)

    def delete(
        self, callback: Callable[[Any], T], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> T:
        """Delete."""
        return self._request("DELETE", callback, path, params, headers, data)

    def post(
        self, callback: Callable[[Any], T], path: str, params: Params = None, headers: Any = None, data: Any = ""
    ) -> T:
        """Post."""
        return self._request("POST", callback, path, params, headers, data)

    def _request(
        self,
        method: str,
        callback: Callable[[Any], T],
        path: str,
        params: Params,
        headers: Any,
        data: Any = None,
    ) -> T:
        """Send, translate, and hand what came back to the callback, which takes it apart."""
        _refuse_unaddressable(path)
        response = self._send(method, path, params, headers, data)
        # A 403 was not carried out, so asking again is safe. The token's file may have been replaced just now.
        if response.status_code == 403 and self._token.has_changed():
            response = self._send(method, path, params, headers, data)
        response.encoding = "utf-8"
        if error := self.failures.refused(method, path, response):
            raise error
        try:
            if response.ok and response.content:
                # A write's callback does not look at its answer, which may be a proxy's.
                json.loads(response.content)
            return callback(
                consul.base.Response(response.status_code, response.headers, response.text, response.content)
            )
        except (ValueError, LookupError, TypeError, AttributeError, consul.base.NotFound) as error:
            raise self.failures.not_consul(method, path, response) from error

    def _send(self, method: str, path: str, params: Params, headers: Any, data: Any) -> requests.Response:
        wait = _wait_seconds(params)
        # Consul adds up to a sixteenth to the wait it was asked for, so that waiters do not wake together.
        timeout = (CONNECT_SECONDS, ANSWER_SECONDS + wait + wait / 16)
        is_repeated = False
        while True:
            token = self._token.value()
            sent = {**(headers or {}), **({"X-Consul-Token": token} if token else {})}
            try:
                return self.session.request(
                    method, self.uri(path, params), data=data, headers=sent, timeout=timeout, allow_redirects=False
                )
            except requests.RequestException as error:
                if method != "GET" or is_repeated or not was_dropped(error):
                    raise self.failures.unanswered(method, path, error) from error
                is_repeated = True


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


def _refuse_unaddressable(path: str) -> None:
    """Go's router cleans a path after decoding it, so ``a/../b`` would be ``b``: another service's (Consul 1.8).

    Everything else may stand in an id: python-consul2 quotes it, all but the slash, which Consul takes as it is.
    """
    if any(segment in ("", ".", "..") for segment in path.removesuffix("/").split("/")[1:]):
        raise Rejected(
            f"Consul's API cannot address {path}: in an id or key, no part between slashes may be empty, . or .. "
            "Give it another id"
        )


def _wait_seconds(params: Params) -> float:
    items = params.items() if isinstance(params, Mapping) else params or ()
    for key, value in items:
        if key == "wait":
            match = re.fullmatch(r"([\d.]+)(ms|s)", str(value))
            if match is None:
                raise ValueError(f"wait={value!r}: waits are written in ms or s")
            return float(match[1]) / (1000 if match[2] == "ms" else 1)
    return 0.0
