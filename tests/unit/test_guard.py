"""The guard: every observation in, obstacles out."""

import pytest

from agent.consul import CheckState, Instance
from agent.definitions import MinHealthy
from agent.reload import find_obstacles

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
    obstacles = find_obstacles(instances, "a", "web", min_healthy)

    assert bool(obstacles) is bool(words)
    for word in words:
        assert word in " ".join(map(str, obstacles))


def test_every_obstacle_says_what_to_do() -> None:
    """A refusal without a way out wakes somebody twice."""
    reload_text = "Taken out by svcagent reload ab12cd34 on a since 2026-05-01T12:00:00Z: to run sha256:1"
    worst = [_instance("a", held=reload_text), _instance("b", "critical")]

    obstacles = [*find_obstacles(worst, "a", "web", ONE), *find_obstacles([], "a", "web", ONE)]

    assert obstacles
    assert all(obstacle.remedy for obstacle in obstacles)
    assert any("--force" in obstacle.remedy for obstacle in obstacles)


def test_before_queueing_an_instance_that_a_reload_has_out_counts_as_there() -> None:
    """All hosts start at once: who comes second must wait for the first, not give up on it."""
    reload_text = "Taken out by svcagent reload ab12cd34 on b since 2026-05-01T12:00:00Z: to run sha256:1"
    fleet = [_instance("a"), _instance("b", held=reload_text)]

    assert find_obstacles(fleet, "a", "web", ONE, is_queueing=True) == ()
    assert find_obstacles(fleet, "a", "web", ONE) != ()
