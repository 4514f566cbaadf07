"""SIGKILL at moments that a seed chooses; in a file of its own, so that it can run at the same time."""

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.crash import assert_survives_random_kills

SEEDS = (4, 5)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_random_moments(fleet: Fleet, seed: int) -> None:
    """In the middle of whatever it was doing, alone or while the other host waits: repaired by one run, none lost."""
    assert_survives_random_kills(fleet, seed)
