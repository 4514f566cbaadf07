"""``svcagent run`` on a fleet, killed and started again at once by whoever watches over it."""

import random
import time

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.crash import begin_everywhere, is_at_rest, is_rolled_out, least_passing
from tests.lab.ground import wait_until
from tests.lab.traffic import Load
from tests.lab.unit import Unit, units

MOST_KILLS = 8
"""Of one rollout; then it may come to its end."""


@pytest.mark.timeout(36_000)
def test_killed_at_random_moments_of_rollouts(fleet: Fleet, is_full: bool) -> None:
    """SIGKILL to the daemon, alone or with its children, and a start at once: every rollout ends, none is lost."""
    chance = random.Random(1)
    rollouts = 20 if is_full else 4
    fleet.define(schedule="* * * * *")
    killed = 0
    with units(fleet.lab) as daemons, Load(fleet.lab, rate=100) as load, least_passing(fleet) as fewest:
        for _rollout in range(rollouts):
            killed += _rollout_with_kills(fleet, daemons, chance)
        summary = load.stop()

    assert killed >= rollouts
    assert summary.failed == ()
    assert fewest[0] >= 1


def _rollout_with_kills(fleet: Fleet, daemons: list[Unit], chance: random.Random) -> int:
    """To its end on every host; how many kills it took."""
    version = fleet.push_next()
    begun = [one.log.count("step=pull") for one in daemons]
    begin_everywhere(fleet)
    wait_until(lambda: [one.log.count("step=pull") for one in daemons] != begun, 30, "a reload has begun", every=0.005)
    kills = 0
    while kills < MOST_KILLS and not is_rolled_out(fleet, version):
        time.sleep(chance.uniform(0.0, 1.2))  # not a wait for anything: the moment of the kill
        victim = chance.choice(daemons)
        victim.kill(with_children=chance.random() < 0.5)
        victim.start()
        kills += 1
    wait_until(lambda: is_rolled_out(fleet, version), 150, "the rollout ends on all hosts")
    wait_until(lambda: is_at_rest(fleet), 60, "nothing is left", every=0.1)
    return kills
