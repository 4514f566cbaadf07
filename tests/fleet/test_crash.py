"""SIGKILL at every place of a reload: the next ``register`` or ``reload`` brings the instance back, all else goes."""

import fcntl
import json
import os
import shlex
import signal

import pytest

from tests.fleet.conftest import NAME, Fleet
from tests.fleet.crash import Victim, least_passing, pushed
from tests.lab.ground import wait_until
from tests.lab.server import svcagent_argv
from tests.lab.traffic import Load

MOST_CHANGES = 30
VERBS = ("register", "reload")
DRAINING, IN_MAINTENANCE = 6, 7
"""Changes of the journal, its first removal among them, after which a reload is about to drain, and has drained."""


@pytest.mark.timeout(1200)
def test_killed_after_each_change_of_its_journal(fleet: Fleet, is_full: bool) -> None:
    """One run of what boot or cron starts is enough, wherever the reload died; no request is lost meanwhile.

    The verbs repair in turn; with the full matrix each of them repairs after each change.
    """
    cases = [(change, verb) for change in range(1, MOST_CHANGES) for verb in VERBS]
    if not is_full:
        cases = [(change, VERBS[change % 2]) for change in range(1, MOST_CHANGES)]
    victim = Victim(fleet)
    with Load(fleet.lab, rate=100) as load, least_passing(fleet) as fewest:
        for change, verb in cases:
            victim.push()
            if victim.die_at(change) != -signal.SIGKILL:
                break
            code, errors = victim.repair(verb)
            context = f"killed after change {change}, then {verb}: {code} {errors}"
            assert code == 0, context
            victim.assert_back(context)
        summary = load.stop()

    assert change > 8, "a reload has more steps than that"
    assert summary.failed == ()
    assert fewest == [1]


@pytest.mark.timeout(1200)
def test_killed_after_each_change_of_its_journal_with_an_image_that_fails(fleet: Fleet, is_full: bool) -> None:
    """The old container is back, whether the new one had been judged or not, and whatever of the roll-back was done.

    After every second change; with the full matrix after each.
    """
    fleet.define(ready={"timeout": "1s"})
    victim = Victim(fleet)
    with Load(fleet.lab, rate=100) as load:
        for change in range(1, MOST_CHANGES, 1 if is_full else 2):
            victim.push(healthy=False)
            if victim.die_at(change) != -signal.SIGKILL:
                break
            code, errors = victim.repair("register")
            context = f"killed after change {change}: {code} {errors}"
            assert code == 0, context
            victim.assert_back(context)
            assert fleet.lab.versions()["host1"] == victim.before, context
        summary = load.stop()

    assert change > 8, "a reload that is rolled back has more steps than that"
    assert summary.failed == ()
    fleet.push_next()
    fleet.reset()


@pytest.mark.parametrize("is_state_lost", [False, True])
def test_a_killed_recovery_or_a_lost_state_directory_is_survived(fleet: Fleet, is_state_lost: bool) -> None:
    """Own maintenance is known by its reason, own containers by their names; the dead one's session is waited for."""
    victim = pushed(fleet)
    assert victim.die_at(IN_MAINTENANCE) == -signal.SIGKILL
    if is_state_lost:
        for file in fleet.lab.hosts[0].state_dir.iterdir():
            file.unlink()
    else:
        for _ in range(3):
            process = fleet.lab.svcagent(fleet.lab.hosts[0], "register")
            process.kill()
            process.wait()

    code, errors = victim.repair("register")

    assert code == 0, errors
    victim.assert_back(errors)


def test_a_damaged_journal_and_another_services_journal_block_no_reload(fleet: Fleet) -> None:
    victim = pushed(fleet)
    assert victim.die_at(IN_MAINTENANCE) == -signal.SIGKILL
    state_dir = fleet.lab.hosts[0].state_dir
    [journal] = state_dir.glob("*.journal")
    journal.write_bytes(journal.read_bytes()[:40])
    (state_dir / "reload-another.journal").write_text("{")

    code, errors = victim.repair("reload")

    assert code == 0, errors
    assert "is invalid" in errors
    assert "host1" in fleet.lab.consul().passing()
    assert fleet.run(0, "recover")[0] == 0
    victim.assert_back(errors)


def test_recover_says_what_it_did_and_that_there_is_nothing_to_do(fleet: Fleet) -> None:
    victim = pushed(fleet)
    assert victim.die_at(DRAINING) == -signal.SIGKILL

    code, _output, errors = fleet.run(0, "recover", NAME)
    again, output, _none = fleet.run(0, "recover", NAME)

    assert (code, again) == (0, 0), errors
    assert "in service" in errors
    assert "nothing to recover" in output
    victim.assert_back(errors)


def test_a_definition_without_reload_gets_its_service_back_all_the_same(fleet: Fleet) -> None:
    """The file lost its reload section after the crash: container, lock and maintenance are restored by register."""
    victim = pushed(fleet)
    assert victim.die_at(IN_MAINTENANCE) == -signal.SIGKILL
    file = fleet.lab.write_definition(fleet.lab.hosts[0], interval="1s")
    definition = json.loads(file.read_text())
    del definition["reload"]
    file.write_text(json.dumps(definition))

    def is_back() -> bool:
        code, _output, errors = fleet.run(0, "register")
        assert code == 0 or "still out of service" in errors
        return code == 0 and "host1" in fleet.lab.consul().passing()

    wait_until(is_back, 30, "its checks pass, so that it is in service", every=0.5)
    victim.assert_back("without a reload section")
    fleet.reset()


@pytest.mark.parametrize("options", ["-v", "-v --json --log-format json"])
@pytest.mark.parametrize("broken", ["pipe", "full disk"])
def test_a_closed_output_stops_nothing(fleet: Fleet, broken: str, options: str) -> None:
    """The reader has gone, or the log's disk is full: the reload goes on to its end."""
    victim = pushed(fleet)
    command = f"{shlex.join(svcagent_argv())} {options} reload {NAME}"
    script = f"{command} 2>&1 | true" if broken == "pipe" else f"{command} >/dev/full 2>&1"
    process = fleet.lab.command(fleet.lab.hosts[0], "sh", "-c", script)
    process.communicate(timeout=90)

    wait_until(lambda: fleet.lab.versions()["host1"] == victim.wanted, 30, "the new image runs")
    wait_until(lambda: "host1" in fleet.lab.consul().passing(), 30, "it is in service")
    wait_until(lambda: not list(fleet.lab.hosts[0].state_dir.glob("*.journal")), 10, "it came to its end")
    victim.assert_back(broken)


def test_a_daemon_that_hangs_holds_up_no_reload(fleet: Fleet) -> None:
    """Nobody reads its log, and the pipe is full before the service is out: it comes back, and the rest is not told."""
    victim = pushed(fleet)
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        options = ("--json", "--log-format", "json", "-v")
        process = fleet.lab.svcagent(fleet.lab.hosts[0], *options, "reload", NAME, stderr=writer)
        output, _errors = process.communicate(timeout=90)
        told = os.read(reader, 1 << 16).decode().splitlines()
    finally:
        os.close(reader)
        os.close(writer)

    result = json.loads(output)
    assert (process.returncode, result["outcome"]) == (0, "reloaded")
    steps = {json.loads(line)["step"] for line in told}
    assert "check" in steps
    assert "release" not in steps, "the pipe was to be too small"
    victim.assert_back("not read")
