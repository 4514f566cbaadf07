"""What a reload refuses on a fleet whose hosts reboot, warn, or have a container that an operator stopped."""

import json
from collections.abc import Iterator

import pytest

from agent.registration.mark import MARK
from tests.fleet.conftest import NAME, Fleet, start
from tests.lab.ground import wait_until
from tests.lab.lab import Lab
from tests.lab.traffic import Load


@pytest.fixture(scope="module")
def running() -> Iterator[Fleet]:
    with Lab(2) as lab:
        yield start(lab, 0.1)


@pytest.fixture
def fleet(running: Fleet) -> Fleet:
    """Both hosts passing, and each has reported what it runs."""
    running.reset()
    for host in (0, 1):
        code, _output, errors = running.run(host, "reload", NAME)
        assert code == 0, errors
    return running


def _warn(fleet: Fleet, status: str = "warning") -> None:
    """A second check of the first host's instance, which says this."""
    agent = fleet.lab.consul(fleet.lab.hosts[0])
    agent.put("/v1/agent/check/register", {"ID": "disk", "Name": "disk", "ServiceID": NAME, "TTL": "1h"})
    agent.put("/v1/agent/check/update/disk", {"Status": status})
    wait_until(lambda: _statuses(fleet).get("disk") == status, 10, f"the catalog shows {status}")


def _statuses(fleet: Fleet) -> dict[str, str]:
    entries = fleet.lab.consul().get(f"/v1/health/service/{NAME}")
    return {check["CheckID"]: check["Status"] for one in entries for check in one["Checks"]}


@pytest.mark.parametrize("min_healthy", ["50%", "100%", 1])
def test_a_host_that_reboots_is_no_consent(fleet: Fleet, min_healthy: str | int) -> None:
    """Its agent leaves the catalog at SIGTERM, and the last instance stays in service until it is back."""
    first, second = fleet.lab.hosts
    fleet.define(min_healthy=min_healthy)
    fleet.push_next()
    before = fleet.lab.versions()[first.name]
    second.consul.stop()
    fleet.lab.wait_passing([first])
    with Load(fleet.lab, rate=50) as load:
        load.wait_for(requests=20)
        code, output, errors = fleet.run(0, "--json", "reload", NAME)
        summary = load.stop()
    second.consul.restart()
    fleet.lab.wait_passing()

    assert (code, json.loads(output)["kind"]) == (75, "too-few-healthy"), errors
    assert second.name in errors
    # The stopped agent answers nothing; clients of another agent are served.
    assert {one.what for one in summary.failed} <= {"dns: refused"}
    assert {one.resolver for one in summary.failed} <= {f"{second.dns[0]}:{second.dns[1]}"}
    assert fleet.lab.versions()[first.name] == before
    assert fleet.run(0, "reload", NAME)[0] == 0


def test_the_last_instance_served_is_not_drained_because_it_warns(fleet: Fleet) -> None:
    """Consul DNS sends clients to it, and an operator has the other one in maintenance."""
    _warn(fleet)
    fleet.push_next()
    before = fleet.lab.versions()
    assert fleet.run(1, "maint", "enable", NAME, "--reason", "disk")[0] == 0
    with Load(fleet.lab, rate=50) as load:
        load.wait_for(requests=20)
        code, output, errors = fleet.run(0, "--json", "reload", NAME)
        guarded, _output, _errors = fleet.run(0, "maint", "enable", NAME, "--reason", "x", "--guard")
        summary = load.stop()
    assert fleet.run(1, "maint", "disable", NAME)[0] == 0
    wait_until(lambda: "_service_maintenance:" + NAME not in _statuses(fleet), 10, "the other one is back")

    assert (code, guarded) == (75, 75), errors
    assert json.loads(output)["kind"] == "too-few-healthy"
    assert summary.failures == 0
    assert fleet.lab.versions() == before
    code, _output, errors = fleet.run(0, "reload", NAME)
    assert code == 0, errors
    fleet.lab.consul(fleet.lab.hosts[0]).deregister_check("disk")


def test_a_container_that_an_operator_stopped_stays_stopped_and_every_verb_says_so(fleet: Fleet) -> None:
    """With something newer it is refused, without it is warned of; --force replaces it."""
    host = fleet.lab.hosts[0]
    host.engine.api.stop(NAME, timeout=5)
    start_it = f"docker start {NAME}"
    for verb in (("reload", NAME), ("register",), ("recover",), ("status",), ("fleet", NAME), ("why", NAME)):
        code, output, errors = fleet.run(0, *verb)
        assert code in (0, 75), errors
        assert start_it in output + errors, verb

    version = fleet.push_next()
    code, _output, errors = fleet.run(0, "reload", NAME)
    assert code == 75, errors
    assert start_it in errors
    assert host.engine.api.inspect_container(NAME)["State"]["Status"] == "exited"
    explained = json.loads(fleet.run(0, "--json", "why", NAME)[1])
    assert "stopped-by-operator" in {one["kind"] for one in explained["reasons"]}
    assert start_it in explained["stopped"]

    code, _output, errors = fleet.run(0, "reload", NAME, "--force")
    assert code == 0, errors
    assert "--force overrides" in errors
    assert fleet.lab.versions()[host.name] == version


def test_a_stopped_container_in_maintenance_is_not_reported(fleet: Fleet) -> None:
    """The operator who did both knows, and cron would mail it."""
    host = fleet.lab.hosts[0]
    assert fleet.run(0, "maint", "enable", NAME, "--reason", "disk")[0] == 0
    host.engine.api.stop(NAME, timeout=5)

    assert fleet.run(0, "reload", NAME)[1:] == ("", "")

    host.engine.api.start(NAME)
    assert fleet.run(0, "maint", "disable", NAME)[0] == 0
    fleet.lab.wait_passing()


def test_status_shows_what_the_next_reload_meets(fleet: Fleet) -> None:
    """A pause, the newer image that this host has seen, a quarantined version, a stopped container, and what nothing
    defines; for programs with types, whole digests and times.
    """
    host = fleet.lab.hosts[0]
    running = json.loads(fleet.run(0, "--json", "status")[1])["services"][0]["digest"]
    assert fleet.run(0, "pause", NAME, "--reason", "incident")[0] == 0
    fleet.push_next()
    assert fleet.run(0, "reload", NAME)[0] == 75
    newest = json.loads(fleet.run(0, "--json", "why", NAME)[1])["newest"]
    quarantined = {"v": 1, "node": "host2", "since": "2026-01-01T00:00:00+00:00", "why": "no answer", "log": ""}
    place = f"svcagent/{NAME}/quarantine/{newest.replace(':', '-')}"
    fleet.lab.consul().put(f"/v1/kv/{place}", quarantined)
    registered = {"ID": "old", "Name": "old", "Meta": {MARK: ""}}
    fleet.lab.consul(host).put("/v1/agent/service/register", registered)
    host.engine.api.stop(NAME, timeout=5)
    wait_until(lambda: "host1" not in fleet.lab.consul().passing(), 10, "Consul notices the stopped container")
    try:
        code, output, errors = fleet.run(0, "status")
        tree = json.loads(fleet.run(0, "--json", "status")[1])
    finally:
        host.engine.api.start(NAME)
        fleet.lab.consul(host).put("/v1/agent/service/deregister/old")
        fleet.reset()

    assert code == 0, errors
    [found] = tree["services"]
    assert (found["digest"], found["newest"], found["has_newer"]) == (running, newest, True)
    assert (found["pause"]["why"], [one["digest"] for one in found["quarantined"]]) == ("incident", [newest])
    assert (found["container"], found["container_state"], found["checks"]) == (NAME, "stopped", 1)
    assert (found["state"], found["registration"], tree["undefined"]) == ("critical", "up to date", ["old"])
    for part in ("incident", newest, "is quarantined", f"{NAME} (stopped)", "svcagent deregister old"):
        assert part in output, part
