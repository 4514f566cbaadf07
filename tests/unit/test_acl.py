"""The table from requests to ACL rules."""

import pytest

from agent.consul.acl import needed_right


@pytest.mark.parametrize(
    ("method", "path", "right", "rule"),
    [
        ("GET", "/v1/agent/self", 'agent:read on "h1"', 'agent "h1" { policy = "read" }'),
        ("PUT", "/v1/agent/maintenance", 'node:write on "h1"', 'node "h1" { policy = "write" }'),
        ("PUT", "/v1/agent/service/register", 'service:write on "SERVICE"', 'service "SERVICE" { policy = "write" }'),
        ("PUT", "/v1/agent/service/deregister/web", 'service:write on "web"', 'service "web" { policy = "write" }'),
        ("PUT", "/v1/agent/service/maintenance/a/b", 'service:write on "a/b"', 'service "a/b" { policy = "write" }'),
        ("GET", "/v1/agent/service/web", 'service:read on "web"', 'service "web" { policy = "write" }'),
        ("PUT", "/v1/agent/check/register", 'service:write on "SERVICE"', 'service "SERVICE" { policy = "write" }'),
        ("PUT", "/v1/agent/check/deregister/c", 'service:write on "SERVICE"', 'service "SERVICE" { policy = "write" }'),
        ("GET", "/v1/health/service/web", 'service:read on "web"', 'service "web" { policy = "write" }'),
        ("GET", "/v1/health/node/h2", 'node:read on "h2"', 'node_prefix "" { policy = "read" }'),
        ("PUT", "/v1/session/create", 'session:write on "h1"', 'session "h1" { policy = "write" }'),
        ("PUT", "/v1/session/renew/0d", 'session:write on "h1"', 'session "h1" { policy = "write" }'),
        ("GET", "/v1/session/info/0d", 'session:read on "h1"', 'session "h1" { policy = "read" }'),
        ("GET", "/v1/kv/svcagent/web/.lock", 'key:read on "svcagent/web/.lock"', 'key_prefix "svcagent/web/"'),
        ("GET", "/v1/kv/svcagent/web/hosts/", 'key:read on "svcagent/web/hosts/"', 'key_prefix "svcagent/web/"'),
        ("PUT", "/v1/kv/web_reload/.lock", 'key:write on "web_reload/.lock"', 'key_prefix "web_reload/"'),
        ("DELETE", "/v1/kv/a/b/.lock", 'key:write on "a/b/.lock"', 'key_prefix "a/b/" { policy = "write" }'),
        ("PUT", "/v1/kv/bare", 'key:write on "bare"', 'key "bare" { policy = "write" }'),
    ],
)
def test_each_request_has_its_rule(method: str, path: str, right: str, rule: str) -> None:
    found = needed_right(method, path, node="h1")

    assert found is not None
    assert str(found) == right
    assert found.rule.startswith(rule)


@pytest.mark.parametrize(
    "said",
    [
        "Permission denied: Missing service:write on web",
        "rpc error making call: Permission denied: Missing service:write on web",
        "Permission denied: token with AccessorID 'x' lacks permission 'service:write' on \"web\"",
    ],
)
def test_what_consul_says_itself_counts_more(said: str) -> None:
    """It knows the service's name; a path has an id, or nothing."""
    found = needed_right("PUT", "/v1/agent/check/deregister/some-id", said)

    assert found is not None
    assert found.rule == 'service "web" { policy = "write" }'


def test_without_the_node_s_name_a_placeholder_is_used() -> None:
    found = needed_right("GET", "/v1/agent/self")

    assert found is not None
    assert found.rule == 'agent "NODE" { policy = "read" }'


def test_a_request_that_svcagent_never_makes_has_no_rule() -> None:
    assert needed_right("GET", "/v1/operator/raft/configuration") is None


def test_names_are_quoted_as_hcl_has_them() -> None:
    found = needed_right("PUT", '/v1/agent/service/deregister/a"b')

    assert found is not None
    assert found.rule == 'service "a\\"b" { policy = "write" }'
