"""The daemon's reloads, each counted once and retried when it must be, whatever happens to the lock file meanwhile."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.daemon.reloads import Retries
from agent.daemon.subprocesses import Launcher
from agent.daemon.supervisor import Supervisor
from agent.definitions import parse_file
from agent.metrics.exposition import Metrics, text_of
from agent.outcomes import Outcome
from agent.reload.host_lock import HostLock
from agent.reload.record import Phase, ReloadResult, StepEvent
from agent.reload.steps import Step

CHECK = {"http": "http://127.0.0.1:80/", "interval": "10s"}
DEFINITION = json.dumps({"service": {"name": "web", "checks": [CHECK]}, "reload": {"restart": ["true"]}}).encode()
DONE = ReloadResult("web", "host1", "web:1", id="theirs", outcome=Outcome.RELOADED)

RELOAD = """
import json, pathlib, signal, sys
from agent.clock import SystemClock
from agent.reload.host_lock import HostLock
from agent.reload.record import Phase, ReloadResult, StepEvent
from agent.reload.steps import Step
place, result = pathlib.Path({place!r}), json.loads({result!r})
with HostLock(place, "web", SystemClock(), 0.0) as lock:
    lock.record(StepEvent(Step.DRAIN, Phase.BEGIN, reload="ours"))
    if result:
        lock.record_end(ReloadResult("web", "host1", "web:1", id="ours", **result))
(place / "released").touch()
signal.pause()
"""
"""A reload whose process goes on after it has released its lock, until it gets a signal."""


class Followed:
    """A supervisor whose children are `RELOAD` with one result."""

    def __init__(self, place: Path, result: dict[str, Any]) -> None:
        self._place = place
        program = RELOAD.format(place=str(place), result=json.dumps(result))
        launcher = Launcher([], os.environ, (sys.executable, "-c", program))
        self.metrics = Metrics(SystemClock())
        self.supervisor = Supervisor(
            launcher,
            place,
            SystemClock(),
            asyncio.create_task,
            lambda _service_id, _why: None,
            lambda: None,
            self.metrics,
        )
        definition = parse_file(place / "web.json", DEFINITION, {}).definition
        assert definition is not None
        self.supervisor.converged([definition], ())

    async def until_released(self) -> int:
        """Run a reload, and wait until its process has released its lock; the process's ID."""
        self.supervisor.begin("web", "schedule")
        async with asyncio.timeout(30):
            while not (self._place / "released").exists():
                await asyncio.sleep(0.01)
        [running] = self.supervisor.status()
        assert running.pid is not None
        return running.pid

    async def until_idle(self) -> None:
        async with asyncio.timeout(30):
            while self.supervisor.status():
                self.supervisor.follow()
                await asyncio.sleep(0.01)

    def counted(self) -> dict[str, int]:
        """The numbers of reloads by result, without zeros."""
        lines = text_of(self.metrics.collect()).decode().splitlines()
        found = (line.rpartition(" ") for line in lines if line.startswith("svcagent_reloads_total{"))
        numbers = {labels.partition('result="')[2].partition('"')[0]: int(float(value)) for labels, _, value in found}
        return {result: number for result, number in numbers.items() if number}


def play(place: Path, result: dict[str, Any], case: Callable[[Followed], Awaitable[None]]) -> dict[str, int]:
    async def main() -> dict[str, int]:
        followed = Followed(place, result)
        await case(followed)
        await followed.until_idle()
        followed.supervisor.follow()
        return followed.counted()

    return asyncio.run(main())


@pytest.fixture
def retried(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The services whose reload is to be tried again."""
    found: set[str] = set()

    class Noted(Retries):
        def failed(self, service_id: str, at_least: float = 0.0) -> float:
            found.add(service_id)
            return super().failed(service_id, at_least)

    monkeypatch.setattr("agent.daemon.supervisor.Retries", Noted)
    return found


def reload_of_others(place: Path) -> None:
    with HostLock(place, "web", SystemClock(), 0.0) as lock:
        lock.record(StepEvent(Step.DRAIN, Phase.BEGIN, reload="theirs"))
        lock.record_end(DONE)


@pytest.mark.parametrize("is_looked_between", [False, True])
@pytest.mark.parametrize(
    ("result", "is_retried"), [({"outcome": "stranded", "exit_code": 1}, True), ({"outcome": "rolled back"}, False)]
)
def test_another_reload_before_the_child_has_exited(
    tmp_path: Path, retried: set[str], result: dict[str, Any], is_retried: bool, is_looked_between: bool
) -> None:
    """Both are counted once, and the daemon's own is retried by its own result."""

    async def case(followed: Followed) -> None:
        pid = await followed.until_released()
        if is_looked_between:
            followed.supervisor.follow()
        reload_of_others(tmp_path)
        if is_looked_between:
            followed.supervisor.follow()
        os.kill(pid, signal.SIGKILL)

    assert play(tmp_path, result, case) == {result["outcome"]: 1, "reloaded": 1}
    assert (retried == {"web"}) == is_retried


def test_another_reload_that_still_runs_when_the_child_exits(tmp_path: Path) -> None:
    async def case(followed: Followed) -> None:
        pid = await followed.until_released()
        with HostLock(tmp_path, "web", SystemClock(), 0.0) as lock:
            lock.record(StepEvent(Step.DRAIN, Phase.BEGIN, reload="theirs"))
            followed.supervisor.follow()
            [running] = followed.supervisor.status()
            assert (running.id, running.why) == ("theirs", "")
            os.kill(pid, signal.SIGKILL)
            lock.record_end(DONE)

    assert play(tmp_path, {"outcome": "rolled back"}, case) == {"rolled back": 1, "reloaded": 1}


def test_a_child_that_was_killed(tmp_path: Path, retried: set[str]) -> None:
    async def case(followed: Followed) -> None:
        os.kill(await followed.until_released(), signal.SIGKILL)

    assert play(tmp_path, {}, case) == {"failed": 1}
    assert retried == {"web"}


def test_a_child_that_did_not_get_the_lock(tmp_path: Path) -> None:
    """It is counted by its exit code, not by what the lock file says of an earlier reload."""
    reload_of_others(tmp_path)

    async def case(followed: Followed) -> None:
        with HostLock(tmp_path, "web", SystemClock(), 0.0):
            followed.supervisor.begin("web", "schedule")
            await followed.until_idle()

    assert play(tmp_path, {}, case) == {"failed": 1}
