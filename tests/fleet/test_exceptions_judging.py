"""An exception of any type while a bad version is judged and undone: it stops at its first host."""

import itertools
from pathlib import Path

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.crash import Victim
from tests.fleet.exceptions import RELOAD, Matrix, every_case, few, sample
from tests.lab.traffic import Load

CALLS = 1
"""Each case costs two reloads, and the calls themselves are those of every other reload."""


@pytest.mark.timeout(36_000)
def test_a_version_whose_judgement_raises_stops_at_its_first_host(fleet: Fleet, tmp_path: Path, is_full: bool) -> None:
    """The old container is back there; the other host, asked to reload, stays on the old version, too."""
    fleet.define(ready={"timeout": "1s"})
    victim = Victim(fleet)
    matrix = Matrix(victim, tmp_path)
    victim.push(healthy=False)
    places = matrix.places(*RELOAD)
    matrix.restore("recording", itertools.repeat("register"))
    begun = places.index("restart")
    judging = [place for place in places[begun:] if not place.startswith(("after", "end"))]
    kept = fleet.lab.versions()["host2"]
    cases = every_case(judging) if is_full else few(sample(judging), CALLS)
    with Load(fleet.lab, rate=50) as load:
        for case in cases:
            victim.push(healthy=False)
            said = matrix.fail(case, *RELOAD)
            matrix.restore(said, itertools.repeat("register"))
            assert fleet.lab.versions()["host1"] == victim.before, said
            code, _output, errors = fleet.run(1, "reload", RELOAD[1])
            context = f"{said}\nhost2: {code} {errors}"
            assert code != 0, context
            assert fleet.lab.versions()["host2"] == kept, context
        summary = load.stop()

    assert summary.failed == ()
    fleet.push_next()
    fleet.reset()
