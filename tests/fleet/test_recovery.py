"""What a crash leaves behind that looks like a healthy instance, and is none."""

import json
import threading
from contextlib import closing
from typing import Any, cast

import pytest

from tests.fleet.conftest import NAME, Fleet, until_step
from tests.fleet.crash import Victim, pushed
from tests.lab import image
from tests.lab.ground import wait_until
from tests.lab.lab import Lab
from tests.lab.traffic import Load

NEVER = cast("Any", {"Name": "no"})  # the stubs call a key required that Docker does not


def killed_while_docker_stops(fleet: Fleet, victim: Victim) -> None:
    """A reload that dies right after it asked Docker to stop the old container, which still answers."""
    host = fleet.lab.hosts[0]
    stopping = threading.Event()
    events = host.engine.api.events(decode=True, filters={"event": "kill"})

    def watch() -> None:
        for _event in events:
            stopping.set()
            return

    with closing(events):
        watching = threading.Thread(target=watch)
        watching.start()
        process = fleet.lab.svcagent(host, "-v", "reload", NAME)
        until_step(process, "restart")
        assert stopping.wait(20)
        process.kill()
        process.communicate(timeout=10)
        watching.join()
    assert fleet.lab.versions()["host1"] == victim.before, "the old container still answers"


@pytest.mark.parametrize("verb", ["register", "recover", "reload"])
def test_a_stop_that_was_begun_is_finished_before_the_old_container_is_judged(fleet: Fleet, verb: str) -> None:
    """Docker continues with it although the client is dead: what answers now ends in a moment, and stays down."""
    fleet.define()
    victim = pushed(fleet, serve=image.STOPS_SLOWLY)
    assert fleet.run(0, "reload", NAME)[0] == 0
    victim.push()
    with Load(fleet.lab, rate=100) as load:
        killed_while_docker_stops(fleet, victim)
        code, _output, errors = fleet.run(0, *((verb, NAME) if verb != "register" else (verb,)))
        assert code == 0, errors
        victim.assert_back(errors)
        # Longer than the old container took to stop.
        load.wait_for(requests=500)
        assert fleet.lab.versions()["host1"] in (victim.before, victim.wanted)
        summary = load.stop()

    assert summary.failed == ()
    assert set(fleet.lab.consul().passing()) == {"host1", "host2"}


def test_no_exited_instance_is_returned_while_the_agent_hangs(fleet: Fleet) -> None:
    """What was ready before the agent hung is looked at again before clients return to it."""
    fleet.define(ready={"timeout": "10s"}, settle={"canary": "2s", "each": "2s"})
    victim = pushed(fleet)
    host = fleet.lab.hosts[0]
    with Load(fleet.lab, rate=100, dns=[fleet.lab.server_dns]) as load:
        process = fleet.lab.svcagent(host, "-v", "--json", "reload", NAME)
        until_step(process, "ready")
        host.consul.freeze()
        wait_until(lambda: fleet.lab.versions()["host1"] == victim.wanted, 20, "the new container answers")
        host.engine.api.update_container(NAME, restart_policy=NEVER)
        host.engine.api.kill(NAME)
        wait_until(lambda: fleet.lab.versions()["host1"] is None, 20, "it is dead")
        host.consul.thaw()
        output, errors = process.communicate(timeout=120)
        summary = load.stop()

    assert json.loads(output)["outcome"] == "rolled back", errors
    assert fleet.lab.versions()["host1"] == victim.before
    assert summary.failed == ()
    fleet.run(0, "quarantine", "clear", NAME, "--all")
    victim.assert_back(errors)


def test_a_recovery_that_finds_the_new_container_not_ready_quarantines_it(fleet: Fleet) -> None:
    """The next reload does not take the same image again."""
    fleet.define(ready={"timeout": "2s"})
    victim = pushed(fleet, healthy=False)
    process = fleet.lab.svcagent(fleet.lab.hosts[0], "-v", "reload", NAME)
    until_step(process, "ready")
    process.kill()
    process.communicate(timeout=10)

    code, errors = victim.repair("register")

    assert code == 0, errors
    victim.assert_back(errors)
    assert fleet.lab.versions()["host1"] == victim.before
    code, _output, errors = fleet.run(0, "reload", NAME)
    assert (code, "quarantined" in errors) == (75, True)
    fleet.run(0, "quarantine", "clear", NAME, "--all")
    fleet.push_next()
    fleet.reset()


def test_a_node_that_was_renamed_after_the_crash_gets_its_instance_back() -> None:
    """Own maintenance is known by the journal's reload ID as well as by the node's name."""
    with Lab(1) as lab:
        lab.push("1")
        fleet = Fleet(lab, 0.1)
        lab.run_service(lab.hosts[0], 0.1)
        fleet.define(min_healthy=0)
        assert fleet.run(0, "register")[0] == 0
        lab.wait_passing()
        victim = pushed(fleet)
        process = lab.svcagent(lab.hosts[0], "-v", "reload", NAME)
        until_step(process, "ready")
        process.kill()
        process.communicate(timeout=10)
        file = lab.hosts[0].directory / "consul.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"node_name": "renamed"}))
        lab.hosts[0].consul.stop()
        lab.hosts[0].consul.start()
        wait_until(
            lambda: any(one["Node"]["Node"] == "renamed" for one in lab.consul().get(f"/v1/health/service/{NAME}")),
            30,
            "the renamed node has synced its service",
        )

        code, errors = victim.repair("register")

        assert code == 0, errors
        wait_until(lambda: lab.consul().passing() == ("renamed",), 20, "it is in service under its new name")
        assert lab.versions()["host1"] in (victim.before, victim.wanted)
