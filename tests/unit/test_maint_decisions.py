"""What is done about a target, who is left for clients, and what has come to its end: tables."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.consul import NODE_MAINTENANCE, SERVICE_MAINTENANCE, CheckState, Instance, LocalService
from agent.maintenance import (
    Maintenance,
    MaintenanceAction,
    MaintenanceTarget,
    OwnerKind,
    RemainingInstances,
    by_operator,
    by_reload,
    decide_disable,
    decide_enable,
    find_expired,
    judge_remaining,
    parse,
    render,
)

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
WEB = MaintenanceTarget("host1", "web", "web")
WANTED = by_operator("alice", "host1", "disk swap", NOON)
SAME = by_operator("alice", "host1", "disk swap", NOON - timedelta(hours=1))
OTHER_END = replace(SAME, until=NOON + timedelta(hours=1))
OTHER_REASON = by_operator("alice", "host1", "new kernel", NOON)
OTHER_HOST = by_operator("alice", "host2", "disk swap", NOON)
BOB = by_operator("bob", "host1", "disk swap", NOON)
UNKNOWN = parse("disk swap")
RELOAD = by_reload("1f3a9c21", "host1", "disk swap", NOON)
ANY = st.sampled_from([None, SAME, OTHER_END, OTHER_REASON, OTHER_HOST, BOB, UNKNOWN, RELOAD])


@pytest.mark.parametrize(
    ("held", "plain", "replacing", "by_force"),
    [
        (None, MaintenanceAction.ENABLE, MaintenanceAction.ENABLE, MaintenanceAction.ENABLE),
        (SAME, MaintenanceAction.KEEP, MaintenanceAction.KEEP, MaintenanceAction.KEEP),
        (OTHER_END, MaintenanceAction.REWRITE, MaintenanceAction.REWRITE, MaintenanceAction.REWRITE),
        (OTHER_REASON, MaintenanceAction.REFUSE, MaintenanceAction.REWRITE, MaintenanceAction.REWRITE),
        (OTHER_HOST, MaintenanceAction.REFUSE, MaintenanceAction.REWRITE, MaintenanceAction.REWRITE),
        (BOB, MaintenanceAction.REFUSE, MaintenanceAction.REWRITE, MaintenanceAction.REWRITE),
        (UNKNOWN, MaintenanceAction.REFUSE, MaintenanceAction.REWRITE, MaintenanceAction.REWRITE),
        (RELOAD, MaintenanceAction.REFUSE, MaintenanceAction.REFUSE, MaintenanceAction.REWRITE),
    ],
)
def test_who_may_enable_maintenance_of_what(
    held: Maintenance | None, plain: MaintenanceAction, replacing: MaintenanceAction, by_force: MaintenanceAction
) -> None:
    """Nobody's is taken over unasked, and a reload's not without force."""
    decided = [
        decide_enable(WEB, held, WANTED, is_replacing=is_replacing, is_forced=is_forced).action
        for is_replacing, is_forced in ((False, False), (True, False), (True, True))
    ]

    assert decided == [plain, replacing, by_force]


@given(held=ANY, is_replacing=st.booleans(), is_forced=st.booleans())
def test_enabling_again_changes_nothing_more(held: Maintenance | None, is_replacing: bool, is_forced: bool) -> None:
    """What a command has done, the same command finds done."""
    first = decide_enable(WEB, held, WANTED, is_replacing=is_replacing, is_forced=is_forced)
    if first.wanted is not None:
        again = decide_enable(WEB, first.wanted, WANTED, is_replacing=is_replacing, is_forced=is_forced)

        assert again.action is MaintenanceAction.KEEP
    else:
        assert first.action is MaintenanceAction.REFUSE
        assert first.remedy


def test_moving_the_end_keeps_the_beginning() -> None:
    decided = decide_enable(WEB, SAME, replace(WANTED, until=NOON), is_replacing=False, is_forced=False)

    assert decided.wanted == replace(SAME, until=NOON)


@pytest.mark.parametrize(
    ("held", "plain", "by_force"),
    [
        (None, MaintenanceAction.KEEP, MaintenanceAction.KEEP),
        (SAME, MaintenanceAction.DISABLE, MaintenanceAction.DISABLE),
        (BOB, MaintenanceAction.DISABLE, MaintenanceAction.DISABLE),
        (UNKNOWN, MaintenanceAction.DISABLE, MaintenanceAction.DISABLE),
        (RELOAD, MaintenanceAction.REFUSE, MaintenanceAction.DISABLE),
    ],
)
def test_who_may_disable_what(held: Maintenance | None, plain: MaintenanceAction, by_force: MaintenanceAction) -> None:
    """Operators may lift each other's, but not a running reload's."""
    assert [decide_disable(WEB, held, is_forced=is_forced).action for is_forced in (False, True)] == [plain, by_force]


def _instance(node: str, service_id: str = "web", *statuses: str) -> Instance:
    checks = [CheckState(f"c{number}", "", status, "", service_id) for number, status in enumerate(statuses)]
    return Instance(node, service_id, "10.0.0.1", 80, tuple(checks))


UP, DOWN = _instance("host1", "web", "passing"), _instance("host1", "web", "critical")
WARNED = _instance("host1", "web", "passing", "warning")


@pytest.mark.parametrize(
    ("instances", "ids", "expected"),
    [
        ([UP], ["web"], RemainingInstances.NONE),
        ([UP, _instance("host2", "web", "passing")], ["web"], RemainingInstances.SOME),
        ([UP, _instance("host2", "web", "critical")], ["web"], RemainingInstances.NONE),
        ([UP, _instance("host2", "web", "passing", "critical")], ["web"], RemainingInstances.NONE),
        ([UP, _instance("host1", "web-2", "passing")], ["web"], RemainingInstances.SOME),
        ([UP, _instance("host1", "web-2", "passing")], ["web", "web-2"], RemainingInstances.NONE),
        ([DOWN], ["web"], RemainingInstances.SOME),
        ([DOWN, _instance("host1", "web-2", "passing")], ["web", "web-2"], RemainingInstances.NONE),
        # Consul DNS serves warning; clients that ask for passing instances do not get it.
        ([WARNED], ["web"], RemainingInstances.NONE),
        ([WARNED, _instance("host2", "web", "critical")], ["web"], RemainingInstances.NONE),
        ([WARNED, _instance("host2", "web", "warning")], ["web"], RemainingInstances.SOME),
        ([WARNED, _instance("host2", "web", "passing")], ["web"], RemainingInstances.SOME),
        ([UP, _instance("host2", "web", "warning")], ["web"], RemainingInstances.NONE),
        ([DOWN, _instance("host2", "web", "critical")], ["web"], RemainingInstances.SOME),
        ([], ["web"], RemainingInstances.UNKNOWN),
        ([_instance("host2", "web", "passing")], ["web"], RemainingInstances.UNKNOWN),
        ([UP], ["web", "web-2"], RemainingInstances.UNKNOWN),
    ],
)
def test_who_is_left_for_clients(instances: list[Instance], ids: list[str], expected: RemainingInstances) -> None:
    """Nothing is taken from anybody where nobody passed; and what is not shown is not known."""
    assert judge_remaining(instances, "host1", ids) is expected


OVER = by_operator("bob", "host2", "x", NOON - timedelta(hours=2), NOON)
NOT_OVER = by_operator("bob", "host2", "x", NOON, NOON + timedelta(seconds=1))


def _service(service_id: str, held: Maintenance | None, *statuses: str) -> LocalService:
    checks = [CheckState(f"{service_id}-{n}", "", status, "", service_id) for n, status in enumerate(statuses)]
    if held is not None:
        checks.append(CheckState(f"{SERVICE_MAINTENANCE}{service_id}", "", "critical", render(held), service_id))
    return LocalService(service_id, service_id, (), 80, "", {}, tuple(checks))


@pytest.mark.parametrize(
    ("held", "statuses", "expected"),
    [
        (OVER, ["passing", "passing"], []),
        (OVER, [], []),
        (OVER, ["passing", "critical"], ["web-1"]),
        (OVER, ["passing", "warning"], []),
        (OVER, ["warning", "critical"], ["web-0", "web-1"]),
        (OVER, ["warning", "nonsense"], ["web-0", "web-1"]),
        (NOT_OVER, ["passing"], None),
        (WANTED, ["passing"], None),
        (UNKNOWN, ["passing"], None),
        (RELOAD, ["passing"], None),
        (None, ["passing"], None),
    ],
)
def test_expiry_and_what_keeps_it(held: Maintenance | None, statuses: list[str], expected: list[str] | None) -> None:
    """Only a person's maintenance has an end, and only real checks decide; None: it is not over."""
    service = _service("web", held, *statuses)

    found = find_expired({"web": service}, {check.id: check for check in service.checks}, "host1", NOON)

    assert [[check.id for check in one.failing] for one in found] == ([] if expected is None else [expected])
    assert all(one.target == WEB and one.maintenance == held for one in found)


@pytest.mark.parametrize(
    ("services", "own_check", "expected"),
    [
        ([], "passing", []),
        ([_service("web", None, "passing")], "passing", []),
        ([_service("web", None, "passing")], "critical", ["disk"]),
        ([_service("web", None, "critical")], "passing", ["web-0"]),
        ([_service("web", WANTED, "critical")], "passing", []),
    ],
)
def test_a_host_recovers_with_all_its_parts(services: list[LocalService], own_check: str, expected: list[str]) -> None:
    """Its own checks count and those of its services, but not of what somebody has out anyway."""
    checks = [CheckState("disk", "", own_check, "", ""), CheckState(NODE_MAINTENANCE, "", "critical", render(OVER), "")]
    checks += [check for one in services for check in one.checks]

    found = find_expired({one.id: one for one in services}, {check.id: check for check in checks}, "host1", NOON)

    assert [(one.target, [check.id for check in one.failing]) for one in found] == [
        (MaintenanceTarget("host1"), expected)
    ]


def test_only_what_was_asked_about() -> None:
    services = {name: _service(name, OVER, "passing") for name in ("a", "b")}

    assert [one.target.service_id for one in find_expired(services, {}, "host1", NOON, {"b"})] == ["b"]
    assert [one.target.service_id for one in find_expired(services, {}, "host1", NOON)] == ["a", "b"]


def test_the_owner_in_words() -> None:
    assert [one.whose for one in (BOB, RELOAD, UNKNOWN)] == [
        "bob on host1",
        "svcagent reload 1f3a9c21 on host1",
        "unknown",
    ]
    assert UNKNOWN.kind is OwnerKind.UNKNOWN
