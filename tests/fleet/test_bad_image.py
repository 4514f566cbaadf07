"""What keeps a fleet from a bad image, from a moving tag, and from going on when an operator says stop."""

import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from tests.fleet.conftest import NAME, Fleet, start, until_step
from tests.lab.lab import Lab
from tests.lab.rollout import Rollout
from tests.lab.traffic import Load


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Lab(4) as lab:
        yield start(lab, 0.1)


def test_a_bad_image_stops_at_the_first_host(fleet: Fleet) -> None:
    """One host tries and rolls back, three never drain, nobody notices; cleared, a good image rolls on all four."""
    fleet.define(ready={"timeout": "1s"})
    before = fleet.lab.versions()
    with Load(fleet.lab, rate=100) as load:
        fleet.push_next(healthy=False)
        rollout = Rollout(fleet.lab, NAME)
        results = rollout.results()
        code, listed, _errors = fleet.run(3, "--json", "quarantine", "list", NAME)
        again, refused, said = fleet.run(2, "--json", "reload", NAME)

        assert sorted(one["outcome"] for one in results.values()) == ["refused", "refused", "refused", "rolled back"]
        assert sorted(process.returncode for process in rollout.processes.values()) == [1, 75, 75, 75]
        assert fleet.lab.versions() == before
        [entry] = json.loads(listed)
        tried = next(host for host, one in results.items() if one["outcome"] == "rolled back")
        assert (code, entry["host"]) == (0, tried)
        assert "listening" in results[tried]["log_tail"]
        assert entry.get("log", "") == "", "what a container prints stays on its host"
        assert (again, json.loads(refused)["kind"]) == (75, "quarantined")
        assert "svcagent quarantine clear" in said

        assert fleet.run(1, "quarantine", "clear", NAME, "--all")[0] == 0
        version = fleet.push_next()
        good = Rollout(fleet.lab, NAME)
        good.wait(120)
        summary = load.stop()

    assert summary.failed == ()
    assert set(fleet.lab.versions().values()) == {version}, good.results()
    assert fleet.leftovers() == []


def test_a_container_that_cannot_even_start_is_quarantined(fleet: Fleet) -> None:
    """The image's program exits immediately: rolled back and quarantined; its last lines are in the result."""
    before = fleet.lab.versions()
    fleet.push_next(broken=True)

    code, output, errors = fleet.run(0, "--json", "reload", NAME)
    _code, listed, _none = fleet.run(1, "--json", "quarantine", "list", NAME)

    assert code == 1
    result = json.loads(output)
    *_cause, rolled_back, quarantined = errors.splitlines()
    assert rolled_back == f"svcagent: {NAME}: rolled back; {result['running'][:19]} runs again on host1, in service"
    assert quarantined.startswith(f"svcagent: {NAME}: {result['quarantined'][:19]} is quarantined")
    assert fleet.lab.versions() == before
    assert "the index is damaged" in result["log_tail"]
    assert [one["digest"] for one in json.loads(listed)] == [result["quarantined"]]
    assert fleet.run(0, "quarantine", "clear", NAME, "--all")[0] == 0


def test_an_operators_maintenance_outlives_a_rollout(fleet: Fleet) -> None:
    """By default that host keeps its image; with --in-maintenance it takes the new one; out of service all the time."""
    assert fleet.run(1, "maint", "enable", NAME, "--reason", "disk swap")[0] == 0
    before = fleet.lab.versions()["host2"]
    version = fleet.push_next()
    rollout = Rollout(fleet.lab, NAME)
    results = rollout.results()

    assert results["host2"]["outcome"] == "refused"
    assert "--in-maintenance" in results["host2"]["error"]
    assert fleet.lab.versions() == {"host1": version, "host2": before, "host3": version, "host4": version}
    assert fleet.lab.consul().passing() == ("host1", "host3", "host4")

    code, _output, errors = fleet.run(1, "reload", NAME, "--in-maintenance")

    assert code == 0, errors
    assert fleet.lab.versions()["host2"] == version
    assert fleet.lab.consul().passing() == ("host1", "host3", "host4")
    assert fleet.run(1, "maint", "disable", NAME)[0] == 0
    fleet.lab.wait_passing()


def test_a_tag_that_moves_during_a_rollout_waits_for_the_next(fleet: Fleet) -> None:
    """Hosts that saw the digest take it; the newer image comes after that, or where an operator forces it."""
    fleet.define(drain={"min": "1s"})
    before = fleet.lab.versions()["host4"]
    first = fleet.push_next()
    process = fleet.lab.svcagent(fleet.lab.hosts[0], "-v", "reload", NAME)
    until_step(process, "drain")
    for host in fleet.lab.hosts[1:3]:  # which see the tag before it moves
        waiting = fleet.lab.svcagent(host, "-v", "reload", NAME)
        until_step(waiting, "acquire")
        waiting.terminate()
        waiting.communicate(timeout=60)
    fleet.lab.push("moved")
    others = [fleet.lab.svcagent(host, "reload", NAME) for host in fleet.lab.hosts[1:]]
    said = [one.communicate(timeout=60)[1] for one in (process, *others)]

    assert [one.returncode for one in (process, *others)] == [0, 0, 0, 75]
    assert f"svcagent reload {NAME} --force" in said[1], "it says that a newer one is there, and how to take it"
    assert "host1" in said[3], "a digest that only the pin speaks for is not taken, and its author is named"
    assert fleet.lab.versions() == dict.fromkeys(("host1", "host2", "host3"), first) | {"host4": before}

    assert fleet.run(3, "reload", NAME, "--force")[0] == 0

    rollout = Rollout(fleet.lab, NAME)
    rollout.wait(120)
    assert set(fleet.lab.versions().values()) == {"moved"}
    fleet.define()


def test_a_pause_stops_those_who_wait_for_the_lock(fleet: Fleet) -> None:
    """Who is at it finishes; who waits is refused when its turn comes, and told who paused it; resumed, they roll."""
    fleet.define(drain={"min": "8s"})
    version = fleet.push_next()
    with ExitStack() as stack:
        first = fleet.lab.svcagent(fleet.lab.hosts[0], "-v", "reload", NAME)
        stack.callback(first.communicate)
        until_step(first, "drain")
        second = fleet.lab.svcagent(fleet.lab.hosts[1], "-v", "--json", "reload", NAME)
        until_step(second, "acquire")
        assert fleet.run(3, "pause", NAME, "--reason", "incident")[0] == 0
        output, errors = second.communicate(timeout=60)

    assert (first.returncode, second.returncode) == (0, 75)
    assert json.loads(output)["kind"] == "paused"
    assert "incident" in errors
    assert f"svcagent resume {NAME}" in errors
    assert fleet.lab.versions()["host1"] == version != fleet.lab.versions()["host2"]

    forced, _said, notes = fleet.run(1, "reload", NAME, "--force")
    assert forced == 0
    assert "--force overrides: reloads of keyword-suggest are paused" in notes
    assert fleet.run(0, "resume", NAME)[0] == 0
    Rollout(fleet.lab, NAME).wait(120)
    assert set(fleet.lab.versions().values()) == {version}
    fleet.define()


def test_windows_and_age_are_respected(fleet: Fleet) -> None:
    """Outside the window, or with an image that was just built: 75, and when it will be possible."""
    now = datetime.now(UTC)
    begin, end = now + timedelta(hours=3), now + timedelta(hours=4)
    fleet.push_next()
    fleet.define(timezone="UTC", windows=[f"{begin:%H:%M}-{end:%H:%M}"])
    closed, _output, said_closed = fleet.run(0, "reload", NAME)
    fleet.define(min_age="1h")
    young, _young_output, said_young = fleet.run(0, "reload", NAME)
    fleet.define()

    assert (closed, young) == (75, 75)
    assert f"{begin:%H:%M}" in said_closed
    assert "reload.min_age" in said_young


def test_two_at_a_time_keep_enough_others_in_service(fleet: Fleet) -> None:
    """With max_parallel 2 a rollout takes half the turns, and min_healthy still holds."""
    fleet.define(max_parallel=2, min_healthy=2, lock="keyword_suggest_pairs")
    version = fleet.push_next()
    with Load(fleet.lab, rate=100) as load:
        rollout = Rollout(fleet.lab, NAME)
        results = rollout.results()
        summary = load.stop()

    assert {one["outcome"] for one in results.values()} == {"reloaded"}, results
    assert summary.failed == ()
    assert set(fleet.lab.versions().values()) == {version}
    spans = sorted((one["locked_at"], one["released_at"]) for one in results.values())
    assert any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans)), spans
    assert fleet.leftovers() == []
    fleet.define()
