"""The daemon's status file, and when a reader does not believe it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.status import STALE_SECONDS, DaemonStatus, StatusFile, read_status
from agent.definitions import Settings
from tests.support.clock import FakeClock
from tests.unit.schedule_tools import utc

HUGE_PID = json.dumps(
    {"v": 1, "pid": 1 << 32, "at": "2026-06-01T10:05:00Z", "state_dir": "/", "services_dir": "/", "started": "1"}
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    environ = {"SVCAGENT_STATUS_FILE": str(tmp_path / "run" / "status.json")}
    for name in ("services.d", "state"):
        (tmp_path / name).mkdir()
    return Settings.load(None, environ, services_dir=tmp_path / "services.d", state_dir=tmp_path / "state")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(utc("2026-06-01 10:05"))


def written(settings: Settings, clock: FakeClock, **more: Any) -> Path:
    """The file of a daemon that is this process."""
    document = {
        "pid": os.getpid(),
        "state_dir": str(settings.state_dir),
        "services_dir": str(settings.services_dir),
        "reloads": [],
        **more,
    }
    StatusFile(settings.daemon.status_file, clock).write(document)
    return settings.daemon.status_file


def read(settings: Settings, clock: FakeClock) -> tuple[bool, str]:
    """Whether a daemon runs, and what is wrong."""
    found = read_status(settings, clock)
    return found.document is not None, found.problem


def test_a_daemon_that_runs(settings: Settings, clock: FakeClock) -> None:
    """Its directory is made; owner and group may read it, and nobody else."""
    file = written(settings, clock)

    assert read(settings, clock) == (True, "")
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o640, 0o750)


def test_no_daemon(settings: Settings, clock: FakeClock) -> None:
    assert read_status(settings, clock) == DaemonStatus(None, "does not run")
    StatusFile(written(settings, clock), clock).remove()
    assert read_status(settings, clock) == DaemonStatus(None, "does not run")


def test_a_daemon_that_has_ended(settings: Settings, clock: FakeClock) -> None:
    """Its process is gone, or another one has its number now."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    written(settings, clock, pid=process.pid)
    gone = read(settings, clock)
    written(settings, clock, started="1")
    other = read(settings, clock)

    for is_there, problem in (gone, other):
        assert not is_there
        assert problem.startswith("does not run: process")


def test_a_daemon_that_proc_hides(settings: Settings, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hidepid, /proc shows other users' processes to nobody else: it is not taken for one that has ended."""

    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    with subprocess.Popen(["true"]) as process:
        process.wait()
    written(settings, clock, pid=process.pid)
    monkeypatch.setattr("os.kill", refuse)

    assert read(settings, clock) == (True, "")


def test_a_daemon_that_hangs(settings: Settings, clock: FakeClock) -> None:
    """What it says is shown, and that it is old."""
    written(settings, clock)
    clock.sleep(STALE_SECONDS)
    assert read(settings, clock) == (True, "")
    clock.sleep(1)

    is_there, problem = read(settings, clock)

    assert is_there
    assert "has not updated its status for 91 s" in problem


def test_a_daemon_of_other_directories(settings: Settings, clock: FakeClock, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(settings.state_dir)
    written(settings, clock, state_dir=str(tmp_path / "link"))
    assert read(settings, clock) == (True, "")
    written(settings, clock, state_dir="/elsewhere")

    found = read_status(settings, clock)

    assert (found.document, found.is_elsewhere) == (None, True)
    assert "/elsewhere" in found.problem


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", HUGE_PID, '{"v": 2}', '{"v": 1, "pid": "x"}', '{"v": 1, "pid": 1}']
)
def test_a_file_that_cannot_be_used(settings: Settings, clock: FakeClock, content: str) -> None:
    written(settings, clock).write_text(content)

    found = read_status(settings, clock)

    assert (found.document, found.is_unknown) == (None, True)
    assert "is invalid" in found.problem


def test_a_failed_write_is_logged_once(settings: Settings, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    settings.daemon.status_file.parent.touch()
    file = StatusFile(settings.daemon.status_file, clock)
    file.write({})
    file.write({})

    assert len(caplog.messages) == 1
    assert str(settings.daemon.status_file) in caplog.messages[0]


def test_the_document_has_its_time_and_its_process(settings: Settings, clock: FakeClock) -> None:
    tree = json.loads(written(settings, clock).read_text())

    assert (tree["v"], tree["at"], tree["pid"]) == (1, "2026-06-01 10:05:00+00:00", os.getpid())
