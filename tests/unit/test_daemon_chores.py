"""How often the daemon recovers, and what it logs: on an event loop, with a scripted verb."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agent.daemon.children import Ended, Record
from agent.daemon.chores import Chores

PAUSE = 0.001


class Verb:
    """A child that ends after it has said its lines."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended

    async def ended(self) -> Ended:
        return self._ended

    def stop(self) -> None:
        """It has ended."""


class Verbs:
    """Starts a `Verb` each time: a result for each run, the last one for good; ``lines`` are its warnings."""

    def __init__(self, *ends: Ended | Exception, lines: Callable[[int], str] = lambda _run: "") -> None:
        self.runs = 0
        self._ends = ends
        self._lines = lines

    async def start(self, _verb: Sequence[str], tell: Callable[[Record], None]) -> Verb:
        end = self._ends[min(self.runs, len(self._ends) - 1)]
        self.runs += 1
        if isinstance(end, Exception):
            raise end
        if text := self._lines(self.runs):
            tell({"level": "warning", "text": text})
        return Verb(end)


def kept_recovered(verbs: Verbs, is_left: Callable[[], bool], runs: int) -> tuple[list[str], Chores]:
    """What was recovered of one service, after so many runs."""
    recovered: list[str] = []
    made: list[Chores] = []

    async def main() -> None:
        chores = Chores(verbs, None, (PAUSE,), PAUSE, lambda: 0.5)  # type: ignore[arg-type]  # as far as it is used
        made.append(chores)
        left = lambda: frozenset({"web"} if is_left() else ())  # noqa: E731 - short
        task = asyncio.create_task(chores.keep_recovered(left, recovered.append))
        async with asyncio.timeout(10):
            while verbs.runs < runs or (not is_left() and not recovered):
                await asyncio.sleep(PAUSE)
        task.cancel()

    asyncio.run(main())
    return recovered, made[0]


def failed(**more: Any) -> Ended:
    return Ended(1, [{"service": "web", "outcome": "stranded", "error": "not ready", "exit_code": 1, **more}])


@pytest.mark.parametrize(
    "end", [failed(), Ended(3), Ended(-9), Ended(75), Ended(69), OSError("no memory"), RuntimeError()]
)
def test_it_is_recovered_again_and_again_until_nothing_is_left(end: Ended | Exception) -> None:
    verbs = Verbs(end)

    recovered, _chores = kept_recovered(verbs, lambda: verbs.runs < 4, 4)

    assert recovered == ["web"]
    assert verbs.runs == 4


def test_why_it_is_not_recovered_is_known() -> None:
    _recovered, chores = kept_recovered(Verbs(failed(error="not ready\nlog of the container")), lambda: True, 2)

    assert chores.unrecovered == {"web": "not ready"}


def test_a_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Also where it holds times or ports."""
    kept_recovered(Verbs(failed(), lines=lambda run: f"not ready after {run}.5 s"), lambda: True, 4)

    assert caplog.messages == ["not ready after 1.5 s"]


def test_a_new_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    kept_recovered(Verbs(failed(), lines=lambda run: "one" if run < 3 else "two"), lambda: True, 4)

    assert caplog.messages == ["one", "two"]


def test_nothing_is_run_while_nothing_is_left() -> None:
    verbs = Verbs(Ended(0, []))

    async def main() -> None:
        chores = Chores(verbs, None, (PAUSE,), PAUSE)  # type: ignore[arg-type]  # as far as it is used
        looked = 0

        def left() -> frozenset[str]:
            nonlocal looked
            looked += 1
            return frozenset()

        task = asyncio.create_task(chores.keep_recovered(left, lambda _service: None))
        async with asyncio.timeout(10):
            while looked < 3:
                await asyncio.sleep(PAUSE)
        task.cancel()

    asyncio.run(main())
    assert verbs.runs == 0
