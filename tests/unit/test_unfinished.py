"""What is known of a reload whose process has ended."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.maintenance import Maintenance, by_operator, by_reload
from agent.reload.host_lock import HostLock
from agent.reload.journal import Journal, JournalRecord
from agent.reload.record import ReloadResult
from agent.reload.unfinished import UnfinishedReload, find_unfinished

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
CLOCK = SystemClock()
RECORD = JournalRecord("ab12", "web-1", "web", "web", "lock", 1, "x/web:latest", NOW.isoformat(), step="restart")
HELD = by_reload("cd34", "host1", "to run sha256:1", NOW)
CRASHED = UnfinishedReload("web", "ab12", "restart", has_crashed=True)


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """The state directory after a reload that was killed at the step restart."""
    with HostLock(tmp_path, "web-1", CLOCK, 0.0):
        Journal(tmp_path, "web-1").write(RECORD)
    return tmp_path


def test_the_journal_says_which_reload_and_which_step(crashed: Path) -> None:
    found = find_unfinished(crashed, "web-1", CLOCK)

    assert found == CRASHED
    assert str(found) == (
        "reload ab12 of web crashed at step restart; to finish it or roll it back, run: svcagent recover web"
    )


def test_nothing_while_a_reload_runs(crashed: Path) -> None:
    with HostLock(crashed, "web-1", CLOCK, 0.0):
        assert find_unfinished(crashed, "web-1", CLOCK, HELD, "host1") is None


def test_a_reload_that_ended_with_a_result_has_not_crashed(crashed: Path) -> None:
    """It could not restore or remove everything. The end of another process says nothing of it."""
    with HostLock(crashed, "web-1", CLOCK, 0.0) as lock:
        lock.record_end(ReloadResult("web", "host1", "", error="no Consul", exit_code=69))
    assert find_unfinished(crashed, "web-1", CLOCK) == CRASHED

    with HostLock(crashed, "web-1", CLOCK, 0.0) as lock:
        lock.record_end(ReloadResult("web", "host1", "", id="ab12", exit_code=1))
    assert find_unfinished(crashed, "web-1", CLOCK) == replace(CRASHED, has_crashed=False)


@pytest.mark.parametrize("content", ["", "{}"])
def test_with_a_damaged_journal_the_maintenance_says_which(crashed: Path, content: str) -> None:
    next(crashed.glob("*.journal")).write_text(content)

    assert find_unfinished(crashed, "web-1", CLOCK) == UnfinishedReload("web-1", "", "", has_crashed=True)
    assert find_unfinished(crashed, "web-1", CLOCK, HELD, "host1") == UnfinishedReload(
        "web-1", "cd34", "", has_crashed=True
    )


@pytest.mark.parametrize(
    ("held", "is_found"),
    [(HELD, True), (replace(HELD, host="host2"), False), (by_operator("root", "h", "w", NOW), False)],
)
def test_without_a_journal_only_a_maintenance_of_a_reload_here(
    tmp_path: Path, held: Maintenance, *, is_found: bool
) -> None:
    found = find_unfinished(tmp_path, "web-1", CLOCK, held, "host1")

    assert (found is not None) is is_found


def test_nothing_is_known_without_the_state_directory(tmp_path: Path) -> None:
    """The reload may be running with another one, or this user may not read it."""
    assert find_unfinished(tmp_path / "nowhere", "web-1", CLOCK, HELD, "host1") is None
