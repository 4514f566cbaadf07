"""How requests reach the Consul agent: with a token, within time limits, and with typed failures.

Above this module a failure is one of `agent.errors`; what Python's HTTP client raises stays below it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote, urlencode

from agent.consul.connection import Connection
from agent.consul.failures import Failures, is_rpc_lost
from agent.consul.token import Token
from agent.definitions import ConsulSettings
from agent.errors import Rejected, SvcagentError
from agent.http import Answer, was_dropped

CONNECT_SECONDS = 3.0
# A frozen server makes an agent answer a write 20 s late; past that the outcome is called unknown.
ANSWER_SECONDS = 10.0

WAITING = ("index", "wait", "hash")
"""The parameters by which a read waits for a change."""

T = TypeVar("T")
Params: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any]] | None


class Transport:
    """One kept-alive connection to one agent, in the place of python-consul2's HTTP client: hence the methods' shape.

    Not for use by two threads at once.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self._token = Token(settings)
        self.failures = Failures(settings, self._token)
        self._connection = Connection(settings, CONNECT_SECONDS)

    def close(self) -> None:
        """Give the connection back; the next call makes another."""
        self._connection.close()

    def hang_up(self) -> None:
        """Cut off the request that another thread waits for, so that it ends."""
        self._connection.hang_up()

    def stay_connected(self, seconds: float) -> None:
        """Connect, ask nothing, and wait; raises `ConsulUnreachable` when the connection does not last."""
        try:
            self._connection.open()
        except (OSError, ValueError) as error:
            raise self.failures.no_connection(error) from error
        if self._connection.is_ended(seconds):
            raise self.failures.no_connection(ConnectionResetError("it closed the connection"))

    def get(self, callback: Callable[[Answer], T], path: str, params: Params = None, headers: Any = None) -> T:
        """Read. Asked a second time when the connection turns out to be gone: this one, or the agent's to a server."""
        return self._request("GET", callback, path, params, headers)

    def put(
        self, callback: Callable[[Answer], T], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> T:
        """Write."""
        return self._request("PUT", callback, path, params, headers, data)

    def delete(
        self, callback: Callable[[Answer], T], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> T:
        """Delete."""
        return self._request("DELETE", callback, path, params, headers, data)

    def post(
        self, callback: Callable[[Answer], T], path: str, params: Params = None, headers: Any = None, data: Any = ""
    ) -> T:
        """Post."""
        return self._request("POST", callback, path, params, headers, data)

    def _request(
        self,
        method: str,
        callback: Callable[[Answer], T],
        path: str,
        params: Params,
        headers: Any,
        data: Any = None,
    ) -> T:
        """Send, translate, and hand what came back to the callback, which takes it apart."""
        _refuse_unaddressable(path)
        answer = self._send(method, path, params, headers, data)
        # A 403 was not carried out, so asking again is safe. The token's file may have been replaced just now.
        if answer.code == 403 and self._token.has_changed():
            answer = self._send(method, path, params, headers, data)
        if method == "GET" and is_rpc_lost(answer):
            # Retry without a wait: some releases end every blocking query with this error. The caller sees a timeout.
            answer = self._send(method, path, _at_once(params), headers, data)
        if error := self.failures.refused(method, path, answer):
            raise error
        try:
            if answer.code < 300 and answer.content:
                # A write's callback does not look at its answer, which may be a proxy's.
                _ = answer.json
            return callback(answer)
        except SvcagentError:
            raise
        # Whatever an answer makes its reader raise (ValueError, KeyError, RecursionError, …): it is not Consul's.
        except Exception as error:
            raise self.failures.not_consul(method, path, answer, error) from error

    def _send(self, method: str, path: str, params: Params, headers: Any, data: Any) -> Answer:
        target = _target(path, params)
        wait = _wait_seconds(params)
        # Consul adds up to a sixteenth to the wait it was asked for, so that waiters do not wake together.
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
                raise Rejected(f"{method} {path} cannot be sent to Consul: {error}") from error
            # ValueError: http.client's own, of an answer's first line or a length.
            except (OSError, HTTPException, ValueError) as error:
                if method != "GET" or is_repeated or not was_dropped(error):
                    raise self.failures.unanswered(method, path, error) from error
                is_repeated = True


def _target(path: str, params: Params) -> str:
    """What is sent in the request's first line."""
    try:
        return quote(path, safe="/:") + (f"?{urlencode(params)}" if params else "")
    except UnicodeError as error:  # half of a surrogate pair, as JSON can hold it
        raise Rejected(f"{path!a} cannot be sent to Consul: it is no valid Unicode") from error


def _refuse_unaddressable(path: str) -> None:
    """Go's router cleans a path after decoding it, so ``a/../b`` would be ``b``: another service's (Consul 1.8).

    Everything else may stand in an id: python-consul2 quotes it, all but the slash, which Consul takes as it is.
    """
    if any(segment in ("", ".", "..") for segment in path.removesuffix("/").split("/")[1:]):
        raise Rejected(
            f"Consul's API cannot address {path}: in an id or key, no part between slashes may be empty, . or .. "
            "Give it another id"
        )


def _items(params: Params) -> list[tuple[str, Any]]:
    return list(params.items() if isinstance(params, Mapping) else params or ())


def _at_once(params: Params) -> Params:
    return [(key, value) for key, value in _items(params) if key not in WAITING]


def _wait_seconds(params: Params) -> float:
    for key, value in _items(params):
        if key == "wait":
            match = re.fullmatch(r"([\d.]+)(ms|s)", str(value))
            if match is None:
                raise ValueError(f"wait={value!r}: waits are written in ms or s")
            return float(match[1]) / (1000 if match[2] == "ms" else 1)
    return 0.0
