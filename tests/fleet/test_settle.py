"""A version is proven under traffic before the next host takes it, and blamed only where it is shown to be at fault."""

import json
import signal
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fleet.conftest import NAME, Fleet, start, until_step
from tests.lab import image
from tests.lab.ground import wait_until
from tests.lab.lab import Lab
from tests.lab.rollout import Rollout
from tests.lab.traffic import Load

DATABASE = 5432


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Lab(2) as lab:
        yield start(lab, 0.1)


def quarantined(fleet: Fleet) -> list[str]:
    _code, listed, _errors = fleet.run(1, "--json", "quarantine", "list", NAME)
    return [entry["digest"] for entry in json.loads(listed)]


class Database(socketserver.ThreadingTCPServer):
    """Accepts and hangs up; started again on the port that it had."""

    allow_reuse_address = True
    daemon_threads = True


@contextmanager
def database(fleet: Fleet) -> Iterator[None]:
    """What a dependent version on the first host needs, inside the block: something that accepts and hangs up."""
    address = (fleet.lab.hosts[0].address, DATABASE)
    with Database(address, socketserver.BaseRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("serve", [image.EXITS_AT_FIRST_REQUEST, image.EXITS_SOON])
def test_a_version_that_fails_in_service_stops_at_the_first_host(fleet: Fleet, serve: str) -> None:
    """It passes its check, and ends under traffic or soon after: rolled back, quarantined, never on the other host."""
    fleet.define(settle={"canary": "5s", "each": "1s"})
    before = fleet.lab.versions()
    with Load(fleet.lab, rate=100) as load:
        load.wait_for(requests=50)
        fleet.push_next(serve=serve)
        rollout = Rollout(fleet.lab, NAME)
        results = rollout.results()
        summary = load.stop()

    assert sorted(one["outcome"] for one in results.values()) == ["refused", "rolled back"], results
    assert fleet.lab.versions() == before
    assert len(quarantined(fleet)) == 1
    # Those that were sent to it before it was out again: a few, not half of them for ever.
    assert summary.failures < 100
    assert set(fleet.lab.consul().passing()) == {"host1", "host2"}
    assert fleet.leftovers() == []
    assert fleet.run(0, "quarantine", "clear", NAME, "--all")[0] == 0


def test_a_good_version_settles_on_the_first_host_for_longer_than_on_the_second(fleet: Fleet) -> None:
    """The first one waits for ``canary``, the second one for ``each``; no request is lost."""
    fleet.define(settle={"canary": "4s", "each": "0.5s"})
    with Load(fleet.lab, rate=100) as load:
        version = fleet.push_next()
        results = Rollout(fleet.lab, NAME).results()
        summary = load.stop()

    assert set(fleet.lab.versions().values()) == {version}
    assert summary.failed == ()
    seconds = sorted(step["seconds"] for one in results.values() for step in one["steps"] if step["step"] == "settle")
    assert seconds[1] >= 4 > seconds[0]
    assert {one["is_settled"] for one in results.values()} == {True}


def test_a_signal_in_settle_leaves_the_new_version_in_service_and_the_next_host_settles_as_first(fleet: Fleet) -> None:
    fleet.define(settle={"canary": "3s", "each": "0.1s"})
    version = fleet.push_next()
    process = fleet.lab.svcagent(fleet.lab.hosts[0], "-v", "--json", "reload", NAME)
    until_step(process, "settle")
    process.send_signal(signal.SIGTERM)
    output, _errors = process.communicate(timeout=60)
    result = json.loads(output)

    assert (process.returncode, result["outcome"], result["is_settled"]) == (143, "reloaded", False)
    assert "did not complete reload.settle" in result["error"]
    assert fleet.lab.versions()["host1"] == version
    assert fleet.leftovers() == []

    code, output, errors = fleet.run(1, "--json", "reload", NAME)
    settled = next(step for step in json.loads(output)["steps"] if step["step"] == "settle")
    assert (code, settled["seconds"] >= 3) == (0, True), errors


def test_a_container_that_an_operator_restarts_in_settle_is_watched_again(fleet: Fleet) -> None:
    """It is said; the version is not blamed, and its proof begins again."""
    fleet.define(settle={"canary": "3s", "each": "0.1s"})
    version = fleet.push_next()
    process = fleet.lab.svcagent(fleet.lab.hosts[0], "-v", "--json", "reload", NAME)
    until_step(process, "settle")
    fleet.lab.hosts[0].engine.api.restart(NAME, timeout=0)
    output, errors = process.communicate(timeout=60)
    result = json.loads(output)

    assert (process.returncode, result["outcome"], result["is_settled"]) == (0, "reloaded", True), errors
    assert "another process restarted the container" in errors
    assert fleet.lab.versions()["host1"] == version
    assert (quarantined(fleet), fleet.leftovers()) == ([], [])


def test_a_version_is_not_blamed_for_what_the_old_one_lacks_too(fleet: Fleet) -> None:
    """A database is away while the new version is judged: nothing is quarantined, the instance comes back with it."""
    check = f"http://{fleet.lab.hosts[0].address}:{image.PORT}/cgi-bin/hc"
    fleet.define(ready={"timeout": "3s"})
    fleet.push_next(check=image.DEPENDENT_CHECK)
    assert fleet.run(0, "reload", NAME)[0] == 0
    file = fleet.lab.hosts[0].services_dir / f"{NAME}.json"
    definition = json.loads(file.read_text())
    definition["service"]["checks"][0]["http"] = check
    file.write_text(json.dumps(definition))
    with database(fleet):
        assert fleet.run(0, "register")[0] == 0
        fleet.lab.wait_passing()
        before = fleet.lab.versions()["host1"]
        version = fleet.push_next(check=image.DEPENDENT_CHECK)
        process = fleet.lab.svcagent(fleet.lab.hosts[0], "-v", "--json", "reload", NAME)
        until_step(process, "restart")
    until_step(process, "roll back")
    until_step(process, "ready")
    wait_until(lambda: fleet.lab.versions()["host1"] == before, 20, "the old version runs")
    log = fleet.lab.hosts[0].engine.api.logs
    seen = log(NAME).count(b"the database is away")
    # More often than Consul asks: svcagent has asked as well.
    wait_until(lambda: log(NAME).count(b"the database is away") > seen + 5, 20, "the old version fails, too")
    with database(fleet):
        output, errors = process.communicate(timeout=120)
        result = json.loads(output)

        assert result["outcome"] == "environment", errors
        assert quarantined(fleet) == []
        assert "host1" in fleet.lab.consul().passing()
        code, _output, errors = fleet.run(0, "reload", NAME)
        assert code == 0, errors
        assert fleet.lab.versions()["host1"] == version
    fleet.push_next()
    fleet.reset()
