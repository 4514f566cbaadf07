"""What people hear of a whole fleet's rollout: each thing once for all hosts, and nothing waits for it."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fleet.conftest import NAME, Fleet, start
from tests.lab.lab import Lab
from tests.real.notify_fixture import PASSWORD, Endpoint, hanging, settings_file

APPRISE_SECONDS = 4.0
"""After so long without an answer Apprise gives an endpoint up, by default. A step that waited would last as long."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Lab(3) as lab:
        yield start(lab, 0.1)


def roll(fleet: Fleet, *urls: str) -> dict[str, dict[str, Any]]:
    """A reload on every host at once, with these endpoints; how each ended. What they print gives no secret away."""
    processes = {}
    for host in fleet.lab.hosts:
        config = str(settings_file(host.directory, urls))
        processes[host.name] = fleet.lab.svcagent(host, "--config", config, "--json", "-v", "reload", NAME)
    results = {}
    for name, process in processes.items():
        output, errors = process.communicate(timeout=120)
        assert PASSWORD not in output + errors
        assert process.returncode in (0, 1, 75), errors
        results[name] = {**json.loads(output), "log": errors}
    return results


def test_a_rollout_is_notified_at_its_start_and_at_its_end(fleet: Fleet) -> None:
    """One message each, to each endpoint; the end after the last host's release of the lock. And no more when cron
    looks again."""
    fleet.push_next()
    with Endpoint() as one, Endpoint() as other:
        results = roll(fleet, one.url, other.url)
        roll(fleet, one.url, other.url)

    assert {result["outcome"] for result in results.values()} == {"reloaded"}
    digest = results["host1"]["wanted"][:19]
    for endpoint in (one, other):
        assert [message["type"] for message in endpoint.messages] == ["info", "success"], endpoint.titles
        started, finished = endpoint.messages
        assert f"({digest}) started, 0 of 3 hosts run it" in started["title"]
        assert f"({digest}) finished, 3 of 3 hosts run it" in finished["title"]
        assert "run it: host1, host2, host3" in finished["message"]
        assert max(one["released_at"] for one in results.values()) < finished["at"]


def test_a_bad_image_is_reported_once(fleet: Fleet) -> None:
    """Rolled back and quarantined, by the host on which it was, once it is back; three hosts looked."""
    fleet.define(ready={"timeout": "1s"})
    fleet.push_next(healthy=False)
    with Endpoint() as endpoint:
        results = roll(fleet, endpoint.url)
        roll(fleet, endpoint.url)

    assert sorted(one["outcome"] for one in results.values()) == ["refused", "refused", "rolled back"]
    [tried] = [host for host, one in results.items() if one["outcome"] == "rolled back"]
    assert [message["type"] for message in endpoint.messages] == ["info", "failure"], endpoint.titles
    assert f"rolled back on {tried} and quarantined" in endpoint.titles[1]
    assert f"svcagent quarantine clear {NAME} {results[tried]['wanted']}" in endpoint.messages[1]["message"]
    assert fleet.run(0, "quarantine", "clear", NAME, "--all")[0] == 0
    fleet.define()


def test_an_endpoint_that_hangs_delays_no_step_and_no_host(fleet: Fleet) -> None:
    """Beside a rollout of which nobody is told: no step waits, the lock goes on at once, all ends as it would."""
    fleet.push_next()
    plain = roll(fleet)
    fleet.push_next()
    with hanging() as silent:
        slow = roll(fleet, silent)

    assert {one["outcome"] for one in (*plain.values(), *slow.values())} == {"reloaded"}
    assert {one["exit_code"] for one in slow.values()} == {0}
    longest = _longest(plain)
    for step, seconds in _longest(slow).items():
        assert step == "acquire" or seconds < longest[step] + APPRISE_SECONDS, (step, plain, slow)
    by_turn = sorted(slow.values(), key=lambda one: float(one["locked_at"]))
    for before, after in itertools.pairwise(by_turn):
        assert after["locked_at"] - before["released_at"] < APPRISE_SECONDS
    assert any(re.search(r"svcagent( --\S+ \S+)* notify test", one["log"]) for one in slow.values())


def _longest(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Seconds by step, of the host that needed most."""
    longest: dict[str, float] = {}
    for result in results.values():
        for step in result["steps"]:
            longest[step["step"]] = max(step["seconds"], longest.get(step["step"], 0.0))
    return longest
