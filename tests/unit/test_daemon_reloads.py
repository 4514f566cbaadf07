"""The daemon's reloads: one of a service at a time, looked on at, stopped, taken up again. A program is the verb."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.daemon.children import Ended, Launcher, Record
from agent.daemon.reloads import MOST_STARTING, Activity, Reloads, Wanted
from agent.daemon.underway import UnderWay

SAY = "import json, signal, sys\ndef say(**record): print(json.dumps(record), file=sys.stderr, flush=True)\n"

RELOADED = SAY + (
    "say(step='check', phase='begin', text='')\n"
    "say(step='drain', phase='begin', text='')\n"
    "print(json.dumps({'service': 'one', 'outcome': 'reloaded', 'exit_code': 0}))\n"
)
UP_TO_DATE = SAY + (
    "say(step='check', phase='begin', text='')\nprint(json.dumps({'outcome': 'up to date', 'exit_code': 0}))\n"
)
MET_NOBODY = SAY + "say(step='drain', phase='begin', text='')\nsys.exit(69)\n"
PULLING = SAY + "for phase in ('begin', 'progress', 'progress', 'end'): say(step='pull', phase=phase, text='')\n"
HELD_UP = SAY + (
    "def put_back(*_):\n"
    "    print(json.dumps({'outcome': 'interrupted', 'exit_code': 143}))\n"
    "    sys.exit(143)\n"
    "signal.signal(signal.SIGTERM, put_back)\n"
    "while True:\n"
    "    say(step='acquire', phase='note', text='place 2 in the line')\n"
    "    signal.pause()\n"
)
KILLED = SAY + "import os\nsay(step='drain', phase='begin', text='')\nos.kill(os.getpid(), 9)\n"
STUBBORN = (
    SAY + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay(step='ready', text='')\nsignal.pause()\nsignal.pause()\n"
)


class Site:
    """Reloads of one program, and what was heard of them."""

    def __init__(self, state_dir: Path, program: str) -> None:
        self.under_way = UnderWay(state_dir)
        self.heard: list[Record] = []
        self.ended: list[tuple[Activity, Ended]] = []
        self.has_spoken = asyncio.Event()
        launcher = Launcher([], {}, (sys.executable, "-c", program))
        self.reloads = Reloads(launcher, self.under_way, SystemClock(), self._hear, self._hear_end)

    async def until_idle(self) -> None:
        """Wait for the end of all."""
        async with asyncio.timeout(20):
            while self.reloads.running:
                await asyncio.sleep(0.01)

    async def until_spoken(self) -> None:
        """Wait for the first record."""
        async with asyncio.timeout(20):
            await self.has_spoken.wait()

    def _hear(self, _activity: Activity, record: Record) -> None:
        self.heard.append(record)
        self.has_spoken.set()

    def _hear_end(self, activity: Activity, ended: Ended) -> None:
        self.ended.append((activity, ended))


Case = Callable[[Site], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[str, Case], Site]:
    """Run a case on an event loop of its own, with reloads of a program."""

    def run(program: str, case: Case) -> Site:
        async def main() -> Site:
            site = Site(tmp_path, program)
            await case(site)
            return site

        return asyncio.run(main())

    return run


def left(state_dir: Path) -> list[str]:
    """What a daemon started anew would take up."""
    return sorted(UnderWay(state_dir).ids)


async def to_its_end(site: Site) -> None:
    """One reload, from start to end."""
    site.reloads.begin(Wanted("one", "schedule"))
    await site.until_idle()


def test_a_reload_is_heard_and_ends(play: Callable[[str, Case], Site], tmp_path: Path) -> None:
    """Its records come in order, its result last, and nothing of it is under way any more."""
    site = play(RELOADED, to_its_end)

    [(activity, ended)] = site.ended
    assert ended.status == 0
    assert [record["step"] for record in site.heard] == ["check", "drain"]
    assert activity.result == {"service": "one", "outcome": "reloaded", "exit_code": 0}
    assert activity.records[-1] == {"result": activity.result}
    assert left(tmp_path) == []


def test_looking_for_an_image_is_not_written_down(play: Callable[[str, Case], Site], tmp_path: Path) -> None:
    """A hundred services that look every minute and find nothing cost the disk nothing."""
    play(UP_TO_DATE, to_its_end)

    assert not (tmp_path / "under-way.json").exists()


def test_one_at_a_time_and_others_look_on(play: Callable[[str, Case], Site]) -> None:
    """A second wish for the same service gets the one that runs."""

    async def case(site: Site) -> None:
        first, is_new = site.reloads.begin(Wanted("one", "schedule"))
        assert is_new
        await site.until_spoken()
        second, is_new = site.reloads.begin(Wanted("one", "an operator"))
        assert (second, is_new) == (first, False)
        seen: list[Record] = []
        second.lookers_on.append(seen.append)
        site.reloads.cancel("one")
        await site.until_idle()
        assert seen == [{"result": first.result}]

    site = play(HELD_UP, case)

    assert len(site.ended) == 1


def test_what_is_cancelled_is_not_taken_up_again(play: Callable[[str, Case], Site], tmp_path: Path) -> None:
    """Somebody wanted it to end."""

    async def case(site: Site) -> None:
        site.reloads.begin(Wanted("one", "schedule"))
        await site.until_spoken()
        site.reloads.cancel("one")
        await site.until_idle()

    site = play(HELD_UP, case)

    assert site.ended[0][0].result == {"service": "one", "outcome": "interrupted", "exit_code": 143}
    assert left(tmp_path) == []


def test_what_is_cancelled_while_it_starts(play: Callable[[str, Case], Site]) -> None:
    """A wish to end that comes before there is a process is not lost, and one that Python itself meets is an end."""

    async def case(site: Site) -> None:
        site.reloads.begin(Wanted("one", "schedule"))
        site.reloads.cancel("one")
        await site.until_idle()

    site = play(HELD_UP, case)

    result = site.ended[0][0].result
    assert result is not None
    assert (result["outcome"], result["exit_code"]) == ("interrupted", 143)


def test_what_the_daemons_end_interrupted_is_taken_up_again(play: Callable[[str, Case], Site], tmp_path: Path) -> None:
    """A restart of the daemon in the middle of a rollout loses no host's turn."""

    async def case(site: Site) -> None:
        site.reloads.begin(Wanted("one", "schedule"))
        await site.until_spoken()
        assert await site.reloads.stop(20) == frozenset()

    site = play(HELD_UP, case)

    assert site.ended[0][1].status == 143
    assert left(tmp_path) == ["one"]


def test_what_was_killed_is_taken_up_again(play: Callable[[str, Case], Site], tmp_path: Path) -> None:
    """A result is told of it all the same, and it says what comes next."""
    site = play(KILLED, to_its_end)

    [(activity, ended)] = site.ended
    assert ended.was_killed
    assert activity.result is not None
    assert (activity.result["outcome"], activity.result["exit_code"]) == ("failed", 1)
    assert "signal 9" in activity.result["error"]
    assert left(tmp_path) == ["one"]


def test_what_met_nobody_is_taken_up_again(play: Callable[[str, Case], Site], tmp_path: Path) -> None:
    """As long as it is to be tried again a daemon that is started anew tries it too."""
    play(MET_NOBODY, to_its_end)

    assert left(tmp_path) == ["one"]


def test_what_does_not_end_in_time_is_left_to_its_journal(play: Callable[[str, Case], Site], tmp_path: Path) -> None:
    """The daemon ends in the time that it has, and says of which service it knows no end."""

    async def case(site: Site) -> None:
        site.reloads.begin(Wanted("one", "schedule"))
        await site.until_spoken()
        child = site.reloads.child("one")
        try:
            assert await site.reloads.stop(0.2) == {"one"}
        finally:
            assert child is not None
            child.kill()
            await site.until_idle()

    play(STUBBORN, case)

    assert left(tmp_path) == ["one"]


def test_a_program_that_is_not_there(play: Callable[[str, Case], Site], tmp_path: Path) -> None:
    """No process to be had is a failed reload, not a daemon that stops."""

    async def case(site: Site) -> None:
        launcher = Launcher([], {}, (str(tmp_path / "nothing"),))
        reloads = Reloads(launcher, site.under_way, SystemClock(), site._hear, site._hear_end)  # noqa: SLF001 - its own
        activity, _is_new = reloads.begin(Wanted("one", "schedule"))
        async with asyncio.timeout(20):
            while reloads.running:
                await asyncio.sleep(0.01)
        assert activity.result is not None
        assert activity.result["exit_code"] == 1

    play("", case)


@pytest.mark.parametrize("content", ["", "[]", '{"v": 1}', '{"v": 1, "services": 3}', '{"v": 9, "services": ["one"]}'])
def test_a_damaged_list_is_an_empty_one(tmp_path: Path, content: str) -> None:
    """The daemon starts with whatever it finds; what was under way is then only repaired."""
    (tmp_path / "under-way.json").write_text(content)

    under_way = UnderWay(tmp_path)
    under_way.begin("two")

    assert json.loads((tmp_path / "under-way.json").read_text()) == {"v": 1, "services": ["two"]}


@pytest.mark.parametrize(
    ("wanted", "verb"),
    [
        (Wanted("one", ""), ["reload", "--lock-timeout", "1h", "--", "one"]),
        (Wanted("one", "", lock_timeout=None), ["reload", "--", "one"]),
        (
            Wanted("one", "", is_forced=True, is_in_maintenance=True, lock_timeout="90s"),
            ["reload", "--lock-timeout", "90s", "--force", "--in-maintenance", "--", "one"],
        ),
    ],
)
def test_the_verb(wanted: Wanted, verb: list[str]) -> None:
    """What was asked for, as the command line has it."""
    assert wanted.verb == verb


def test_what_cannot_be_forgotten_is_told(play: Callable[[str, Case], Site], tmp_path: Path) -> None:
    """A directory that cannot be written stops no daemon."""
    (tmp_path / "under-way.json").write_text('{"v": 1, "services": ["gone"]}')

    async def case(site: Site) -> None:
        (tmp_path / "under-way.json").unlink()
        tmp_path.rename(tmp_path.with_name("elsewhere"))
        site.reloads.forget("gone")

    play("", case)


def test_a_bug_is_handed_on(tmp_path: Path) -> None:
    """To whoever starts the tasks: it does not vanish with one of them."""
    begun: list[asyncio.Task[None]] = []

    def start(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        begun.append(asyncio.create_task(work))
        return begun[0]

    def fail(_activity: Activity, _ended: Ended) -> None:
        raise LookupError("a bug")

    async def main() -> None:
        launcher = Launcher([], {}, (sys.executable, "-c", ""))
        under_way = UnderWay(tmp_path)
        Reloads(launcher, under_way, SystemClock(), lambda *_: None, fail, start).begin(Wanted("one", "schedule"))
        with pytest.raises(LookupError, match="a bug"):
            await begun[0]

    asyncio.run(main())


LOOKING = SAY + (
    "import os\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    "say(step='check', phase='begin', text='', pid=os.getpid())\n"
    "signal.pause()\n"
)


def test_not_all_start_at_once(play: Callable[[str, Case], Site]) -> None:
    """Of many that are due in one minute some look first; those that have not begun end with the others."""

    async def case(site: Site) -> None:
        for number in range(MOST_STARTING + 4):
            site.reloads.begin(Wanted(f"service {number}", "schedule"))
        async with asyncio.timeout(20):
            while len(site.heard) < MOST_STARTING:
                await asyncio.sleep(0.01)
        assert await site.reloads.stop(20) == frozenset()

    site = play(LOOKING, case)

    assert len(site.heard) == MOST_STARTING
    outcomes = [activity.result["outcome"] for activity, _ended in site.ended if activity.result]
    assert outcomes.count("interrupted") == 4


def test_who_waits_for_a_lock_keeps_nobody_from_starting(play: Callable[[str, Case], Site]) -> None:
    """It has found something to do, and takes no processor."""

    async def case(site: Site) -> None:
        for number in range(MOST_STARTING + 1):
            site.reloads.begin(Wanted(f"service {number}", "schedule"))
        async with asyncio.timeout(20):
            while len(site.heard) <= MOST_STARTING:
                await asyncio.sleep(0.01)
        await site.reloads.stop(20)

    play(HELD_UP, case)


def test_how_far_a_pull_is_fills_no_log(play: Callable[[str, Case], Site], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks on sees each percent of it; the daemon's own log holds what has happened."""
    logged: list[Record] = []
    monkeypatch.setattr("agent.daemon.reloads.reemit", logged.append)

    site = play(PULLING, to_its_end)

    assert [record["phase"] for record in logged] == ["begin", "end"]
    assert [record["phase"] for record in site.heard] == ["begin", "progress", "progress", "end"]
