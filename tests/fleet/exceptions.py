"""The matrix of exceptions: an exception of any type at every step and every call, and what has to hold afterwards."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fleet.conftest import NAME
from tests.fleet.crash import Victim
from tests.lab.failing import ERRORS, Plan
from tests.lab.ground import LabError, wait_until

SEED = 20
EXIT_CODES = (0, 1, 3, 69, 75)
REPAIR_SECONDS = 60
RELOAD = ("reload", NAME)
RECOVER = ("recover", NAME)


@dataclass(frozen=True)
class Case:
    place: str
    error: str
    is_after: bool
    is_lasting: bool

    def __str__(self) -> str:
        when = "after" if self.is_after else "before"
        return f"{'lasting ' if self.is_lasting else ''}{self.error} {when} {self.place}"


def every_case(places: Sequence[str]) -> list[Case]:
    product = itertools.product(places, ERRORS, (False, True), (False, True))
    return [Case(*one) for one in product]


def sample(places: Sequence[str], seed: int = SEED) -> list[Case]:
    """Each step once and each call once, in one of the steps that make it, with the types of exceptions in turn."""
    chance = random.Random(seed)
    calls: dict[str, list[str]] = {}
    for place in places:
        step, _, call = place.partition("/")
        calls.setdefault(call or step, []).append(place)
    chosen = [chance.choice(found) for found in calls.values()]
    chance.shuffle(chosen)
    ways = itertools.cycle(itertools.product((False, True), (False, True)))
    return [Case(place, error, *way) for place, error, way in zip(chosen, itertools.cycle(ERRORS), ways, strict=False)]


def few(cases: Sequence[Case], calls: int) -> list[Case]:
    """Every step of a sample, and some of its calls."""
    made = [case for case in cases if "/" in case.place]
    return [case for case in cases if "/" not in case.place] + made[:calls]


class Matrix:
    """Runs the cases of one state on the first host of a fleet."""

    def __init__(self, victim: Victim, directory: Path) -> None:
        self.victim = victim
        self._directory = directory
        self._numbers = itertools.count()
        self.outcomes: Counter[int] = Counter()

    def places(self, *verb: str) -> list[str]:
        """The places that a run without a fault reaches. Waiting threads make no difference that can be repeated."""
        _code, _errors, places = self._run(Plan(""), verb)
        return [place for place in places if place != "another thread"]

    def fail(self, case: Case, *verb: str) -> str:
        """One run with its exception; what it said.

        The exit code is that of a bug or of the failure that it became. It is 0 only where the run came to its end all
        the same, as steps that restore the instance ask again after one odd answer.
        """
        plan = Plan("", case.place, case.error, case.is_after, case.is_lasting)
        code, errors, places = self._run(plan, verb)
        was_raised = f"raised at {case.place}" in places
        self.outcomes[code] += was_raised
        context = f"{case}: exit code {code}\n{errors}"
        print(f"{case}: exit code {code}", flush=True)
        assert code in EXIT_CODES, context
        if code == 0 and was_raised and verb == RELOAD:
            assert self.victim.fleet.lab.versions()["host1"] == self.victim.wanted, context
        return f"{case}: exit code {code}\n{errors}"

    def restore(self, context: str, verbs: Iterator[str]) -> None:
        """What boot, cron or the daemon run until the instance is back; nothing is left then."""
        said: list[str] = []

        def is_back() -> bool:
            code, errors = self.victim.repair(next(verbs))
            said.append(f"{code} {errors}")
            return code == 0

        try:
            wait_until(is_back, REPAIR_SECONDS, "the instance is back", every=0.2)
        except LabError as error:
            raise AssertionError(f"{context}\nrepair: {said[-1]}") from error
        self.victim.assert_back(context)

    def _run(self, plan: Plan, verb: Sequence[str]) -> tuple[int, str, list[str]]:
        log = self._directory / f"places-{next(self._numbers)}"
        command = ("-m", "tests.lab.failing", Plan(**{**vars(plan), "log": str(log)}).encode(), "-v", *verb)
        code, errors = self.victim.run_python(*command)
        return code, errors, log.read_text().splitlines() if log.exists() else []
