"""How often the daemon recovers, and what it logs: on an event loop, with a scripted verb."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from agent.daemon.housekeeping import Housekeeping
from agent.daemon.subprocesses import EndedProcess

PAUSE = 0.001


class Verb:
    def __init__(self, ended: EndedProcess) -> None:
        self._ended = ended

    async def ended(self) -> EndedProcess:
        return self._ended

    def stop(self) -> None:
        """It has ended."""


class Verbs:
    """Starts a `Verb` each time; ``errors`` says what each run prints on standard error."""

    def __init__(self, end: EndedProcess | Exception, errors: Callable[[int], str] = lambda _run: "") -> None:
        self.runs = 0
        self._end = end
        self._errors = errors

    async def start_captured(self, _verb: Sequence[str]) -> Verb:
        self.runs += 1
        if isinstance(self._end, Exception):
            raise self._end
        return Verb(EndedProcess(self._end.status, errors=self._errors(self.runs)))


def kept_recovered(verbs: Verbs, is_left: Callable[[], bool], runs: int) -> list[str]:
    """What was recovered of one service, after so many runs."""
    recovered: list[str] = []

    async def main() -> None:
        housekeeping = Housekeeping(verbs, None, (PAUSE,), lambda: 0.5)  # type: ignore[arg-type]  # as far as it is used
        left = lambda: frozenset({"web"} if is_left() else ())  # noqa: E731 - short
        task = asyncio.create_task(housekeeping.recover_crashed(left, recovered.append))
        housekeeping.is_recovery_due.set()
        async with asyncio.timeout(10):
            while verbs.runs < runs or (not is_left() and not recovered):
                await asyncio.sleep(PAUSE)
        task.cancel()

    asyncio.run(main())
    return recovered


@pytest.mark.parametrize(
    "end",
    [
        EndedProcess(1),
        EndedProcess(3),
        EndedProcess(-9),
        EndedProcess(75),
        EndedProcess(69),
        OSError("no memory"),
        RuntimeError(),
    ],
)
def test_it_is_recovered_again_and_again_until_nothing_is_left(end: EndedProcess | Exception) -> None:
    verbs = Verbs(end)

    recovered = kept_recovered(verbs, lambda: verbs.runs < 4, 4)

    assert recovered == ["web"]
    assert verbs.runs == 4


def test_a_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    kept_recovered(Verbs(EndedProcess(1), errors=lambda run: f"svcagent: not ready after {run}.5 s\n"), lambda: True, 4)

    assert caplog.messages == ["not ready after 1.5 s"]


def test_a_new_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    kept_recovered(Verbs(EndedProcess(1), errors=lambda run: "one" if run < 3 else "two"), lambda: True, 4)

    assert caplog.messages == ["one", "two"]


def test_nothing_is_run_while_nothing_is_left() -> None:
    verbs = Verbs(EndedProcess(0))

    async def main() -> None:
        housekeeping = Housekeeping(verbs, None, (PAUSE,))  # type: ignore[arg-type]  # as far as it is used
        has_looked = asyncio.Event()

        def left() -> frozenset[str]:
            has_looked.set()
            return frozenset()

        task = asyncio.create_task(housekeeping.recover_crashed(left, lambda _service: None))
        housekeeping.is_recovery_due.set()
        async with asyncio.timeout(10):
            await has_looked.wait()
        task.cancel()

    asyncio.run(main())
    assert verbs.runs == 0
