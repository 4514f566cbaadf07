"""``svcagent reload`` on a fleet: what it refuses, what it repairs, how it ends."""

import json
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

from tests.fleet.conftest import NAME, Fleet, until_step
from tests.lab.ground import wait_until
from tests.lab.rollout import Rollout
from tests.lab.traffic import Load


def _session_index(fleet: Fleet) -> str:
    import requests

    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"{fleet.lab.consul().url}/v1/session/list", timeout=5).headers["X-Consul-Index"]


def test_nothing_new_prints_nothing_takes_no_lock_and_pulls_nothing(fleet: Fleet) -> None:
    """From cron, every ten minutes, on every host: silence, and no write to Consul."""
    sessions = _session_index(fleet)
    images = fleet.lab.hosts[0].engine.api.images()

    code, output, errors = fleet.run(0, "reload", NAME)

    assert (code, output, errors) == (0, "", "")
    assert _session_index(fleet) == sessions
    assert fleet.lab.hosts[0].engine.api.images() == images


def test_nothing_new_is_found_out_without_the_libraries_that_are_slow_to_import(fleet: Fleet) -> None:
    """The whole process is to take no longer than three times what the script takes."""
    argv = (sys.executable, "-X", "importtime", "-P", "-m", "agent", "reload", NAME)
    process = fleet.lab.command(fleet.lab.hosts[0], *argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    _output, imported = process.communicate(timeout=90)

    assert process.returncode == 0, imported
    roots = {line.rpartition("|")[2].strip().partition(".")[0] for line in imported.splitlines()}
    assert "agent" in roots
    assert roots.isdisjoint({"consul", "docker", "requests", "urllib3", "rich", "dns", "asyncio"})


def test_check_changes_nothing(fleet: Fleet) -> None:
    """It reports what is new, without pull, lock or drain."""
    fleet.push_next()
    images = fleet.lab.hosts[0].engine.api.images()
    sessions = _session_index(fleet)
    before = fleet.lab.versions()

    code, output, _errors = fleet.run(0, "--json", "reload", "--check", NAME)

    assert code == 0
    assert json.loads(output)["is_newer"] is True
    assert fleet.lab.hosts[0].engine.api.images() == images
    assert _session_index(fleet) == sessions
    assert fleet.lab.versions() == before


def test_a_second_reload_on_the_same_host_is_refused_or_waits(fleet: Fleet) -> None:
    """Never two at a time: 75 at once, or after its wait nothing left to do."""
    fleet.define(drain={"min": "3s"})
    version = fleet.push_next()
    with ExitStack() as stack:
        first = fleet.lab.svcagent(fleet.lab.hosts[0], "-v", "reload", NAME)
        stack.callback(first.communicate)
        until_step(first, "drain")

        code, _output, errors = fleet.run(0, "reload", NAME)
        waited_code, waited_output, waited_errors = fleet.run(0, "--json", "reload", NAME, "--lock-timeout", "60s")

        assert first.wait(1) == 0
    assert code == 75
    assert f"pid {first.pid}" in errors
    assert "--lock-timeout" in errors
    assert waited_code == 0, waited_errors
    assert json.loads(waited_output)["outcome"] == "up to date"
    assert fleet.lab.versions()["host1"] == version
    fleet.reset()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "step",
    [
        *("check", "pull", "guard", "acquire", "plan again", "prepare"),
        *("drain", "restart", "ready", "return", "clean", "release"),
    ],
)
def test_a_signal_in_any_step_puts_the_service_back(fleet: Fleet, step: str, signum: signal.Signals) -> None:
    """Before the process ends: in service, lock and session gone, no second container; exit code 130 or 143."""
    host = fleet.lab.hosts[0]
    before = fleet.lab.versions()["host1"]
    version = fleet.push_next()
    process = fleet.lab.svcagent(host, "-v", "reload", NAME)
    until_step(process, step)

    process.send_signal(signum)
    _output, errors = process.communicate(timeout=60)

    assert process.returncode == 128 + signum, errors
    assert "host1" in fleet.lab.consul().passing()
    assert fleet.leftovers() == []
    assert fleet.lab.versions()["host1"] in (before, version)
    if step in ("check", "pull", "guard", "acquire", "plan again", "prepare", "drain"):
        assert fleet.lab.versions()["host1"] == before


def test_a_terminal_that_is_gone_puts_the_service_back(fleet: Fleet) -> None:
    """SIGHUP, as from a lost connection to the host: 129, and in service before the process ends."""
    before = fleet.lab.versions()["host1"]
    fleet.push_next()
    process = fleet.lab.svcagent(fleet.lab.hosts[0], "-v", "reload", NAME)
    until_step(process, "drain")

    process.send_signal(signal.SIGHUP)
    _output, errors = process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGHUP, errors
    assert fleet.lab.versions()["host1"] == before
    assert "host1" in fleet.lab.consul().passing()
    assert fleet.leftovers() == []


def test_an_image_that_does_not_become_ready_is_rolled_back(fleet: Fleet) -> None:
    """Nobody notices: the old container is back, in service, the exit code says 1, and why."""
    fleet.define(ready={"timeout": "2s"})
    before = fleet.lab.versions()
    fleet.push_next(healthy=False)
    with Load(fleet.lab) as load:
        load.wait_for(requests=200)
        code, output, _errors = fleet.run(0, "--json", "reload", NAME)
        load.wait_for(requests=200)
        summary = load.stop()

    result = json.loads(output)
    assert (code, result["outcome"], result["kind"]) == (1, "rolled back", "not-ready")
    assert summary.failed == ()
    assert fleet.lab.versions() == before
    assert fleet.leftovers() == []
    assert len(fleet.lab.consul().passing()) == 2


def test_an_image_that_exits_is_rolled_back_immediately_with_its_log_tail(fleet: Fleet) -> None:
    """The container's own log says why, and is shown before it is removed."""
    before = fleet.lab.versions()
    fleet.push_next(broken=True)

    code, output, errors = fleet.run(0, "--json", "reload", NAME)

    assert code == 1
    assert "the index is damaged" in errors
    assert "the index is damaged" in json.loads(output)["log_tail"]
    assert "the index is damaged" not in json.loads(output)["error"]
    assert fleet.lab.versions() == before
    assert fleet.leftovers() == []


def test_an_operators_maintenance_stops_a_reload_and_survives_it(fleet: Fleet) -> None:
    """Refused with exit code 75, saying whose it is; afterwards it is as it was."""
    fleet.push_next()
    code, _output, errors = fleet.run(0, "maint", "enable", NAME, "--reason", "disk swap")
    assert code == 0, errors

    refused, _refused_output, said = fleet.run(0, "reload", NAME)
    _status, table, _none = fleet.run(0, "--json", "maint", "status", NAME)

    assert refused == 75
    assert "disk swap" in said
    assert "svcagent maint disable" in said
    assert json.loads(table)[0]["maintenance"]["reason"] == "disk swap"
    assert fleet.run(0, "maint", "disable", NAME)[0] == 0
    fleet.lab.wait_passing()


def test_an_operator_takes_over_from_a_running_reload(fleet: Fleet) -> None:
    """The reload is not disturbed, ends well, says so, and leaves out of service what is no longer its own."""
    fleet.define(drain={"min": "8s"})
    version = fleet.push_next()
    process = fleet.lab.svcagent(fleet.lab.hosts[0], "-v", "reload", NAME)
    until_step(process, "drain")
    wait_until(lambda: "host1" not in fleet.lab.consul().passing(), 10, "host1 is drained")

    refused, _said, _why = fleet.run(0, "maint", "enable", NAME, "--reason", "disk swap", "--replace")
    taken, _output, errors = fleet.run(0, "maint", "enable", NAME, "--reason", "disk swap", "--replace", "--force")
    _reloaded, notes = process.communicate(timeout=60)

    assert (refused, taken, process.returncode) == (1, 0, 0), errors
    assert "another owner" in notes
    assert fleet.lab.versions()["host1"] == version
    assert fleet.lab.consul().passing() == ("host2",)
    assert fleet.run(0, "maint", "disable", NAME)[0] == 0
    assert fleet.leftovers() == []
    fleet.reset()


def test_the_last_passing_instance_is_not_drained(fleet: Fleet) -> None:
    """With the other host out, this one is all that clients have."""
    fleet.push_next()
    assert fleet.run(1, "maint", "enable", NAME, "--reason", "away")[0] == 0

    code, output, _errors = fleet.run(0, "--json", "reload", NAME)

    assert (code, json.loads(output)["kind"]) == (75, "too-few-healthy")
    assert fleet.lab.consul().passing() == ("host1",)
    assert fleet.run(1, "maint", "disable", NAME)[0] == 0
    fleet.lab.wait_passing()


def test_a_lock_taken_away_while_draining_brings_the_service_back(fleet: Fleet) -> None:
    """Nothing disruptive starts without the lock: the old container stays, and is in service again."""
    fleet.define(drain={"min": "0s", "max": "30s"})
    before = fleet.lab.versions()
    fleet.push_next()
    host = fleet.lab.hosts[0]
    with _held_connection(host.address):
        process = fleet.lab.svcagent(host, "-v", "reload", NAME)
        until_step(process, "drain")
        wait_until(lambda: "host1" not in fleet.lab.consul().passing(), 10, "host1 is drained")
        fleet.lab.consul().delete("/v1/kv/keyword_suggest_reload/.lock")
        _output, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "was lost" in errors
    assert fleet.lab.versions() == before
    assert fleet.leftovers() == []
    assert "host1" in fleet.lab.consul().passing()


def _held_connection(address: str) -> ExitStack:
    """A client that keeps its connection open."""
    import socket

    stack = ExitStack()
    connection = stack.enter_context(socket.create_connection((address, 8080)))
    connection.sendall(b"GET / HTTP/1.1\r\n")
    return stack


def test_two_hosts_take_turns(fleet: Fleet) -> None:
    """The fleet's lock is held by one at a time: the second is locked only after the first has released."""
    fleet.reset()
    fleet.push_next()
    rollout = Rollout(fleet.lab, NAME)
    first, second = sorted(rollout.results().values(), key=lambda result: float(result["locked_at"]))

    assert first["released_at"] <= second["locked_at"] + 0.05
    assert {first["outcome"], second["outcome"]} == {"reloaded"}
