"""Which ACL rule a request needs, and how to say so to whoever writes the token's policy. Pure.

Source of the table: the row "ACL Required" of each endpoint in Consul's HTTP API documentation (1.8). Two things there
are easily missed. `GET /v1/agent/service/:id` answers 404 for what is not there, whatever the token, so it tells a
service that is absent from one that is hidden. And the lists (`/v1/agent/services`, `/v1/agent/checks`,
`/v1/health/service/:name`, `/v1/session/info/:id`) leave out what the token may not see, and answer 200.
"""

import json
import re

from agent.data import dataclass

ANY_SERVICE = "SERVICE"
THIS_NODE = "NODE"
"""Stand in rules for names that are not known."""

OWN_KEYS = "svcagent/"

# 1.8: "Permission denied: Missing service:write on web". From 1.11 on: "… lacks permission 'service:write' on \"web\"".
_SAID = re.compile(r"""(?:Missing |lacks permission ')(\w+):(\w+)'? on "?([^"\n]+)"?""")

# Method, path up to what names the resource, resource, level. The first that fits counts.
_TABLE = (
    ("GET", "/v1/agent/self", "agent", "read"),
    ("PUT", "/v1/agent/maintenance", "node", "write"),
    ("PUT", "/v1/agent/service/register", "service", "write"),
    ("PUT", "/v1/agent/service/deregister/", "service", "write"),
    ("PUT", "/v1/agent/service/maintenance/", "service", "write"),
    ("GET", "/v1/agent/service/", "service", "read"),
    ("PUT", "/v1/agent/check/register", "service", "write"),
    ("PUT", "/v1/agent/check/deregister/", "service", "write"),
    ("GET", "/v1/health/service/", "service", "read"),
    ("GET", "/v1/health/node/", "node", "read"),
    ("GET", "/v1/catalog/node/", "node", "read"),
    ("GET", "/v1/session/", "session", "read"),
    ("PUT", "/v1/session/", "session", "write"),
    ("GET", "/v1/kv/", "key", "read"),
    ("PUT", "/v1/kv/", "key", "write"),
    ("DELETE", "/v1/kv/", "key", "write"),
)

# A check's id and a session's say nothing about the service or node that they belong to.
_NAMED_BY_PATH = ("/v1/agent/service/", "/v1/health/", "/v1/kv/")


@dataclass(frozen=True)
class Right:
    """What a token must be allowed: ``level`` (read, write) on the ``resource`` (service, node, …) of that name."""

    resource: str
    level: str
    name: str

    def __str__(self) -> str:
        return f"{self.resource}:{self.level}" + (f" on {_quoted(self.name)}" if self.name else "")

    @property
    def rule(self) -> str:
        """The rule that gives it, as the policy shipped with svcagent has it.

        svcagent writes whatever services and keys it reads, so those rules say ``write``, which includes ``read``.
        """
        match self.resource:
            case "service":
                return _rule("service", self.name, "write")
            case "key" if self.name == OWN_KEYS:
                # Only the names of all services are read there.
                return _rule("key_prefix", OWN_KEYS, "read")
            case "key":
                return _rule(*_key_rule(self.name), "write")
            case "node" if self.level == "read":
                # The guard counts instances on every node.
                return _rule("node_prefix", "", "read")
            case _:
                return _rule(self.resource, self.name, self.level)


def needed_right(method: str, path: str, said: str = "", node: str = "") -> Right | None:
    """What a request that was refused would have needed; None for a path that svcagent never asks.

    ``said`` is the answer's text: where Consul names the right itself, that is taken. ``node`` is the local agent's
    name, if known: agent and session rules are about nodes.
    """
    if found := _SAID.search(said):
        return Right(found[1], found[2], found[3].strip())
    for row_method, prefix, resource, level in _TABLE:
        if method == row_method and path.startswith(prefix):
            return Right(resource, level, _name(resource, path.removeprefix(prefix), prefix, node))
    return None


def _name(resource: str, rest: str, prefix: str, node: str) -> str:
    if rest and prefix.startswith(_NAMED_BY_PATH):
        return rest
    return ANY_SERVICE if resource == "service" else node or THIS_NODE


def _key_rule(key: str) -> tuple[str, str]:
    """Return one rule for all keys next to it: a lock and its contenders, or the keys of one service."""
    if key.startswith(OWN_KEYS):
        service = key.removeprefix(OWN_KEYS).partition("/")[0]
        return "key_prefix", f"{OWN_KEYS}{service}/"
    directory, slash, _name = key.rpartition("/")
    return ("key_prefix", directory + slash) if slash else ("key", key)


def _rule(kind: str, name: str, policy: str) -> str:
    return f'{kind} {_quoted(name)} {{ policy = "{policy}" }}'


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
