"""What svcagent does about answers that differ from release to release, and which release has which fault.

The answers are those of `tests/recorded`, or of the public issue that is named.
"""

from collections.abc import Callable

import pytest

from agent.consul import Consul, is_known_since, known_faults
from agent.consul.base import LONGEST_WAIT
from agent.errors import ConsulUnreachable, Denied, NotFound, Rejected, SvcagentError
from tests.support.kinds import raises_kind
from tests.unit.test_foreign_answers import INDEX, INSTANCE, consul, http, server

WRITES: dict[str, Callable[[Consul], object]] = {
    "register_service": lambda found: found.register_service({"ID": "web", "Name": "web"}),
    "deregister_service": lambda found: found.deregister_service("web"),
    "register_check": lambda found: found.register_check({"ID": "c", "ServiceID": "web"}),
    "deregister_check": lambda found: found.deregister_check("c"),
    "enable_maintenance": lambda found: found.enable_maintenance("web", "r"),
    "disable_maintenance": lambda found: found.disable_maintenance("web"),
    "rewrite_maintenance": lambda found: found.rewrite_maintenance("web", "r"),
    "enable_node_maintenance": lambda found: found.enable_node_maintenance("r"),
    "disable_node_maintenance": lambda found: found.disable_node_maintenance(),
    "kv_put": lambda found: found.kv_put("k", "v"),
    "kv_delete": lambda found: found.kv_delete("k"),
    "create_session": lambda found: found.create_session("n", 15),
    "renew_session": lambda found: found.renew_session("s"),
    "destroy_session": lambda found: found.destroy_session("s"),
    "kv_transaction": lambda found: found.kv_transaction(),
}
FILTERED = "X-Consul-Results-Filtered-By-ACLs: true"


@pytest.mark.parametrize("write", WRITES)
def test_a_404_that_is_not_consuls_is_no_success_of_a_write(write: str) -> None:
    """Neither an empty one, as Consul's own router and every proxy gives it, nor one with other words."""
    for said in (b"", b"404 page not found\n", b"{}"):
        with server(http(said, status="404 Not Found")) as port, pytest.raises(SvcagentError):
            WRITES[write](consul(port))


def test_an_answer_that_cannot_be_read_names_the_type_of_what_reading_it_raised() -> None:
    """So that a bug in svcagent can be told from a proxy's page."""
    with server(http(b"hello")) as port, pytest.raises(ConsulUnreachable, match=r"JSONDecodeError.*hello"):
        consul(port).agent_self()


UNKNOWN = b'Unknown service ID "web". Ensure that the service ID is passed, not the service name.'


@pytest.mark.parametrize(
    ("write", "said"),
    [
        ("register_check", b'ServiceID "web" does not exist'),
        ("rewrite_maintenance", b'ServiceID "web" does not exist'),
        ("enable_maintenance", b'No service registered with ID "web"'),
        ("enable_maintenance", UNKNOWN),
        ("disable_maintenance", UNKNOWN),
    ],
)
def test_a_write_to_a_service_that_is_absent_says_so(write: str, said: bytes) -> None:
    with server(http(said, status="404 Not Found")) as port, raises_kind(NotFound, "not-registered"):
        WRITES[write](consul(port))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        ("deregister_service", UNKNOWN),
        ("deregister_service", b'Unknown service "web"'),
        ("deregister_check", b'Unknown check ID "c". Ensure that the check ID is passed, not the check name.'),
    ],
)
def test_deregistering_what_is_absent_is_success(write: str, said: bytes) -> None:
    with server(http(said, status="404 Not Found")) as port:
        WRITES[write](consul(port))


@pytest.mark.parametrize("said", ["rpc error making call: i/o deadline reached", "rpc error making call: EOF"])
def test_a_read_whose_server_connection_was_lost_is_asked_once_more(said: str) -> None:
    """Without waiting: an agent that ends every long wait like this would end the second one, too."""
    lost = http(said.encode(), status="500 Internal Server Error")
    answer = http(b"[]", INDEX)
    asked: list[bytes] = []
    with server(lost, answer, asked=asked) as port:
        assert consul(port).kv_get("k", 7, 20.0) == (7, None)
    assert [b"wait=" in one for one in asked] == [True, False]

    with server(lost) as port, raises_kind(ConsulUnreachable, "consul-unreachable"):
        consul(port).kv_get("k")


@pytest.mark.parametrize("write", ["register_service", "kv_put", "create_session", "renew_session"])
def test_a_write_whose_server_connection_was_lost_is_not_repeated(write: str) -> None:
    asked: list[bytes] = []
    lost = http(b"rpc error making call: EOF", status="500 Internal Server Error")
    with server(lost, asked=asked) as port, pytest.raises(SvcagentError):
        WRITES[write](consul(port))
    assert len(asked) == 1


def test_a_key_that_the_release_refuses_is_refused_not_unknown() -> None:
    said = b'invalid key name, keys should respect the "^[a-zA-Z0-9,_./\\-?&=]+$" format'
    with server(http(said, status="500 Internal Server Error")) as port, raises_kind(Rejected, "rejected"):
        consul(port).kv_put("a:b", "v")


def test_no_query_waits_longer_than_25_s() -> None:
    asked: list[bytes] = []
    with server(http(b"[]", INDEX), asked=asked) as port:
        consul(port).kv_get("k", 7, 300.0)
        consul(port).kv_get("k", 7, 0.5)
    assert [f"wait={seconds:.3f}s".encode() in one for one, seconds in zip(asked, (25, 0.5), strict=True)] == [True] * 2
    assert LONGEST_WAIT * 17 / 16 < 30


LISTS: dict[str, tuple[Callable[[Consul], object], bytes, str]] = {
    "some instances": (
        lambda found: found.instances("web"),
        b"[%s]" % str(INSTANCE).replace("'", '"').encode(),
        'node_prefix "" { policy = "read" }',
    ),
    "keys of a tree": (lambda found: found.kv_tree("svcagent/web/"), b"[]", 'key_prefix "svcagent/web/"'),
    "names of keys": (lambda found: found.kv_keys("svcagent/web/"), b"[]", 'key_prefix "svcagent/web/"'),
    "a session": (lambda found: found.session("s"), b"[]", "session:read"),
    "sessions": (lambda found: found.node_sessions("h1"), b"[]", "session:read"),
    "a node": (lambda found: found.is_node_known("h1"), b"null", 'node_prefix "" { policy = "read" }'),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_the_token_does_not_show_whole_is_not_taken_for_whole(name: str) -> None:
    read, body, rule = LISTS[name]
    with server(http(body, INDEX, FILTERED)) as port, pytest.raises(Denied) as caught:
        read(consul(port))
    assert rule in str(caught.value)


def test_a_list_without_any_instance_names_the_services_rule() -> None:
    """This host's own node is visible, so the service is not."""
    node = b'[{"CheckID": "serfHealth", "Name": "n", "Status": "passing"}]'
    self_ = (
        b'{"Config": {"NodeName": "h1", "Datacenter": "dc1", "Version": "1.15.3"}, "DebugConfig": {"DNSDomain": "c"}}'
    )
    with server(http(b"[]", INDEX, FILTERED), http(self_), http(node)) as port, raises_kind(Denied, "consul-denied"):
        consul(port).instances("web")


@pytest.mark.parametrize(
    ("version", "kinds"),
    [
        ("1.8.7", []),
        ("1.12.1", ["waits-fail"]),
        ("1.12.2", []),
        ("1.13.3", ["waits-fail"]),
        ("1.14.1", ["waits-fail"]),
        ("1.14.2", []),
        ("1.15.10", []),
        ("1.18.2", []),
        ("1.19.0", ["dns-ignores-tag"]),
        ("1.19.0+ent", ["dns-ignores-tag"]),
        ("1.19.1", []),
        ("1.21.4", []),
        ("1.21.5", ["kv-key-refused"]),
        ("1.21.6", []),
        ("1.22.3", ["long-wait-cut"]),
        ("2.0.3", []),
        ("2.0.4", ["idle-rpc-eof"]),
        ("", []),
        ("unknown", []),
    ],
)
def test_the_known_faults_of_a_release(version: str, kinds: list[str]) -> None:
    found = known_faults(version)

    assert [fault.kind for fault in found] == kinds
    assert all(fault.problem.endswith(".") for fault in found)


def test_a_feature_that_was_backported_is_known_by_the_branches_that_have_it() -> None:
    first = ((1, 14, 10), (1, 15, 6), (1, 16, 2))

    known = {
        release
        for release in ((1, 14, 9), (1, 14, 10), (1, 15, 5), (1, 15, 6), (1, 17), (2, 0))
        if is_known_since(release, first)
    }

    assert known == {(1, 14, 10), (1, 15, 6), (1, 17), (2, 0)}
