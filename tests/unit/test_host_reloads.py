"""What the lock files of a host show: reloads that run, have ended, crashed, or were cut short."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.daemon.host_reloads import HostReloads
from agent.errors import LockBusy
from agent.logs import DAEMON_CHILD
from agent.outcomes import Outcome
from agent.reload.host_lock import HostLock
from agent.reload.record import Phase, ReloadResult, StepEvent
from agent.reload.steps import Step
from tests.lab.interrupted import leave_unfinished_reload

NOW = "2026-01-01T00:00:00+00:00"
DONE = ReloadResult("web", "host1", "web:1", id="r1", outcome=Outcome.RELOADED, log_tail="secret")


def lock_of(state_dir: Path, service_id: str = "web") -> HostLock:
    return HostLock(state_dir, service_id, SystemClock(), 0.0)


def reload(state_dir: Path, *results: ReloadResult) -> None:
    """One reload of this process, as far as its lock file shows it."""
    with lock_of(state_dir) as lock:
        lock.record(StepEvent(Step.DRAIN, Phase.BEGIN, reload="r1"))
        lock.record_end(*results)


def test_a_reload_from_step_to_step(tmp_path: Path) -> None:
    """Its step, place in the queue and last message while it runs; its results, without the container's log, after."""
    reloads = HostReloads(tmp_path, SystemClock())
    with lock_of(tmp_path) as lock:
        lock.record(StepEvent(Step.ACQUIRE, Phase.BEGIN, reload="r1"))
        lock.record(StepEvent(Step.ACQUIRE, Phase.NOTE, 1.0, "waiting for host2", "r1", 2))
        assert reloads.update() == []
        said = reloads.running["web"]
        lock.record_end(DONE)
    [(_service_id, ended)] = reloads.update()

    assert (said.step, said.place, said.text, said.reload) == ("acquire", 2, "waiting for host2", "r1")
    assert reloads.running == {}
    assert [(one["outcome"], one["log_tail"]) for one in ended.results] == [("reloaded", "")]
    assert reloads.update() == []


def test_what_ended_before_is_not_reported_again(tmp_path: Path) -> None:
    reload(tmp_path, DONE)

    assert HostReloads(tmp_path, SystemClock()).update() == []


def test_a_recovery_before_the_reload_is_reported_too(tmp_path: Path) -> None:
    reloads = HostReloads(tmp_path, SystemClock())
    reload(tmp_path, replace(DONE, outcome=Outcome.RECOVERED), DONE)

    assert [[one["outcome"] for one in ended.results] for _, ended in reloads.update()] == [["recovered", "reloaded"]]


def test_a_reload_that_was_killed(tmp_path: Path) -> None:
    reloads = HostReloads(tmp_path, SystemClock())
    program = (
        "import os, pathlib, sys\n"
        "from agent.clock import SystemClock\nfrom agent.reload.host_lock import HostLock\n"
        "from agent.reload.record import Phase, StepEvent\nfrom agent.reload.steps import Step\n"
        "with HostLock(pathlib.Path(sys.argv[1]), 'web', SystemClock(), 0.0) as lock:\n"
        "    lock.record(StepEvent(Step.DRAIN, Phase.BEGIN))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)

    assert [ended.results for _, ended in reloads.update()] == [()]
    assert reloads.update() == []
    assert reloads.interrupted() == {"web"}


def test_a_lock_without_a_reload_changes_nothing(tmp_path: Path) -> None:
    """``reload --check``, and a recovery that finds nothing to do: what was cut short is still known."""
    leave_unfinished_reload(tmp_path, "web")
    with lock_of(tmp_path):
        reloads = HostReloads(tmp_path, SystemClock())
        assert reloads.running == {}

    assert reloads.interrupted() == {"web"}


@pytest.mark.parametrize(
    ("result", "is_daemons", "expected"),
    [
        ({"outcome": "reloaded"}, True, False),
        ({"outcome": "refused", "exit_code": 75}, True, False),
        ({"outcome": "interrupted", "exit_code": 143}, True, True),
        ({"outcome": "interrupted", "exit_code": 143}, False, False),
        ({"outcome": "failed", "exit_code": 69}, True, True),
        ({"outcome": "failed", "exit_code": 69}, False, False),
        ({"outcome": "recovered"}, False, True),
    ],
)
def test_what_a_daemon_that_starts_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: dict[str, Any], is_daemons: bool, expected: bool
) -> None:
    """What a stop of the daemon or the host cut short; an operator repeats a reload that failed."""
    if is_daemons:
        monkeypatch.setenv(DAEMON_CHILD, "1")
    reload(tmp_path, replace(DONE, **result))

    assert HostReloads(tmp_path, SystemClock()).interrupted() == ({"web"} if expected else frozenset())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "4711\n",
        "[]",
        "{}",
        '{"pid": 1}',
        '{"pid": "1", "began": "2026-01-01"}',
        '{"pid": 1, "began": "today"}',
        '{"pid": 1, "began": "2026-01-01"}',
        *(
            f'{{"pid": 1, "began": "2026-01-01T00:00:00Z", {more}}}'
            for more in (
                '"results": [1]',
                '"results": [{"exit_code": "1"}]',
                '"results": [{"exit_code": 1, "retry_after": "soon"}]',
                '"results": [{"exit_code": 1, "outcome": []}]',
                '"results": 7',
                '"step": "drain"',
                '"step": "drain", "since": "now"',
                '"step": ["drain"], "since": "2026-01-01T00:00:00Z"',
                '"text": {}',
                '"place": "first"',
                '"before": 3',
                '"before": {"pid": 1}',
            )
        ),
    ],
)
def test_a_file_that_this_version_did_not_write(tmp_path: Path, content: str) -> None:
    (tmp_path / "reload-web.lock").write_text(content)

    reloads = HostReloads(tmp_path, SystemClock())

    assert (reloads.running, reloads.interrupted()) == ({}, frozenset())
    reload(tmp_path, DONE)
    assert len(reloads.update()) == 1


def test_a_shorter_record_ends_before_what_a_longer_one_left(tmp_path: Path) -> None:
    """A reader may come between the write and the truncation."""
    said = json.dumps({"pid": 1, "began": NOW, "step": "ready", "since": NOW})
    (tmp_path / "reload-web.lock").write_text(f'{said}\nfore", "step": "drain"}}\n')

    found = lock_of(tmp_path).read()

    assert found is not None
    assert found.step == "ready"


def test_a_busy_lock_says_who_holds_it_and_how_to_watch(tmp_path: Path) -> None:
    with lock_of(tmp_path) as lock:
        lock.record(StepEvent(Step.DRAIN, Phase.BEGIN))
        with pytest.raises(LockBusy) as raised, lock_of(tmp_path):
            pass

    said = lock_of(tmp_path).read()
    assert said is not None
    for part in (f"pid {said.pid}", "step drain", "--lock-timeout", "svcagent status web"):
        assert part in str(raised.value)


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is recorded without what does not fit; a record that does not fit at all replaces nothing."""
    allocate, space = os.posix_fallocate, [1 << 16]

    def allocate_some(descriptor: int, offset: int, length: int) -> None:
        if length > space[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(descriptor, offset, length)

    monkeypatch.setattr("os.posix_fallocate", allocate_some)
    with lock_of(tmp_path) as lock:
        lock.record(StepEvent(Step.DRAIN, Phase.BEGIN, reload="r1"))
        space[0] = 600
        lock.record_end(replace(DONE, outcome=Outcome.STRANDED, error="x" * 1000, exit_code=1))
        ended = lock.read()
        space[0] = 0
        lock.record_end(DONE)

        assert ended is not None
        assert [(one["outcome"], one["exit_code"], "error" in one) for one in ended.results] == [("stranded", 1, False)]
        assert lock.read() == ended


def test_what_is_no_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "reload-a.lock").mkdir()
    os.mkfifo(tmp_path / "reload-b.lock")

    reloads = HostReloads(tmp_path, SystemClock())

    assert (reloads.update(), reloads.running, reloads.interrupted()) == ([], {}, frozenset())


def test_a_recovery_that_was_interrupted_leaves_the_earlier_result(tmp_path: Path) -> None:
    reload(tmp_path, replace(DONE, outcome=Outcome.STRANDED, exit_code=1))
    reloads = HostReloads(tmp_path, SystemClock())
    with lock_of(tmp_path) as lock:
        lock.record(StepEvent(Step.READY, Phase.BEGIN, reload="r1"))
        lock.restore_record()

    assert reloads.update() == []
    assert [one["outcome"] for one in reloads.last["web"].results] == ["stranded"]
