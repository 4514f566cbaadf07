"""What is said about a version that failed, or whose host disappeared with it, and what is refused before the drain."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fleet.conftest import NAME, Fleet, start, until_step
from tests.lab import image
from tests.lab.ground import wait_until
from tests.lab.lab import Lab
from tests.lab.rollout import Rollout
from tests.lab.traffic import Load
from tests.support.http import QuietHandler, serving

SIDE_PORT = 8181


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Lab(3) as lab:
        yield start(lab, 0.1)


class Fine(QuietHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


@contextmanager
def side_service(fleet: Fleet) -> Iterator[None]:
    """Inside the block a second check of the first host's service is answered."""
    address = (fleet.lab.hosts[0].address, SIDE_PORT)
    with serving(Fine, address):
        yield


def checked_also(fleet: Fleet, host: int, url: str, interval: str) -> None:
    """Add a check to the definition of one host's service."""
    file = fleet.lab.hosts[host].services_dir / f"{NAME}.json"
    definition = json.loads(file.read_text())
    definition["service"]["checks"].append({"http": url, "interval": interval, "timeout": "1s"})
    file.write_text(json.dumps(definition))


def test_a_version_that_disappears_with_its_host_is_suspect(fleet: Fleet) -> None:
    """Power is lost while the new container is judged: no other host takes it until somebody says what happened."""
    fleet.define(ready={"timeout": "60s"})
    before = fleet.lab.versions()
    version = fleet.push_next(healthy=False)
    process = fleet.lab.svcagent(fleet.lab.hosts[0], "-v", "reload", NAME)
    until_step(process, "ready")
    fleet.lab.hosts[0].power_off()
    process.kill()
    process.communicate(timeout=10)

    code, output, errors = fleet.run(1, "--json", "reload", NAME, "--lock-timeout", "90s", seconds=120)

    assert code == 75, errors
    result = json.loads(output)
    assert "suspect" in result["error"]
    assert "host1" in result["error"]
    assert f"svcagent quarantine clear {NAME}" in result["error"]
    assert fleet.lab.versions()["host2"] == before["host2"]
    _code, why, _errors = fleet.run(2, "--json", "why", NAME)
    assert "suspect" in [reason["kind"] for reason in json.loads(why)["reasons"]]
    _code, listed, _errors = fleet.run(2, "quarantine", "list", NAME)
    assert "host1" in listed

    fleet.lab.hosts[0].power_on()
    code, _output, errors = fleet.run(0, "register", seconds=120)
    assert code == 0, errors
    wait_until(lambda: "host1" in fleet.lab.consul().passing(), 30, "host1 is back on its old version")
    assert fleet.lab.versions()["host1"] == before["host1"] != version
    code, _output, errors = fleet.run(1, "reload", NAME)
    assert (code, "quarantined" in errors) == (75, True), "the host has judged it"
    assert fleet.run(0, "quarantine", "clear", NAME, "--all")[0] == 0
    fleet.push_next()
    fleet.reset()


def test_a_check_that_redirects_to_no_address_is_a_bad_version_and_nothing_more(fleet: Fleet) -> None:
    """It stops at the first host, which is back in service; no other host drains."""
    fleet.push_next(check=image.PASSING_CHECK)
    Rollout(fleet.lab, NAME).wait(120)
    for number, host in enumerate(fleet.lab.hosts):
        checked_also(fleet, number, f"http://{host.address}:{image.PORT}/cgi-bin/hc", "1s")
        assert fleet.run(number, "register")[0] == 0
    fleet.lab.wait_passing()
    before = fleet.lab.versions()
    with Load(fleet.lab, rate=100) as load:
        for host in fleet.lab.hosts:
            file = host.services_dir / f"{NAME}.json"
            definition = json.loads(file.read_text())
            definition["reload"]["ready"] = {"timeout": "2s"}
            file.write_text(json.dumps(definition))
        fleet.push_next(check=image.REDIRECTED_CHECK)
        results = Rollout(fleet.lab, NAME).results()
        summary = load.stop()

    assert sorted(one["outcome"] for one in results.values()) == ["refused", "refused", "rolled back"], results
    assert fleet.lab.versions() == before
    assert summary.failed == ()
    assert fleet.leftovers() == []
    assert fleet.run(0, "quarantine", "clear", NAME, "--all")[0] == 0
    fleet.push_next()
    fleet.reset()


def test_a_check_that_svcagent_judges_otherwise_is_refused_before_the_drain(fleet: Fleet) -> None:
    """And where that is overridden, the old version returns as it was, and the new one is not blamed."""
    fleet.define(ready={"timeout": "2s"})
    with side_service(fleet):
        checked_also(fleet, 0, f"http://{fleet.lab.hosts[0].address}:{SIDE_PORT}/", "1h")
        assert fleet.run(0, "register")[0] == 0
        fleet.lab.wait_passing()
    before = fleet.lab.versions()["host1"]
    fleet.push_next()
    with Load(fleet.lab, rate=100) as load:
        code, output, errors = fleet.run(0, "--json", "reload", NAME)
        assert code == 75, errors
        assert "drain" not in [step["step"] for step in json.loads(output)["steps"]]
        assert str(SIDE_PORT) in json.loads(output)["error"]

        code, output, errors = fleet.run(0, "--json", "reload", NAME, "--force", seconds=150)
        assert (code, json.loads(output)["outcome"]) == (1, "environment"), errors
        summary = load.stop()

    assert summary.failed == ()
    assert fleet.lab.versions()["host1"] == before
    assert "host1" in fleet.lab.consul().passing()
    _code, listed, _errors = fleet.run(1, "--json", "quarantine", "list", NAME)
    assert json.loads(listed) == []
    fleet.reset()


def test_a_container_that_crash_loops_is_replaced_and_one_that_was_stopped_is_not(fleet: Fleet) -> None:
    """A newer image is what a crashing one needs; what an operator stopped stays stopped, and is said."""
    host = fleet.lab.hosts[0]
    fleet.push_next()
    fleet.reset()
    host.engine.api.stop(NAME, timeout=2)
    version = fleet.push_next()

    code, _output, errors = fleet.run(0, "reload", NAME)

    assert code == 75, errors
    assert "docker start" in errors
    assert fleet.lab.versions()["host1"] is None

    code, _output, errors = fleet.run(0, "reload", NAME, "--force")
    assert code == 0, errors
    assert fleet.lab.versions()["host1"] == version
    fleet.lab.wait_passing()
