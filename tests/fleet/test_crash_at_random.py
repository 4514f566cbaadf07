"""SIGKILL at moments that a seed chooses."""

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.crash import assert_survives_random_kills


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments(fleet: Fleet, seed: int, is_full: bool) -> None:
    """In the middle of whatever it was doing, alone or while the other host waits: repaired by one run, none lost."""
    assert_survives_random_kills(fleet, seed, count=30 if is_full else 6)
