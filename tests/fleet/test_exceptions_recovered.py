"""An exception of any type at any step and any call of a recovery, after a reload was killed at different places."""

import itertools
import signal
from pathlib import Path

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.crash import Victim, least_passing
from tests.fleet.exceptions import RECOVER, Case, Matrix, every_case, few, sample
from tests.lab.traffic import Load

CALLS = 2
"""Each case costs three runs, and a reload makes the same calls."""

KILLED_AT = (8, 9)
"""Changes of the journal after which a reload is killed: while it replaces, and returns."""


@pytest.mark.timeout(36_000)
def test_a_recovery_that_raises_anywhere_is_finished_by_the_next(fleet: Fleet, tmp_path: Path, is_full: bool) -> None:
    victim = Victim(fleet)
    matrix = Matrix(victim, tmp_path)
    cases: list[tuple[int, Case]] = []
    known: set[str] = set()
    for change in KILLED_AT:
        victim.push()
        assert victim.die_at(change) == -signal.SIGKILL
        places = matrix.places(*RECOVER)
        victim.assert_back(f"recorded after change {change}")
        cases_here = every_case(places) if is_full else few(sample(places), CALLS)
        chosen = cases_here if is_full else [one for one in cases_here if _call(one) not in known]
        known.update(map(_call, chosen))
        cases += [(change, case) for case in chosen]
    verbs = itertools.cycle(("register", "reload"))
    with Load(fleet.lab, rate=50) as load, least_passing(fleet) as fewest:
        for change, case in cases:
            victim.push()
            assert victim.die_at(change) == -signal.SIGKILL
            matrix.restore(f"killed at {change}, then {matrix.fail(case, *RECOVER)}", verbs)
        summary = load.stop()

    assert summary.failed == ()
    assert fewest == [1]


def _call(case: Case) -> str:
    """The call, or the step, whichever step it is made in."""
    return case.place.rpartition("/")[2]
