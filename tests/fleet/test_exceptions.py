"""An exception of any type at any step and any call of a reload: the instance returns, and nothing is left."""

import itertools
from pathlib import Path

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.crash import Victim, least_passing, pushed
from tests.fleet.exceptions import RELOAD, Case, Matrix, every_case, few, sample
from tests.lab.traffic import Load

CALLS = 6
"""Each case costs two runs; `--full-matrix` tries every call."""


@pytest.mark.timeout(36_000)
def test_a_reload_that_raises_anywhere_is_undone_or_finished(fleet: Fleet, tmp_path: Path, is_full: bool) -> None:
    """No request is lost, no instance but this one leaves service, and the next command finds nothing to object to."""
    victim = Victim(fleet)
    matrix = Matrix(victim, tmp_path)
    victim.push()
    places = matrix.places(*RELOAD)
    assert len({place.partition("/")[0] for place in places}) > 10
    verbs = itertools.cycle(("register", "reload"))
    with Load(fleet.lab, rate=50) as load, least_passing(fleet) as fewest:
        for case in every_case(places) if is_full else few(sample(places), CALLS):
            victim.push()
            matrix.restore(matrix.fail(case, *RELOAD), verbs)
        summary = load.stop()

    assert summary.failed == ()
    assert fewest == [1]
    assert matrix.outcomes[3] > len(matrix.outcomes)


@pytest.mark.parametrize("verb", ["register", "reload"])
def test_what_a_reload_could_not_remove_is_removed_by_the_next_command(fleet: Fleet, tmp_path: Path, verb: str) -> None:
    victim = pushed(fleet)
    context = Matrix(victim, tmp_path).fail(Case("clean", "OSError", is_after=False, is_lasting=False), *RELOAD)
    assert fleet.leftovers() != [], context

    victim.repair(verb)

    victim.assert_back(context)
