"""Send requests to the Consul agent with the token, timeouts and typed errors.

Callers see only `agent.errors`; exceptions of Python's HTTP client stay inside this module.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from agent.consul.failures import FailureTranslator, is_rpc_lost
from agent.consul.tls import make_context
from agent.consul.token import Token
from agent.definitions import ConsulSettings, is_addressable
from agent.errors import Rejected, SvcagentError
from agent.http import HttpAnswer, KeptConnection, was_dropped

CONNECT_SECONDS = 3.0
# A frozen server delays the agent's response to a write by 20 s. After this time, the outcome counts as unknown.
ANSWER_SECONDS = 10.0

WAITING = ("index", "wait", "hash")
"""The parameters of a blocking query."""

UNIX = "unix://"

T = TypeVar("T")
Params: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any]] | None


class ConsulConnection(KeptConnection):
    """A connection as the settings describe it. The environment's proxy and CA bundle are not for the agent."""

    def __init__(self, settings: ConsulSettings) -> None:
        parts = urlsplit(settings.address)
        super().__init__(
            parts.hostname or "consul",
            parts.port,
            CONNECT_SECONDS,
            socket_path=settings.address.removeprefix(UNIX) if settings.address.startswith(UNIX) else None,
            tls=make_context(settings) if parts.scheme == "https" else None,
            server_name=(settings.tls_server_name or parts.hostname or "").rstrip("."),
        )


class Transport:
    """One kept-alive connection to one agent. It replaces python-consul2's HTTP client and has the same methods.

    It must not be used by two threads at a time.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self._token = Token(settings)
        self.failures = FailureTranslator(settings, self._token)
        self._connection = ConsulConnection(settings)

    def close(self) -> None:
        """Close the connection. The next request opens another."""
        self._connection.close()

    def hang_up(self) -> None:
        """Abort the request that another thread waits for."""
        self._connection.hang_up()

    def stay_connected(self, seconds: float) -> None:
        """Connect and stay idle for ``seconds``. Raise `ConsulUnreachable` if the connection fails or ends."""
        try:
            self._connection.open()
        except (OSError, ValueError) as error:
            raise self.failures.no_connection(error) from error
        if self._connection.is_ended(seconds):
            raise self.failures.no_connection(ConnectionResetError("it closed the connection"))

    def get(self, callback: Callable[[HttpAnswer], T], path: str, params: Params = None, headers: Any = None) -> T:
        """Send a GET. Repeat it once if the connection was dropped: this one, or the agent's to a server."""
        return self._request("GET", callback, path, params, headers)

    def put(
        self, callback: Callable[[HttpAnswer], T], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> T:
        return self._request("PUT", callback, path, params, headers, data)

    def delete(
        self, callback: Callable[[HttpAnswer], T], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> T:
        return self._request("DELETE", callback, path, params, headers, data)

    def _request(
        self,
        method: str,
        callback: Callable[[HttpAnswer], T],
        path: str,
        params: Params,
        headers: Any,
        data: Any = None,
    ) -> T:
        """Send the request, convert errors, and pass the response to the callback, which parses it."""
        _refuse_unaddressable(path)
        answer = self._send(method, path, params, headers, data)
        # A 403 was not carried out, so repeating it is safe. The token file may have been replaced just now.
        if answer.code == 403 and self._token.has_changed():
            answer = self._send(method, path, params, headers, data)
        if method == "GET" and is_rpc_lost(answer):
            # Retry without a wait: some releases end every blocking query so. The caller sees a timeout.
            answer = self._send(method, path, _without_waiting(params), headers, data)
        if error := self.failures.refused(method, path, answer):
            raise error
        try:
            if answer.code < 300 and answer.content:
                # A write's callback does not read the response, which may be a proxy's.
                _ = answer.json
            return callback(answer)
        except SvcagentError:
            raise
        # Any exception of the parser (ValueError, KeyError, RecursionError, …) means that the response is not Consul's.
        except Exception as error:
            raise self.failures.not_consul(method, path, answer, error) from error

    def _send(self, method: str, path: str, params: Params, headers: Any, data: Any) -> HttpAnswer:
        target = _target(path, params)
        wait = _wait_seconds(params)
        # Consul adds up to a sixteenth to the requested wait, so that waiters do not wake together.
        seconds = ANSWER_SECONDS + wait + wait / 16
        is_repeated = False
        while True:
            token = self._token.value()
            sent = {**(headers or {}), **({"X-Consul-Token": token} if token else {})}
            try:
                self._connection.open()
            except (OSError, ValueError) as error:  # ValueError: a host name that cannot be encoded
                raise self.failures.no_connection(error) from error
            try:
                return self._connection.ask(method, target, data, sent, seconds)
            except UnicodeError as error:
                raise Rejected(f"{method} {path} cannot be sent to Consul: {error}", kind="request-invalid") from error
            # ValueError: http.client's own, for a bad status line or length.
            except (OSError, HTTPException, ValueError) as error:
                if method != "GET" or is_repeated or not was_dropped(error):
                    raise self.failures.unanswered(method, path, error) from error
                is_repeated = True


def _target(path: str, params: Params) -> str:
    try:
        return quote(path, safe="/:") + (f"?{urlencode(params)}" if params else "")
    except UnicodeError as error:  # half of a surrogate pair, which JSON can contain
        raise Rejected(f"{path!a} cannot be sent to Consul: it is no valid Unicode", kind="request-invalid") from error


def _refuse_unaddressable(path: str) -> None:
    if not is_addressable(path.removeprefix("/")):
        raise Rejected(
            f"Consul's API cannot address {path}: in an id or key, no part between slashes may be empty, . or .. "
            "Give it another id",
            kind="request-invalid",
        )


def _items(params: Params) -> list[tuple[str, Any]]:
    return list(params.items() if isinstance(params, Mapping) else params or ())


def _without_waiting(params: Params) -> Params:
    return [(key, value) for key, value in _items(params) if key not in WAITING]


def _wait_seconds(params: Params) -> float:
    for key, value in _items(params):
        if key == "wait":
            match = re.fullmatch(r"([\d.]+)(ms|s)", str(value))
            if match is None:
                raise ValueError(f"wait={value!r}: waits are written in ms or s")
            return float(match[1]) / (1000 if match[2] == "ms" else 1)
    return 0.0
