"""``svcagent run`` on a fleet: reloads on schedule, stopped and started again."""

import time

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.crash import begin_everywhere, is_at_rest, is_rolled_out
from tests.lab.ground import LabError, wait_until
from tests.lab.traffic import Load
from tests.lab.unit import Unit, units, until_next_minute

EVERY_MINUTE = "* * * * *"


def test_a_rollout_on_schedule(fleet: Fleet) -> None:
    """Each host's daemon starts its reload within a second of the minute; none of the requests is lost."""
    fleet.define(schedule=EVERY_MINUTE)
    with units(fleet.lab) as daemons, Load(fleet.lab, rate=100) as load:
        version = fleet.push_next()
        minute = time.time() + until_next_minute()
        wait_until(lambda: all("step=check phase=begin" in one.log for one in daemons), 70, "both look")
        assert time.time() - minute < 15  # that minute, not a later one
        _wait_rolled_out(fleet, daemons, version, 60)
        wait_until(lambda: is_at_rest(fleet), 40, "nothing is left", every=0.1)
        summary = load.stop()
        assert [one.stop() for one in daemons] == [0, 0]

    assert summary.failed == ()


@pytest.mark.parametrize("step", ["drain", "restart", "ready"])
def test_stopped_in_the_middle_and_started_again(fleet: Fleet, step: str) -> None:
    """SIGTERM in the middle of a step puts back, within the time that systemd gives; the next start finishes it."""
    fleet.define(schedule=EVERY_MINUTE)
    with units(fleet.lab) as daemons, Load(fleet.lab, rate=100) as load:
        version = fleet.push_next()
        begin_everywhere(fleet)
        begun = f"step={step} phase=begin"
        wait_until(lambda: any(begun in one.log for one in daemons), 30, f"a reload is at {step}", every=0.005)
        victim = next(one for one in daemons if begun in one.log)
        began = time.monotonic()
        assert victim.stop() == 0
        assert time.monotonic() - began < 80
        assert fleet.lab.consul().passing() != ()
        victim.start()
        _wait_rolled_out(fleet, daemons, version, 100)
        wait_until(lambda: is_at_rest(fleet), 40, "nothing is left", every=0.1)
        summary = load.stop()

    assert summary.failed == ()


def _wait_rolled_out(fleet: Fleet, daemons: list[Unit], version: str, seconds: float) -> None:
    try:
        wait_until(lambda: is_rolled_out(fleet, version), seconds, f"both hosts run {version}")
    except LabError as error:
        raise AssertionError("\n\n".join(one.log for one in daemons)) from error
