"""The ACL rule that each request needs, formatted for a token's policy.

Source of the table: the row "ACL Required" of each endpoint in Consul's HTTP API documentation (1.8). Two details are
easily missed. `GET /v1/agent/service/:id` answers 404 for an absent service with any token, and so distinguishes
it from a hidden one. The lists (`/v1/agent/services`, `/v1/agent/checks`, `/v1/health/service/:name`,
`/v1/session/info/:id`) omit what the token may not see, and answer 200.
"""

import json
import re

from agent.data import dataclass

ANY_SERVICE = "SERVICE"
THIS_NODE = "NODE"
"""Placeholders in rules for unknown names."""

OWN_KEYS = "svcagent/"

# 1.8: "Permission denied: Missing service:write on web". Since 1.11: "… lacks permission 'service:write' on \"web\"".
_MISSING_RIGHT = re.compile(r"""(?:Missing |lacks permission ')(\w+):(\w+)'? on "?([^"\n]+)"?""")

# Method, path up to the resource's name, resource, level. The first match counts.
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

# The ids of checks and sessions do not identify their service or node.
_NAMED_BY_PATH = ("/v1/agent/service/", "/v1/health/", "/v1/kv/")


@dataclass(frozen=True)
class Right:
    """A right that a token needs: ``level`` (read, write) on the ``resource`` (service, node, …) of that name."""

    resource: str
    level: str
    name: str

    def __str__(self) -> str:
        return f"{self.resource}:{self.level}" + (f" on {_quoted(self.name)}" if self.name else "")

    @property
    def rule(self) -> str:
        """Return the ACL rule that grants it, as in the policy shipped with svcagent.

        svcagent writes all services and keys that it reads, so their rules have ``write``, which includes ``read``.
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


def needed_right(method: str, path: str, message: str = "", node: str = "") -> Right | None:
    """Return the right that a refused request needs; None for a path that svcagent never requests.

    ``message`` is the response's text; a right that it names takes precedence. ``node`` is the local agent's name, if
    known: agent and session rules are about nodes.
    """
    if found := _MISSING_RIGHT.search(message):
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
    """Return one rule for the key and its neighbours: a lock and its contenders, or the keys of one service."""
    if key.startswith(OWN_KEYS):
        service = key.removeprefix(OWN_KEYS).partition("/")[0]
        return "key_prefix", f"{OWN_KEYS}{service}/"
    directory, slash, _name = key.rpartition("/")
    return ("key_prefix", directory + slash) if slash else ("key", key)


def _rule(kind: str, name: str, policy: str) -> str:
    return f'{kind} {_quoted(name)} {{ policy = "{policy}" }}'


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
