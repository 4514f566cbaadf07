"""The guard: every observation in, obstacles out."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from agent.consul import CheckState, Instance
from agent.definitions import Drain, MinHealthy, ReloadSection, Service
from agent.engine.stopped import StoppedContainer
from agent.fleet import FleetView, HostState, Pause, Quarantine
from agent.fleet.host_state import InstanceKey
from agent.reload.guard import Observed, ObstacleKind, able_instances, find_obstacles, overridden
from agent.reload.window import WindowState

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
BY_RELOAD = "Taken out by svcagent reload ab12cd34 on a since 2026-05-01T12:00:00Z: to run sha256:1"
BY_ALICE = "Taken out by alice on a since 2026-05-01T12:00:00Z: disk swap"
ONE = MinHealthy(value=1, is_percent=False)
NONE = MinHealthy(value=0, is_percent=False)
HALF = MinHealthy(value=50, is_percent=True)
ALL = MinHealthy(value=100, is_percent=True)
CLOSED = WindowState(is_open=False)
STOPPED = StoppedContainer(
    "container web was stopped by an operator (exit status 143)", "docker start web", by_hand=True
)


def _instance(
    node: str, status: str = "passing", held: str | None = None, *, node_held: bool = False, alive: str = "passing"
) -> Instance:
    checks = [CheckState("service:web:http", "http", status, "", "web"), CheckState("serfHealth", "", alive, "", "")]
    if held is not None:
        checks.append(CheckState("_service_maintenance:web", "", "critical", held, "web"))
    if node_held:
        checks.append(CheckState("_node_maintenance", "", "critical", "disk", ""))
    return Instance(node, "web", "10.0.0.1", 8080, tuple(checks))


def _seen(
    *instances: Instance,
    min_healthy: MinHealthy = ONE,
    drain_max: float = 60.0,
    pause: Pause | None = None,
    quarantine: Quarantine | None = None,
    known: Iterable[InstanceKey] = (),
    **more: Any,
) -> Observed:
    service = Service(name="web")
    section = ReloadSection(image="web", container="web", min_healthy=min_healthy, drain=Drain(max=drain_max))
    if quarantine is not None:
        more["wanted"] = quarantine.digest
    view = FleetView(
        hosts={key: HostState("", "running", NOW, service_id=key[1]) for key in known},
        quarantine={} if quarantine is None else {quarantine.digest: quarantine},
        pause=pause,
    )
    return Observed(instances, "a", service, section, NOW, view, **more)


@pytest.mark.parametrize(
    ("instances", "min_healthy", "words"),
    [
        ([_instance("a"), _instance("b")], ONE, []),
        ([_instance("a")], NONE, []),
        ([_instance("a")], ONE, ["min_healthy to 0"]),
        ([], ONE, ["svcagent register"]),
        ([_instance("b")], ONE, ["svcagent register"]),
        ([_instance("a"), _instance("b", "critical")], ONE, ["0 of the 1 other"]),
        ([_instance("a"), _instance("b", "warning")], ONE, ["0 of the 1 other"]),
        ([_instance("a"), _instance("b", held="x")], ONE, ["0 of the 1 other"]),
        ([_instance("a"), _instance("b", node_held=True)], ONE, ["0 of the 1 other"]),
        ([_instance("a"), _instance("b"), _instance("c", "critical")], ONE, []),
        ([_instance("a"), _instance("b", alive="critical")], ONE, ["0 of the 1 other"]),
        # A percentage above 0 needs another instance, also where the catalog shows none.
        ([_instance("a")], HALF, ["0 of the 0 other", "min_healthy to 0"]),
        ([_instance("a")], ALL, ["min_healthy to 0"]),
        ([_instance("a")], MinHealthy(value=1, is_percent=True), ["min_healthy to 0"]),
        ([_instance("a")], MinHealthy(value=0, is_percent=True), []),
        # Consul DNS sends clients to an instance in warning.
        ([_instance("a", "warning")], ONE, ["min_healthy to 0"]),
        ([_instance("a", "warning"), _instance("b", held="x")], ONE, ["0 of the 1 other"]),
        ([_instance("a", "warning"), _instance("b", "critical")], HALF, ["0 of the 1 other"]),
        ([_instance("a", alive="warning"), _instance("b", held="x")], ONE, ["0 of the 1 other"]),
        ([_instance("a", "warning"), _instance("b")], ONE, []),
        ([_instance("a", "warning"), _instance("b", "warning")], ONE, []),
        ([_instance("a", "warning"), _instance("b", "warning"), _instance("c", "critical")], ALL, ["1 of the 2 other"]),
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
            ["2 of the 3 other", "requires 3"],
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
    fleet_wide: dict[str, Any] = {
        "quarantine": Quarantine("sha256:1", "b", NOW, "not ready after 2 m"),
        "pause": Pause("alice", "c", "release party", NOW, NOW + timedelta(hours=2)),
        "image_created": NOW,
        "min_age": 60.0,
        "window": WindowState(
            is_open=False, opens_at=(NOW + timedelta(hours=1)).astimezone(timezone(timedelta(hours=9)))
        ),
        "wanted": "sha256:1",
        "suspect": HostState("sha256:0", "reloading", NOW, service_id="web", wanted="sha256:1", node="b", step="ready"),
        "stopped": STOPPED,
        "differences": ("http://127.0.0.1:8080/hc: certificate verify failed",),
        "remembered": 3600.0,
        "drain_max": 30.0,
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

    assert set(found) == set(ObstacleKind)
    for kind, words in {
        ObstacleKind.ABSENT: "svcagent register",
        ObstacleKind.MAINTENANCE: "svcagent recover web",
        ObstacleKind.PAUSE: "svcagent resume web",
        ObstacleKind.QUARANTINE: "svcagent quarantine clear web sha256:1",
        ObstacleKind.WINDOW: "opens at 2026-05-01T13:00:00Z",
        ObstacleKind.AGE: "wait until 2026-05-01T12:01:00Z",
        ObstacleKind.HEALTH: "svcagent fleet web",
        ObstacleKind.SUSPECT: "svcagent quarantine clear web sha256:1",
        ObstacleKind.STOPPED: "docker start web",
        ObstacleKind.READINESS: "svcagent reload web --force",
        ObstacleKind.DNS: "dns_config.service_ttl",
    }.items():
        assert words in found[kind].remedy
    assert (
        "paused, by alice on c since 2026-05-01T12:00:00Z until 2026-05-01T14:00:00Z" in found[ObstacleKind.PAUSE].what
    )
    assert "it failed on b at 2026-05-01T12:00:00Z: not ready" in found[ObstacleKind.QUARANTINE].what


def test_before_queueing_an_instance_that_a_reload_has_out_counts_as_there() -> None:
    """All hosts start at once: who comes second must wait for the first, not give up on it."""
    fleet = (_instance("a"), _instance("b", held=BY_RELOAD))

    assert find_obstacles(_seen(*fleet, is_queueing=True)) == ()
    assert find_obstacles(_seen(*fleet)) != ()


@pytest.mark.parametrize(
    ("more", "kinds"),
    [
        ({}, []),
        ({"pause": Pause("alice", "c", "w", NOW)}, [ObstacleKind.PAUSE]),
        ({"pause": Pause("", "", "the document … cannot be read", None)}, [ObstacleKind.PAUSE]),
        ({"quarantine": Quarantine("sha256:1", "b", NOW, "w")}, [ObstacleKind.QUARANTINE]),
        ({"quarantine": Quarantine("sha256:1", "", None, "the entry … cannot be read")}, [ObstacleKind.QUARANTINE]),
        ({"window": CLOSED}, [ObstacleKind.WINDOW]),
        ({"min_age": 60.0, "image_created": NOW - timedelta(seconds=59)}, [ObstacleKind.AGE]),
        ({"min_age": 60.0, "image_created": NOW - timedelta(seconds=60)}, []),
        ({"min_age": 60.0, "image_created": NOW + timedelta(days=1)}, [ObstacleKind.AGE]),
        ({"min_age": 60.0}, [ObstacleKind.AGE]),
        ({"image_created": NOW}, []),
        ({"pause": Pause("alice", "c", "w", NOW), "window": CLOSED}, [ObstacleKind.PAUSE, ObstacleKind.WINDOW]),
    ],
)
def test_what_the_fleet_and_the_definition_forbid(more: dict[str, Any], kinds: list[ObstacleKind]) -> None:
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
def test_in_maintenance_allows_operators_and_never_reloads(own: Instance, is_allowed: bool, is_clear: bool) -> None:
    """By default an instance that an operator holds out keeps its image."""
    seen = _seen(own, _instance("b"), is_in_maintenance_allowed=is_allowed)

    assert (find_obstacles(seen) == ()) is is_clear
    for obstacle in find_obstacles(replace(seen, is_in_maintenance_allowed=False)):
        assert ("--in-maintenance" in obstacle.remedy) is ("svcagent reload ab12" not in obstacle.what)


def test_both_maintenances_are_named_each_with_its_own_end() -> None:
    service, host = find_obstacles(_seen(_instance("a", held=BY_ALICE, node_held=True), _instance("b")))

    assert "svcagent maint disable web." in service.remedy
    assert "svcagent maint disable --node." in host.remedy


def test_force_overrides_wishes_and_never_maintenance_or_an_unseen_instance() -> None:
    wishes = _seen(
        _instance("a"),
        pause=Pause("alice", "c", "w", NOW),
        quarantine=Quarantine("sha256:1", "b", NOW, "w"),
        window=CLOSED,
        min_age=1.0,
    )
    stand, ignored = overridden(find_obstacles(wishes), is_forced=True)
    assert stand == ()
    assert {one.kind for one in ignored} == {
        ObstacleKind.HEALTH,
        ObstacleKind.PAUSE,
        ObstacleKind.QUARANTINE,
        ObstacleKind.WINDOW,
        ObstacleKind.AGE,
    }
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

    assert able_instances(fleet) == {("passing", "web"), ("critical", "web"), ("reloading", "web")}


def test_a_rollout_does_not_wait_for_a_failed_host() -> None:
    """Its check may still say passing: nobody has updated it since its agent failed."""
    assert able_instances([_instance("alive"), _instance("dead", alive="critical")]) == {("alive", "web")}


@pytest.mark.parametrize(
    ("instances", "known", "min_healthy", "words"),
    [
        # One of two hosts reboots: its agent leaves the catalog.
        ([_instance("a")], {("a", "web"), ("b", "web")}, HALF, ["0 of the 1 other", "not in the catalog: b"]),
        ([_instance("a")], {("b", "web")}, ALL, ["0 of the 1 other", "svcagent fleet web"]),
        ([_instance("a")], {("b", "web")}, NONE, []),
        # Two of four hosts are gone: half of the three others are two, and one passes.
        (
            [_instance("a"), _instance("b")],
            {("c", "web"), ("d", "web")},
            HALF,
            ["1 of the 3 other", "requires 2", ": c, d"],
        ),
        ([_instance("a"), _instance("b"), _instance("c")], {("d", "web")}, HALF, []),
        # In the catalog and known is one instance, and the own one is none of the others.
        ([_instance("a"), _instance("b")], {("a", "web"), ("b", "web")}, ALL, []),
        # A second instance on this host is another one.
        ([_instance("a")], {("a", "web"), ("a", "web-2")}, HALF, ["0 of the 1 other"]),
    ],
)
def test_a_percentage_counts_instances_that_left_the_catalog(
    instances: list[Instance], known: set[tuple[str, str]], min_healthy: MinHealthy, words: list[str]
) -> None:
    """Each row: who is in the catalog, whom the fleet has heard of within a day, what is asked for and said."""
    obstacles = find_obstacles(_seen(*instances, min_healthy=min_healthy, known=known))

    assert [one.kind for one in obstacles] == ([ObstacleKind.HEALTH] if words else [])
    for word in words:
        assert word in " ".join(map(str, obstacles))


@pytest.mark.parametrize(
    ("own", "other", "kinds"),
    [
        (_instance("a", held=BY_RELOAD), _instance("b"), []),
        # An operator took the other one out at the same moment.
        (_instance("a", held=BY_RELOAD), _instance("b", held=BY_ALICE), [ObstacleKind.HEALTH]),
        (_instance("a", held=BY_RELOAD), _instance("b", "critical"), [ObstacleKind.HEALTH]),
        (_instance("a", "warning", held=BY_RELOAD), _instance("b", held=BY_ALICE), [ObstacleKind.HEALTH]),
        (_instance("a", "warning", held=BY_RELOAD), _instance("b", "warning"), []),
        # It served nobody before, so nothing is taken from clients.
        (_instance("a", "critical", held=BY_RELOAD), _instance("b", "critical"), []),
        # An operator's maintenance of this host came in between.
        (_instance("a", held=BY_RELOAD, node_held=True), _instance("b"), [ObstacleKind.MAINTENANCE]),
        # Another reload's maintenance is none of this one.
        (_instance("a", held=BY_RELOAD.replace("ab12cd34", "ffff0000")), _instance("b"), [ObstacleKind.MAINTENANCE]),
        (_instance("a", held=BY_ALICE), _instance("b"), [ObstacleKind.MAINTENANCE]),
    ],
)
def test_own_maintenance_is_no_obstacle(own: Instance, other: Instance, kinds: list[ObstacleKind]) -> None:
    """After a reload's maintenance is visible, its instance is judged as it would be without that."""
    assert [one.kind for one in find_obstacles(_seen(own, other, own_reload="ab12cd34"))] == kinds


def test_without_its_id_a_reloads_maintenance_is_an_obstacle() -> None:
    """The rule above is for the reload that asks, and for no other."""
    obstacles = find_obstacles(_seen(_instance("a", held=BY_RELOAD), _instance("b")))

    assert [one.kind for one in obstacles] == [ObstacleKind.MAINTENANCE]


def test_a_stopped_container_is_left_stopped_unless_it_is_asked_for() -> None:
    """By --force, or by --in-maintenance of an instance that an operator holds in maintenance."""
    stopped: dict[str, Any] = {"stopped": STOPPED}
    plain = find_obstacles(_seen(_instance("a", "critical"), _instance("b"), **stopped))
    held = _seen(_instance("a", "critical", held=BY_ALICE), _instance("b"), is_in_maintenance_allowed=True, **stopped)
    not_held = _seen(_instance("a", "critical"), _instance("b"), is_in_maintenance_allowed=True, **stopped)

    assert [one.kind for one in plain] == [ObstacleKind.STOPPED]
    assert overridden(plain, is_forced=True) == ((), plain)
    assert find_obstacles(held) == ()
    assert [one.kind for one in find_obstacles(not_held)] == [ObstacleKind.STOPPED]


@pytest.mark.parametrize(("remembered", "is_refused"), [(0, False), (30, False), (60, False), (61, True), (3600, True)])
def test_a_ttl_longer_than_a_drain_is_refused_before_it_begins(remembered: int, is_refused: bool) -> None:
    """An hour under the fleet's lock, or a restart under clients that still connect: neither is wanted."""
    obstacles = find_obstacles(_seen(_instance("a"), _instance("b"), remembered=remembered, drain_max=60.0))

    assert [one.kind for one in obstacles] == ([ObstacleKind.DNS] if is_refused else [])
    for obstacle in obstacles:
        assert f"{remembered} s" in obstacle.what
        assert "60 s" in obstacle.what
        assert "reload.drain.max" in obstacle.remedy
