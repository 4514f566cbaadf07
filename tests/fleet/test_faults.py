"""Everything around a reload that can fail, failing in the middle of one, on real servers.

Afterwards, and after one more run of what cron starts, the instance runs, is ready and in service, nothing is left
behind, and the other host's clients noticed nothing.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.fleet.conftest import NAME, Fleet, until_step
from tests.fleet.crash import Victim, pushed
from tests.lab.ground import wait_until
from tests.lab.lab import LOCK
from tests.lab.traffic import Load


@contextmanager
def unnoticed(fleet: Fleet, *, but_on_host1: bool = False) -> Iterator[None]:
    """No request is lost inside the block; or none but at the first host, which loses power in it.

    Clients ask the server's DNS: that of a host whose agent is down answers nobody.
    """
    with Load(fleet.lab, rate=100, dns=[fleet.lab.server_dns]) as load:
        yield
        summary = load.stop()
    first = fleet.lab.hosts[0].address
    assert [one for one in summary.failed if not (but_on_host1 and one.address == first)] == []


def begun(fleet: Fleet, step: str) -> "subprocess.Popen[str]":
    """A reload on the first host that has just begun a step."""
    process = fleet.lab.svcagent(fleet.lab.hosts[0], "-v", "reload", NAME)
    until_step(process, step)
    return process


def assert_in_order(victim: Victim, verb: str, context: str, *, is_just_started: bool = False) -> None:
    code, errors = victim.repair(verb)
    assert code == 0, f"{context}; then {verb}: {errors}"
    victim.assert_back(f"{context}; then {verb}: {errors}", is_just_started=is_just_started)


@pytest.mark.parametrize("step", ["plan again", "drain", "ready", "return"])
def test_the_consul_server_freezes(fleet: Fleet, step: str) -> None:
    """For some seconds nothing can be read or written; the reload ends well or is put back, by itself or the next."""
    victim = pushed(fleet)
    process = begun(fleet, step)
    fleet.lab.server.freeze()
    with suppress(subprocess.TimeoutExpired):  # it waits for Consul, or gives up early; both will do
        process.wait(6)
    fleet.lab.server.thaw()
    _output, errors = process.communicate(timeout=120)
    wait_until(lambda: bool(fleet.lab.consul().get("/v1/status/leader")), 20, "the server leads again")
    fleet.lab.wait_passing(fleet.lab.hosts[1:] if "host1" not in fleet.lab.consul().passing() else None)

    assert_in_order(victim, "reload", f"frozen at {step}: {process.returncode} {errors}")


@pytest.mark.parametrize("step", ["drain", "ready", "return"])
def test_the_consul_agent_restarts(fleet: Fleet, step: str) -> None:
    """The host's own agent goes and comes back, with what it knew."""
    victim = pushed(fleet)
    with unnoticed(fleet):
        process = begun(fleet, step)
        fleet.lab.hosts[0].consul.restart()
        _output, errors = process.communicate(timeout=120)

        context = f"agent restarted at {step}: {process.returncode} {errors}"
        assert_in_order(victim, "reload", context, is_just_started=True)


@pytest.mark.parametrize("step", ["plan again", "drain", "restart", "ready"])
def test_the_session_is_destroyed(fleet: Fleet, step: str) -> None:
    """Nothing disruptive begins without it; what is out comes back, on the new container where that was there."""
    fleet.define(drain={"min": "500ms"})
    victim = pushed(fleet)
    with unnoticed(fleet):
        process = begun(fleet, step)
        for session in fleet.lab.consul().get("/v1/session/list"):
            fleet.lab.consul().put(f"/v1/session/destroy/{session['ID']}")
        _output, errors = process.communicate(timeout=60)
        version = fleet.lab.versions()["host1"]

        assert "host1" in fleet.lab.consul().passing(), errors
        if step in ("plan again", "drain"):
            assert (process.returncode, version) == (1, victim.before), errors
        else:
            assert version in (victim.before, victim.wanted), errors
        # Consul keeps the lock closed for 15 s after a session's end.
        code, said = victim.repair("reload")
    assert code == 0, said
    victim.assert_back(said)
    fleet.define()


def test_the_locks_key_is_deleted_before_the_restart(fleet: Fleet) -> None:
    """The lock is asked again right before: nothing is restarted."""
    fleet.define(drain={"min": "1s"})
    victim = pushed(fleet)
    process = begun(fleet, "drain")
    fleet.lab.consul().delete(f"/v1/kv/{LOCK}/.lock")
    _output, errors = process.communicate(timeout=60)
    fleet.define()

    assert process.returncode == 1
    assert fleet.lab.versions()["host1"] == victim.before
    victim.assert_back(errors)


@pytest.mark.parametrize("step", ["drain", "restart", "ready"])
@pytest.mark.parametrize("how", ["restart", "kill"])
def test_the_docker_engine_goes_and_comes_back(fleet: Fleet, step: str, how: str) -> None:
    """Restarted in order, or killed and started: containers are found again, and run."""
    victim = pushed(fleet)
    with unnoticed(fleet, but_on_host1=True):
        process = begun(fleet, step)
        engine = fleet.lab.hosts[0].engine
        if how == "kill":
            engine.kill()
        engine.restart()
        _output, errors = process.communicate(timeout=150)
        journals = list(fleet.lab.hosts[0].state_dir.glob("*.journal"))
        if not engine.api.inspect_container(NAME)["State"]["Running"] and not journals:
            # An engine that was killed stops its containers when it starts, and does not start them again (20.10).
            _code, _output, said = fleet.run(0, "register")
            assert "docker start" in said, errors
            engine.api.start(NAME)
            fleet.lab.wait_passing()

        # A reload that the stopped container made it refuse ends before the Engine has started the container again.
        context = f"engine {how} at {step}: {process.returncode} {errors}"
        assert_in_order(victim, "register", context, is_just_started=True)


def test_the_registry_is_gone_when_it_comes_to_the_pull(fleet: Fleet) -> None:
    """69, naming it; nothing has been changed, and the next run takes the image."""
    victim = pushed(fleet)
    process = fleet.lab.svcagent(fleet.lab.hosts[0], "-v", "reload", NAME)
    until_step(process, "check")
    fleet.lab.registry.kill()
    try:
        _output, errors = process.communicate(timeout=150)
    finally:
        fleet.lab.registry.restart()

    assert process.returncode == 69, errors
    assert fleet.lab.versions()["host1"] == victim.before
    assert_in_order(victim, "reload", errors)


@contextmanager
def small_state_directory(fleet: Fleet) -> Iterator[Path]:
    """The first host's state directory on a disk of its own, of 256 KiB."""
    directory = fleet.lab.hosts[0].state_dir
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def fill(directory: Path) -> None:
    with (directory / "ballast").open("wb", buffering=0) as file:
        try:
            while file.write(os.urandom(4096)):
                pass
        except OSError:
            return


def test_a_full_disk_keeps_a_reload_from_beginning(fleet: Fleet) -> None:
    """Without a journal nothing disruptive starts; with room again, the next run takes the image."""
    victim = pushed(fleet)
    with small_state_directory(fleet) as directory, unnoticed(fleet):
        assert fleet.run(0, "reload", "--check", NAME)[0] == 0  # makes the host lock's file
        fill(directory)
        code, _output, errors = fleet.run(0, "reload", NAME)

        assert code == 1
        assert "cannot write" in errors
        assert str(directory) in errors
        assert fleet.lab.versions()["host1"] == victim.before
        assert fleet.leftovers() == []

        (directory / "ballast").unlink()
        assert_in_order(victim, "reload", errors)


def test_a_disk_that_fills_while_draining_brings_the_service_back(fleet: Fleet) -> None:
    """The restart needs its entry in the journal; restoring does not."""
    fleet.define(drain={"min": "1s"})
    victim = pushed(fleet)
    with small_state_directory(fleet) as directory, unnoticed(fleet):
        process = begun(fleet, "drain")
        fill(directory)
        _output, errors = process.communicate(timeout=60)

        assert process.returncode == 1, errors
        assert "continuing without a journal" in errors
        assert fleet.lab.versions()["host1"] == victim.before
        assert "host1" in fleet.lab.consul().passing()
        (directory / "ballast").unlink()
        assert_in_order(victim, "reload", errors)
    fleet.define()


@pytest.mark.parametrize("step", ["drain", "restart", "ready", "return", "clean"])
def test_the_host_loses_power(fleet: Fleet, step: str) -> None:
    """It boots, Consul, then Docker, then ``svcagent register``: in service again."""
    host = fleet.lab.hosts[0]
    victim = pushed(fleet)
    with unnoticed(fleet, but_on_host1=True):
        process = begun(fleet, step)
        process.send_signal(signal.SIGKILL)
        host.power_off()
        process.communicate(timeout=10)
        fleet.lab.wait_passing(fleet.lab.hosts[1:])
        host.power_on()

        assert_in_order(victim, "register", f"no power at {step}", is_just_started=True)
    fleet.lab.wait_passing()


def test_an_absent_consul_agent_is_reported_and_work_resumes_when_it_returns(fleet: Fleet) -> None:
    """The container is ready all the same; 69, saying what is left; ``register`` does that when the agent is there."""
    agent = fleet.lab.hosts[0].consul
    victim = pushed(fleet)
    with unnoticed(fleet):
        process = begun(fleet, "ready")
        agent.kill()
        _output, errors = process.communicate(timeout=180)
        version = fleet.lab.versions()["host1"]
        agent.restart()

        assert process.returncode == 69, errors
        assert "still out of service" in errors
        assert f"svcagent recover {NAME}" in errors
        assert version == victim.wanted
        assert "host1" not in fleet.lab.consul().passing()
        assert_in_order(victim, "register", errors, is_just_started=True)
    fleet.lab.wait_passing()
