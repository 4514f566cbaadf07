"""SIGKILL at moments that a seed chooses; in two files, so that the halves can run at the same time."""

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.crash import assert_survives_random_kills

SEEDS = (1, 2, 3)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_random_moments(fleet: Fleet, seed: int) -> None:
    """In the middle of whatever it was doing, alone or while the other host waits: repaired by one run, none lost."""
    assert_survives_random_kills(fleet, seed)
