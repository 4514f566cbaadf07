"""Convert failures of requests to the agent into `agent.errors`, each with its remedy.

Messages contain nothing from the request, because that could leak the token.
"""

import ssl
from http.client import HTTPException

from agent.consul.acl import THIS_NODE, needed_right
from agent.consul.tls import explain_handshake
from agent.consul.token import Token
from agent.definitions import ConsulSettings
from agent.errors import ConsulUnreachable, Denied, OutcomeUnknown, Rejected, SvcagentError, Unreachable
from agent.http import HttpAnswer
from agent.shapes import WrongShape
from agent.text import clean

LONGEST_MESSAGE = 300
TRANSACTION = "/v1/txn"
"""A refused transaction has status 409; its body names each refused operation and the reason."""
# Go's HTTP server answers this with status 400, before Consul handles the request.
_PLAIN_HTTP = "Client sent an HTTP request to an HTTPS server"
# The only 403 about the token itself rather than its rights (Consul's acl.ErrNotFound). It has no code.
_UNKNOWN_TOKEN = "ACL not found"  # noqa: S105  # not a token, but Consul's message about one
# The beginnings of a 403 about rights, and of a transaction's refusal for missing rights.
_NO_RIGHTS = ("Permission denied", "rpc error making call: Permission denied")
# The beginnings of Consul's 404 to a write, in all releases: the service, check or session does not exist. Any other
# 404 comes from a proxy, or from an agent without that endpoint.
_ABSENT = ("unknown service", "unknown check", "no service registered", "serviceid ", "session id ")
# Consul 1.8 closes further connections without a response; later releases answer 429.
_ALL_CONNECTIONS = (
    "reached its connection limit (limits.http_max_conns_per_client, 200 by default). To list the connections, run: "
    "ss -tnp"
)
_KEY_REFUSED = "invalid key name"


class ServerFailed(OutcomeUnknown):
    """A write was answered with 5xx. With ACLs enabled, Consul also does so for absent services and checks."""


class FailureTranslator:
    """Builds the errors of one connection. Messages name its address and the token's source."""

    def __init__(self, settings: ConsulSettings, token: Token) -> None:
        self._settings = settings
        self._token = token
        self.node = ""

    @property
    def _where(self) -> str:
        return f"the Consul agent at {self._settings.address} (from {self._settings.address_source})"

    def no_connection(self, error: OSError | ValueError) -> ConsulUnreachable:
        """Return the error for a connection that failed before anything was sent."""
        if isinstance(error, ssl.SSLError) and error.reason:
            return self._no_tls(error)
        message = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return ConsulUnreachable(
            f"cannot reach {self._where}: {message}. Start the agent, or set CONSUL_HTTP_ADDR to its address"
        )

    def unanswered(self, method: str, path: str, error: OSError | HTTPException | ValueError) -> Unreachable:
        if isinstance(error, ssl.SSLError) and error.reason:
            # Since TLS 1.3, servers refuse a client certificate after the handshake.
            return self._no_tls(error)
        message = f"{self._where} did not answer {method} {path}"
        if method != "GET":
            return OutcomeUnknown(f"{message}. The change may have taken effect; to check, run: svcagent status")
        if isinstance(error, TimeoutError):
            return ConsulUnreachable(f"{message} in time. Check that the agent and its servers run: consul members")
        return ConsulUnreachable(
            f"{message}: it closed the connection. It is restarting, or this host has {_ALL_CONNECTIONS}"
        )

    def refused(self, method: str, path: str, answer: HttpAnswer) -> SvcagentError | None:
        """Return the error that corresponds to a status.

        Return None for 2xx, a refused transaction, the 404 of a read, and Consul's 404 for an absent object of a write.
        """
        status, message = answer.code, self._shown(answer.body)
        answered = f"{self._where} answered {method} {path} with {status}"
        if 300 <= status < 400:
            target = self._shown(answer.headers.get("Location", "nowhere"))
            return ConsulUnreachable(
                f"{answered}, a redirect to {target}, which svcagent does not follow. Set CONSUL_HTTP_ADDR to "
                "the agent's own address"
            )
        if "html" in answer.headers.get("Content-Type", ""):
            return self.not_consul(method, path, answer)
        if status == 404 and method != "GET" and not answer.body.lower().startswith(_ABSENT):
            return self.not_consul(method, path, answer)
        if status < 400 or status == 404 or (status == 409 and path == TRANSACTION):
            return None
        if status in (401, 403):
            return self._denied(method, path, message, answered)
        if _PLAIN_HTTP in message:
            return ConsulUnreachable(f"{self._where} requires TLS. Write https:// in CONSUL_HTTP_ADDR")
        if status == 429:
            return ConsulUnreachable(
                f"{answered}: {message}. Try again later: the agent is overloaded, or this host has {_ALL_CONNECTIONS}"
            )
        return self._failed(method, status, message, answered)

    def _failed(self, method: str, status: int, message: str, answered: str) -> SvcagentError:
        # 1.21.5 refuses a key with status 500, before it does anything.
        if status < 500 or message.lower().startswith(_KEY_REFUSED):
            return Rejected(f"{answered}: {message}")
        if method == "GET":
            return ConsulUnreachable(f"{answered}: {message}. To see the agent's log, run: consul monitor")
        return ServerFailed(f"{answered}: {message}. The change may have taken effect; to check, run: svcagent status")

    def not_consul(
        self, method: str, path: str, answer: HttpAnswer, error: Exception | None = None
    ) -> ConsulUnreachable:
        """Return the error for a response that is not Consul's. ``error`` is what the parser raised."""
        if isinstance(error, WrongShape):
            found = f": {self._shown(str(error))}"
        else:
            # The exception's type distinguishes a bug in svcagent from a proxy's page.
            cause = f", read with {type(error).__name__}" if error is not None else ""
            content_type = answer.headers.get("Content-Type", "no Content-Type")
            found = f" ({answer.code}, {content_type}{cause}): {self._shown(answer.body)!r}"
        return ConsulUnreachable(
            f"{self._where} answered {method} {path} with something that is not from Consul{found}. "
            "A proxy may listen there: set CONSUL_HTTP_ADDR to the agent's own address",
            kind="not-consul",
        )

    def lacking(self, method: str, path: str, message: str = "") -> Denied:
        """Return the error for a missing right. It names the ACL rule to add."""
        right = needed_right(method, path, message, self.node)
        if not self._token.source:
            who, remedy = "no Consul token is set, and without one", "Set CONSUL_HTTP_TOKEN_FILE or CONSUL_HTTP_TOKEN"
            if right is None:
                return Denied(f"{who} {self._where} refuses {method} {path}. {remedy}", kind="consul-denied")
            return Denied(
                f"{who} {self._where} does not grant {right}. {remedy} to a token whose policy has: {right.rule}",
                kind="consul-denied",
            )
        who = f"the Consul token from {self._token.source}"
        if right is None:
            return Denied(
                f"{who} may not {method} {path} at {self._where}. Check the token's policy", kind="consul-denied"
            )
        unknown = f" ({THIS_NODE}: this host's name in Consul)" if right.name == THIS_NODE else ""
        return Denied(f"{who} lacks {right}: add to its policy: {right.rule}{unknown}", kind="consul-denied")

    def denied_in_transaction(self, key: str, message: str) -> Denied | None:
        """Return Denied if a transaction's error for a key is about rights. Such refusals have no status code."""
        if not message.startswith(_NO_RIGHTS):
            return None
        return self.lacking("PUT", f"/v1/kv/{key}", message)

    def _no_tls(self, error: ssl.SSLError) -> ConsulUnreachable:
        problem, remedy = explain_handshake(error, has_own=self._settings.client_cert is not None)
        return ConsulUnreachable(f"no TLS connection to {self._where}: {problem}. {remedy}", kind="tls-failed")

    def _denied(self, method: str, path: str, message: str, answered: str) -> Denied:
        if _UNKNOWN_TOKEN in message and self._token.source:
            return Denied(
                f"the Consul token from {self._token.source} is unknown to Consul ({self._where}): it was deleted, has "
                "expired, or belongs to another datacenter. Replace it with a valid token",
                kind="token-unknown",
            )
        if message.startswith(_NO_RIGHTS):
            return self.lacking(method, path, message)
        return Denied(f"{answered}: {message}. Check the token's policy", kind="consul-denied")

    def _shown(self, text: str) -> str:
        return clean(self._token.hide_in(text), LONGEST_MESSAGE)


def is_rpc_lost(answer: HttpAnswer) -> bool:
    """True if the agent lost its RPC connection to the servers during the request. A second request would succeed.

    Agents 1.12.1 and 1.13.3 to 1.14.1 end long waits with the first text; 2.0.4 ends an idle connection with the second
    (hashicorp/consul issues 13303, 15246, 23923).
    """
    return answer.code == 500 and answer.body.strip().endswith(("i/o deadline reached", "EOF"))
