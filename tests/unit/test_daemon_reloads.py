"""The daemon's own reloads: one of a service at a time, some at once, stopped. A program is the verb."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.daemon.reloads import MOST_STARTING, Reloads, RunningReload, is_unfinished
from agent.daemon.subprocesses import EndedProcess, Launcher

HELD_UP = (
    "import pathlib, signal, sys\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    "pathlib.Path('{place}', sys.argv[-1]).touch()\n"
    "while True: signal.pause()\n"
)
STUBBORN = HELD_UP.replace("lambda *_: sys.exit(143)", "signal.SIG_IGN")


class HeldReloads:
    """Reloads of one program, which leaves a file when it has begun."""

    def __init__(self, place: Path, program: str) -> None:
        self._place = place
        self.ended: list[tuple[RunningReload, EndedProcess]] = []
        launcher = Launcher([], {}, (sys.executable, "-c", program.format(place=place)))
        self.reloads = Reloads(launcher, SystemClock(), lambda *ended: self.ended.append(ended))

    async def until_begun(self, count: int = 1) -> None:
        async with asyncio.timeout(30):
            while len(list(self._place.iterdir())) < count:
                await asyncio.sleep(0.01)

    async def until_idle(self) -> None:
        async with asyncio.timeout(20):
            while self.reloads.running:
                await asyncio.sleep(0.01)


Case = Callable[[HeldReloads], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[str, Case], HeldReloads]:
    """Run a case on an event loop of its own, with reloads of a program."""

    def run(program: str, case: Case) -> HeldReloads:
        async def main() -> HeldReloads:
            site = HeldReloads(tmp_path, program)
            await case(site)
            return site

        return asyncio.run(main())

    return run


def test_one_at_a_time(play: Callable[[str, Case], HeldReloads]) -> None:
    async def case(site: HeldReloads) -> None:
        assert site.reloads.begin("one", "schedule")
        await site.until_begun()
        assert not site.reloads.begin("one", "retry")
        assert await site.reloads.stop(20) == frozenset()

    site = play(HELD_UP, case)

    assert [(reload.why, ended.status) for reload, ended in site.ended] == [("schedule", 143)]


def test_what_does_not_end_in_time_is_left_to_its_journal(play: Callable[[str, Case], HeldReloads]) -> None:
    """The daemon ends in the time that it has, and knows of which service it has seen no end."""

    async def case(site: HeldReloads) -> None:
        site.reloads.begin("one", "schedule")
        await site.until_begun()
        child = site.reloads.running["one"].child
        try:
            assert await site.reloads.stop(0.2) == {"one"}
        finally:
            assert child is not None
            child.stop(signal.SIGKILL)
            await site.until_idle()

    play(STUBBORN, case)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """No process to be had is a failed reload, not a daemon that stops."""

    async def main() -> list[EndedProcess]:
        found: list[EndedProcess] = []
        launcher = Launcher([], {}, (str(tmp_path / "nothing"),))
        reloads = Reloads(launcher, SystemClock(), lambda _reload, ended: found.append(ended))
        reloads.begin("one", "schedule")
        async with asyncio.timeout(20):
            while reloads.running:
                await asyncio.sleep(0.01)
        return found

    assert asyncio.run(main()) == [EndedProcess(1)]


def test_a_bug_is_handed_on() -> None:
    """To whoever starts the tasks: it does not vanish with one of them."""
    begun: list[asyncio.Task[None]] = []

    def start(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        begun.append(asyncio.create_task(work))
        return begun[0]

    def fail(_reload: RunningReload, _ended: EndedProcess) -> None:
        raise LookupError("a bug")

    async def main() -> None:
        Reloads(Launcher([], {}, (sys.executable, "-c", "")), SystemClock(), fail, start).begin("one", "")
        with pytest.raises(LookupError, match="a bug"):
            await begun[0]

    asyncio.run(main())


def test_not_all_start_concurrently(play: Callable[[str, Case], HeldReloads], tmp_path: Path) -> None:
    """Of many that are due in one minute some look first; those that have not begun end with the others."""

    async def case(site: HeldReloads) -> None:
        for number in range(MOST_STARTING + 4):
            site.reloads.begin(f"service {number}", "schedule")
        await site.until_begun(MOST_STARTING)
        assert await site.reloads.stop(20) == frozenset()

    site = play(HELD_UP, case)

    assert len(list(tmp_path.iterdir())) == MOST_STARTING
    assert [ended.status for _reload, ended in site.ended].count(143) == MOST_STARTING


def test_a_reload_that_has_found_something_to_do_lets_others_start(play: Callable[[str, Case], HeldReloads]) -> None:
    """It waits for a lock, say, and takes no processor."""

    async def case(site: HeldReloads) -> None:
        for number in range(MOST_STARTING + 1):
            site.reloads.begin(f"service {number}", "schedule")
        await site.until_begun(MOST_STARTING)
        site.reloads.reached("service 0", "check")
        site.reloads.reached("service 0", "acquire")
        await site.until_begun(MOST_STARTING + 1)
        await site.reloads.stop(20)

    play(HELD_UP, case)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"exit_code": 0, "outcome": "reloaded"}, False),
        ({"exit_code": 1, "outcome": "rolled back"}, False),
        ({"exit_code": 75, "outcome": "refused"}, False),
        ({"exit_code": 143, "outcome": "interrupted"}, False),
        ({"exit_code": -9}, True),
        ({"exit_code": 69}, True),
        ({"exit_code": 3}, True),
        ({"exit_code": 1, "outcome": "environment"}, True),
        ({"exit_code": 1, "outcome": "stranded"}, True),
        ({"exit_code": 75, "outcome": "refused", "retry_after": 9.0}, True),
    ],
)
def test_what_is_tried_again(result: dict[str, Any], expected: bool) -> None:
    assert is_unfinished(result) is expected
