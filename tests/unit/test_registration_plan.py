"""Plans as tables: what is wanted, what is there, what has to change."""

from dataclasses import replace
from typing import Any

import pytest

from agent.consul import AgentSelf, CheckState, LocalService
from agent.definitions import Check, Service
from agent.definitions.service import MOST_CHECKS, NamedPort
from agent.registration import AgentState, ChangeAction, is_current, make_plan, make_removal, registration
from agent.registration.mark import HOLD, MARK, leaving, own_checks
from agent.registration.plan import RefusalKind


def service(name: str = "web", **fields: Any) -> Service:
    return Service(name=name, **fields)


def held(wanted: Service, **changed: Any) -> LocalService:
    """What the agent shows after this registration."""
    body = registration(wanted)
    found = LocalService(
        id=wanted.id,
        name=wanted.name,
        tags=wanted.tags,
        port=wanted.port or 0,
        address="",
        meta=body["Meta"],
        checks=tuple(CheckState(c["CheckID"], c["Name"], "passing", "", wanted.id, "ttl") for c in body["Checks"]),
    )
    return replace(found, **changed)


def world(*services: LocalService, node: tuple[CheckState, ...] = ()) -> AgentState:
    checks = [*(check for one in services for check in one.checks), *node]
    return AgentState({one.id: one for one in services}, {check.id: check for check in checks})


def ttl(check_id: str) -> Check:
    return Check(id=check_id, ttl="1h")


def test_what_was_registered_is_current() -> None:
    wanted = service(port=80, tags=("a",), meta={"v": "1"}, checks=(ttl("one"), ttl("two")))

    assert is_current(wanted, held(wanted))
    (change,) = make_plan([wanted], world(held(wanted)))
    assert change.action is ChangeAction.KEEP


PORTS = (NamedPort(name="http", port=80, default=True), NamedPort(name="admin", port=81))


def test_several_ports_are_registered_in_the_place_of_one() -> None:
    body = registration(service(ports=PORTS))

    assert "Port" not in body
    assert body["Ports"] == [
        {"Name": "http", "Port": 80, "Default": True},
        {"Name": "admin", "Port": 81, "Default": False},
    ]


@pytest.mark.parametrize("port", [0, 80])
@pytest.mark.parametrize("ports", [(), (("admin", 81, False), ("http", 80, True))])
def test_several_ports_are_current_as_any_agent_shows_them(port: int, ports: tuple[tuple[str, int, bool], ...]) -> None:
    """In any order, or not at all; the one port may be the default one, or none."""
    wanted = service(ports=PORTS)

    assert is_current(wanted, held(wanted, port=port, ports=ports))


@pytest.mark.parametrize(
    ("before", "after", "ports", "said"),
    [
        (service(ports=PORTS), service(ports=PORTS[:1]), (("http", 80, True), ("admin", 81, False)), "ports: "),
        (service(ports=PORTS), service(port=80), (("http", 80, True), ("admin", 81, False)), "ports: "),
        (service(ports=PORTS), service(ports=PORTS[:1]), (), "mark: changed"),
        (service(port=80), service(ports=PORTS), (), "mark: changed"),
    ],
)
def test_changed_ports(before: Service, after: Service, ports: tuple[tuple[str, int, bool], ...], said: str) -> None:
    (change,) = make_plan([after], world(held(before, ports=ports)))

    assert change.action is ChangeAction.UPDATE
    assert any(str(one).startswith(said) for one in change.differences)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"port": 81}, "port: 80 → 81"),
        ({"tags": ("a", "b")}, "tags: [a] → [a, b]"),
        ({"meta": {}}, "meta.v: 1 → not set"),
        ({"enable_tag_override": True}, "enable_tag_override: false → true"),
        ({"checks": (ttl("one"),)}, "checks[two]: removed"),
        ({"checks": (ttl("one"), ttl("two"), ttl("three"))}, "checks[three]: new"),
        ({"checks": (ttl("one"), Check(id="two", ttl="2h"))}, "checks[two]: changed"),
        ({"checks": (ttl("two"), ttl("one"))}, "mark: changed"),
    ],
)
def test_an_update_names_its_fields(changed: dict[str, Any], said: str) -> None:
    before: dict[str, Any] = {"port": 80, "tags": ("a",), "meta": {"v": "1"}, "checks": (ttl("one"), ttl("two"))}

    (change,) = make_plan([service(**before | changed)], world(held(service(**before))))

    assert (change.action, [str(one) for one in change.differences]) == (ChangeAction.UPDATE, [said])


def test_creations_come_before_removals() -> None:
    plan = make_plan([service("web", id="z")], world(held(service("web", id="a"))))

    assert [(change.action, change.service_id) for change in plan] == [
        (ChangeAction.CREATE, "z"),
        (ChangeAction.REMOVE, "a"),
    ]


def test_only_the_named_are_looked_at() -> None:
    there = world(held(service("gone")))

    assert [change.service_id for change in make_plan([service("a"), service("b")], there, frozenset({"b"}))] == ["b"]


def test_a_check_of_the_node_is_refused() -> None:
    node = CheckState("one", "disk", "passing", "", "", "ttl")

    (change,) = make_plan([service(checks=(ttl("one"),))], world(node=(node,)))

    assert change.action is ChangeAction.REFUSE
    assert change.kind is RefusalKind.FOREIGN_CHECK


def test_checks_that_are_about_to_go_are_still_ours_if_that_is_interrupted() -> None:
    wanted = service(checks=(ttl("new"),))
    body = leaving(registration(wanted), ["old"])
    states = tuple(CheckState(one, one, "passing", "", "web", "ttl") for one in ("new", "old", "theirs", f"{HOLD}web"))
    found = held(wanted, meta=body["Meta"], checks=states)

    assert own_checks(found).keys() == {"new", "old", f"{HOLD}web"}
    (change,) = make_plan([wanted], world(found))
    assert change.stale_checks == ("old", f"{HOLD}web")


def test_the_mark_fits_into_meta_while_all_checks_are_exchanged() -> None:
    checks = tuple(ttl(str(number)) for number in range(MOST_CHECKS))
    body = leaving(registration(service(checks=checks)), [*map(str, range(100, 100 + MOST_CHECKS)), f"{HOLD}web"])

    assert len(body["Meta"][MARK]) <= 512


def test_removal_takes_our_own_alone() -> None:
    foreign = held(service("theirs"), meta={"owner": "dba"})
    there = {"web": held(service()), "theirs": foreign}

    assert [change.service_id for change in make_removal(there)] == ["web"]
    (refused,) = make_removal(there, frozenset({"theirs"}))
    assert refused.action is ChangeAction.REFUSE
    assert "owner 'dba'" in refused.why


@pytest.mark.parametrize(
    ("version", "release"), [("1.8.7", (1, 8, 7)), ("1.18.0+ent", (1, 18, 0)), ("1.9.0-dev", (1, 9, 0))]
)
def test_releases_compare_as_numbers(version: str, release: tuple[int, ...]) -> None:
    assert AgentSelf("n", "dc1", "consul", None, version).release == release
