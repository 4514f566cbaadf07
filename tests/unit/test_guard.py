"""The guard: every observation in, obstacles out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from agent.consul import CheckState, Instance
from agent.definitions import MinHealthy
from agent.fleet import Pause, Quarantine
from agent.reload.guard import Kind, Observed, able_instances, find_obstacles, overridden

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
BY_RELOAD = "Taken out by svcagent reload ab12cd34 on a since 2026-05-01T12:00:00Z: to run sha256:1"
BY_ALICE = "Taken out by alice on a since 2026-05-01T12:00:00Z: disk swap"
ONE = MinHealthy(value=1, is_percent=False)
NONE = MinHealthy(value=0, is_percent=False)


def _instance(node: str, status: str = "passing", held: str | None = None, *, node_held: bool = False) -> Instance:
    checks = [
        CheckState("service:web:http", "http", status, "", "web"),
        CheckState("serfHealth", "", "passing", "", ""),
    ]
    if held is not None:
        checks.append(CheckState("_service_maintenance:web", "", "critical", held, "web"))
    if node_held:
        checks.append(CheckState("_node_maintenance", "", "critical", "disk", ""))
    return Instance(node, "web", "10.0.0.1", 8080, tuple(checks))


def _seen(*instances: Instance, min_healthy: MinHealthy = ONE, **more: Any) -> Observed:
    return Observed(instances, "a", "web", "web", min_healthy, NOW, **more)


@pytest.mark.parametrize(
    ("instances", "min_healthy", "words"),
    [
        ([_instance("a"), _instance("b")], ONE, []),
        ([_instance("a")], NONE, []),
        ([_instance("a")], ONE, ["min_healthy: 0"]),
        ([], ONE, ["svcagent register"]),
        ([_instance("b")], ONE, ["svcagent register"]),
        ([_instance("a"), _instance("b", "critical")], ONE, ["0 of the 1 other"]),
        ([_instance("a"), _instance("b", "warning")], ONE, ["0 of the 1 other"]),
        ([_instance("a"), _instance("b", held="x")], ONE, ["0 of the 1 other"]),
        ([_instance("a"), _instance("b", node_held=True)], ONE, ["0 of the 1 other"]),
        ([_instance("a"), _instance("b"), _instance("c", "critical")], ONE, []),
        ([_instance("a", held="by hand"), _instance("b")], ONE, ["by hand"]),
        ([_instance("a", node_held=True), _instance("b")], ONE, ["disk"]),
        ([_instance("a", "critical"), _instance("b", "critical")], ONE, []),
        (
            [_instance("a"), _instance("b"), _instance("c"), _instance("d", "critical")],
            MinHealthy(value=50, is_percent=True),
            [],
        ),
        (
            [_instance("a"), _instance("b"), _instance("c"), _instance("d", "critical")],
            MinHealthy(value=67, is_percent=True),
            ["2 of the 3 other", "3 must"],
        ),
    ],
)
def test_what_forbids_a_drain(instances: list[Instance], min_healthy: MinHealthy, words: list[str]) -> None:
    """Each row: who is in the catalog, what the definition asks for, what the refusal must say."""
    obstacles = find_obstacles(_seen(*instances, min_healthy=min_healthy))

    assert bool(obstacles) is bool(words)
    for word in words:
        assert word in " ".join(map(str, obstacles))


def test_every_obstacle_says_what_to_do() -> None:
    """A refusal without a way out wakes somebody twice."""
    fleet_wide: dict[str, Any] = {
        "quarantine": Quarantine("sha256:1", "b", NOW, "not ready after 2 m"),
        "pause": Pause("alice", "c", "release party", NOW, NOW + timedelta(hours=2)),
        "image_created": NOW,
        "min_age": 60.0,
        "is_window_open": False,
        "next_opening": (NOW + timedelta(hours=1)).astimezone(timezone(timedelta(hours=9))),
    }
    found = {
        one.kind: one
        for seen in (
            _seen(_instance("a", held=BY_RELOAD), _instance("b", "critical"), **fleet_wide),
            _seen(_instance("a"), _instance("b", "critical")),
            _seen(),
        )
        for one in find_obstacles(seen)
    }

    assert set(found) == set(Kind)
    for kind, words in {
        Kind.ABSENT: "svcagent register",
        Kind.MAINTENANCE: "svcagent recover web",
        Kind.PAUSE: "svcagent resume web",
        Kind.QUARANTINE: "svcagent quarantine clear web sha256:1",
        Kind.WINDOW: "wait until 2026-05-01T13:00:00Z",
        Kind.AGE: "wait until 2026-05-01T12:01:00Z",
        Kind.HEALTH: "svcagent fleet web",
    }.items():
        assert words in found[kind].remedy
    assert "paused, by alice on c since 2026-05-01T12:00:00Z until 2026-05-01T14:00:00Z" in found[Kind.PAUSE].what
    assert "it failed on b at 2026-05-01T12:00:00Z: not ready" in found[Kind.QUARANTINE].what


def test_before_queueing_an_instance_that_a_reload_has_out_counts_as_there() -> None:
    """All hosts start at once: who comes second must wait for the first, not give up on it."""
    fleet = (_instance("a"), _instance("b", held=BY_RELOAD))

    assert find_obstacles(_seen(*fleet, is_queueing=True)) == ()
    assert find_obstacles(_seen(*fleet)) != ()


@pytest.mark.parametrize(
    ("more", "kinds"),
    [
        ({}, []),
        ({"pause": Pause("alice", "c", "w", NOW)}, [Kind.PAUSE]),
        ({"pause": Pause("", "", "the document … cannot be read", None)}, [Kind.PAUSE]),
        ({"quarantine": Quarantine("sha256:1", "b", NOW, "w")}, [Kind.QUARANTINE]),
        ({"quarantine": Quarantine("sha256:1", "", None, "the entry … cannot be read")}, [Kind.QUARANTINE]),
        ({"is_window_open": False}, [Kind.WINDOW]),
        ({"min_age": 60.0, "image_created": NOW - timedelta(seconds=59)}, [Kind.AGE]),
        ({"min_age": 60.0, "image_created": NOW - timedelta(seconds=60)}, []),
        ({"min_age": 60.0, "image_created": NOW + timedelta(days=1)}, [Kind.AGE]),
        ({"min_age": 60.0}, [Kind.AGE]),
        ({"image_created": NOW}, []),
        ({"pause": Pause("alice", "c", "w", NOW), "is_window_open": False}, [Kind.PAUSE, Kind.WINDOW]),
    ],
)
def test_what_the_fleet_and_the_definition_forbid(more: dict[str, Any], kinds: list[Kind]) -> None:
    """Each row: what is observed beside a fleet in which all pass; unknown counts as no."""
    obstacles = find_obstacles(_seen(_instance("a"), _instance("b"), **more))

    assert [one.kind for one in obstacles] == kinds


@pytest.mark.parametrize(
    ("own", "is_allowed", "is_clear"),
    [
        (_instance("a", held=BY_ALICE), False, False),
        (_instance("a", held=BY_ALICE), True, True),
        (_instance("a", held="by hand"), True, True),
        (_instance("a", node_held=True), True, True),
        (_instance("a", held=BY_RELOAD), True, False),
        (_instance("a", held=BY_RELOAD, node_held=True), True, False),
        (_instance("a", held=BY_RELOAD, node_held=True), False, False),
    ],
)
def test_in_maintenance_allows_an_operators_and_never_a_reloads(
    own: Instance, is_allowed: bool, is_clear: bool
) -> None:
    """By default an instance that an operator holds out keeps its image."""
    seen = _seen(own, _instance("b"), is_in_maintenance_allowed=is_allowed)

    assert (find_obstacles(seen) == ()) is is_clear
    for obstacle in find_obstacles(replace(seen, is_in_maintenance_allowed=False)):
        assert ("--in-maintenance" in obstacle.remedy) is ("svcagent reload ab12" not in obstacle.what)


def test_both_maintenances_are_named_each_with_its_own_end() -> None:
    """Lifting the service's alone would leave the host's."""
    service, host = find_obstacles(_seen(_instance("a", held=BY_ALICE, node_held=True), _instance("b")))

    assert "svcagent maint disable web." in service.remedy
    assert "svcagent maint disable --node." in host.remedy


def test_force_overrides_wishes_and_never_maintenance_or_an_unseen_instance() -> None:
    """What stands and what is overridden are both told."""
    wishes = _seen(
        _instance("a"),
        pause=Pause("alice", "c", "w", NOW),
        quarantine=Quarantine("sha256:1", "b", NOW, "w"),
        is_window_open=False,
        min_age=1.0,
    )
    stand, ignored = overridden(find_obstacles(wishes), is_forced=True)
    assert stand == ()
    assert {one.kind for one in ignored} == {Kind.HEALTH, Kind.PAUSE, Kind.QUARANTINE, Kind.WINDOW, Kind.AGE}
    assert overridden(ignored, is_forced=False) == (ignored, ())

    for firm in (_seen(_instance("a", held=BY_ALICE)), _seen(_instance("a", held=BY_RELOAD)), _seen()):
        stand, ignored = overridden(find_obstacles(firm), is_forced=True)
        assert stand
        assert ignored == ()


def test_a_rollout_waits_for_those_that_can_take_it() -> None:
    """Not for one that an operator holds out; but for one that a reload has out, or that is sick."""
    fleet = [
        _instance("passing"),
        _instance("critical", "critical"),
        _instance("reloading", held=BY_RELOAD),
        _instance("alices", held=BY_ALICE),
        _instance("by-hand", held="x"),
        _instance("host", node_held=True),
    ]

    assert {node for node, _service_id in able_instances(fleet)} == {"passing", "critical", "reloading"}
