"""Queries that only ``svcagent doctor`` makes: the agent's configuration, its servers, and the token's rights.

Rights are probed with requests that Consul always refuses after its ACL check (Consul 1.8 to 1.22): a transaction whose
first operation cannot succeed, and a session with an invalid behaviour. The servers check the ACL of each operation
before they apply any, and nothing changes in either case.
"""

import json
import ssl
import time
from collections.abc import Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from agent.consul import answers
from agent.consul.acl import Right
from agent.consul.agent_api import AgentApi
from agent.consul.base import index_of, parsed
from agent.consul.failures import TRANSACTION
from agent.consul.kv_api import MOST_OPERATIONS
from agent.consul.transport import CONNECT_SECONDS, UNIX, ConsulConnection
from agent.data import dataclass
from agent.definitions import ConsulSettings
from agent.errors import ConsulUnreachable, Denied, OutcomeUnknown, Rejected
from agent.http import HttpAnswer
from agent.shapes import require

NOTHING = "svcagent-doctor"
"""A service ID, key and session behaviour that do not exist."""

IMPOSSIBLE_INDEX = 1 << 62
"""A modify index that no key or service ever has."""

_UNANSWERED = "the Consul servers do not say which rights the token has. Try: consul members"


@dataclass(frozen=True)
class Waited:
    """A blocking query without a change: the indexes before and after, and its duration in seconds."""

    before: int
    after: int
    seconds: float


class ConsulSurvey(AgentApi):
    """One connection to the local agent, for one thread. It raises as `Consul` does."""

    def leader(self) -> str:
        """Return the address of the servers' leader; empty if there is none."""
        return self._transport.get(lambda answer: str(answer.json or ""), "/v1/status/leader")

    def servers(self) -> tuple[str, ...]:
        def parse(raw: Any) -> tuple[str, ...]:
            return tuple(sorted(one.rpartition(":")[0].strip("[]") for one in raw))

        return self._transport.get(parsed(parse, [str]), "/v1/status/peers")

    def wait(self, node: str, seconds: float) -> Waited:
        """Wait at most ``seconds`` for the next change of a node's checks."""
        path = f"/v1/health/node/{node}"
        before = self._transport.get(index_of, path)
        began = time.monotonic()
        after = self._transport.get(index_of, path, [("index", before), ("wait", f"{seconds:.3f}s")])
        return Waited(before, after, time.monotonic() - began)

    def certificate(self) -> bytes | None:
        """Return the agent's certificate (DER); None without TLS."""
        if not self._settings.address.startswith("https://"):
            return None
        connection = ConsulConnection(self._settings)
        try:
            connection.open()
            sock = connection.sock
            return sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None
        except (OSError, ValueError) as error:
            raise self._transport.failures.no_connection(error) from error
        finally:
            connection.close()

    def server_time(self, server: str) -> datetime | None:
        """Return the time of a server's own HTTP API, to the second; None if it does not answer.

        The server is expected at the local agent's scheme and port, and is asked without a token.
        """
        if self._settings.address.startswith(UNIX):
            return None
        parts = urlsplit(self._settings.address)
        place = f"[{server}]" if ":" in server else server
        there = _at(self._settings, f"{parts.scheme}://{place}:{parts.port}")
        connection = ConsulConnection(there)
        try:
            connection.open()
            answer = connection.ask("GET", "/v1/status/leader", None, {}, CONNECT_SECONDS)
            return parsedate_to_datetime(answer.headers["Date"])
        except (OSError, HTTPException, ValueError, TypeError):
            return None
        finally:
            connection.close()

    def may_read_node(self, node: str) -> bool:
        """True if the token has node:read on that node. Coordinates are refused without it, unlike health responses."""
        try:
            self._transport.get(_ignored, f"/v1/coordinate/node/{node}")
        except Denied:
            return False
        return True

    def may_make_sessions(self, node: str) -> bool:
        """True if the token has session:write on that node."""
        body = json.dumps({"Node": node, "Behavior": NOTHING, "TTL": "1s"})
        try:
            self._transport.put(_ignored, "/v1/session/create", data=body)
        except Denied:
            return False
        except (OutcomeUnknown, Rejected) as error:
            if NOTHING not in str(error):  # refused for another reason than its behaviour
                raise ConsulUnreachable(_UNANSWERED) from error
        return True

    def lacking(self, node: str, rights: Sequence[Right]) -> tuple[Right, ...]:
        """Return those of these rights on services and keys that the token lacks."""
        denied: list[Right] = []
        for first in range(0, len(rights), MOST_OPERATIONS - 1):
            some = rights[first : first + MOST_OPERATIONS - 1]
            operations = [_never(some), *(_operation(node, one) for one in some)]
            try:
                errors = self._transport.put(_denied_operations, TRANSACTION, data=json.dumps(operations))
            except OutcomeUnknown as error:
                raise ConsulUnreachable(_UNANSWERED) from error
            denied += [some[position - 1] for position in errors if position]
        return tuple(denied)


def _at(settings: ConsulSettings, address: str) -> ConsulSettings:
    return settings.replace(address=address, token=None, token_file=None)


def _never(rights: Sequence[Right]) -> dict[str, Any]:
    """Return an operation that cannot succeed, so that none of the transaction is applied."""
    key = next((one.name for one in rights if one.resource == "key"), NOTHING)
    return {"KV": {"Verb": "check-index", "Key": key, "Index": IMPOSSIBLE_INDEX}}


def _operation(node: str, right: Right) -> dict[str, Any]:
    if right.resource == "key":
        return {"KV": {"Verb": "cas", "Key": right.name, "Value": "", "Index": IMPOSSIBLE_INDEX}}
    service = {"ID": NOTHING, "Service": right.name, "ModifyIndex": IMPOSSIBLE_INDEX}
    return {"Service": {"Verb": "cas", "Node": node, "Service": service}}


def _denied_operations(answer: HttpAnswer) -> tuple[int, ...]:
    require(answer.json, answers.TRANSACTION)
    errors = answer.json.get("Errors") or []
    return tuple(one["OpIndex"] for one in errors if "Permission denied" in one["What"])


def _ignored(_answer: HttpAnswer) -> None:
    """Ignore the response: only its status matters."""
