"""``svcagent schedule`` on a host without a daemon: what it shows of the definitions."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli.group import cli
from agent.daemon.schedule import spread

CHECK = {"http": "http://127.0.0.1:80/", "interval": "10s"}


def _write(directory: Path, name: str, **reload: Any) -> None:
    document: dict[str, Any] = {"service": {"name": name, "id": f"{name}-1", "port": 80, "checks": [CHECK]}}
    if reload:
        document["reload"] = {"image": f"x/{name}", "container": name, **reload}
    (directory / f"{name}.json").write_text(json.dumps(document))


@pytest.fixture
def services_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service on a schedule, one that never comes to run, one without a schedule and one without a reload."""
    monkeypatch.setenv("SVCAGENT_STATUS_FILE", str(tmp_path / "status.json"))
    _write(tmp_path, "a-night", schedule="*/10 * * * *", timezone="Asia/Tokyo", jitter="5m", windows=["22:00-06:00"])
    _write(tmp_path, "b-never", schedule="0 12 * * *", windows=["22:00-06:00"])
    _write(tmp_path, "c-by-hand", stop_timeout="10s")
    _write(tmp_path, "d-still")
    return tmp_path


def _shown(services_dir: Path, *arguments: str) -> list[list[str]]:
    result = CliRunner().invoke(cli, ["--services-dir", str(services_dir), "schedule", *arguments])
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]


def test_a_service_s_next_runs(services_dir: Path) -> None:
    """In its zone, to the moment: cron's, and this host's share of the jitter later, inside its windows."""
    before = datetime.now(UTC)

    [found] = json.loads(
        CliRunner().invoke(cli, ["--services-dir", str(services_dir), "--json", "schedule", "a-night"]).stdout
    )

    share = spread(300, os.uname().nodename, "a-night-1")
    runs = [datetime.fromisoformat(run) for run in found["runs"]]
    assert len(runs) == 5
    assert before < runs[0]
    assert runs == sorted(runs)
    for run in runs:
        due = run - share
        assert (due.minute % 10, due.second, due.microsecond) == (0, 0, 0)
        assert run.utcoffset() == timedelta(hours=9)
        assert run.hour >= 22 or run.hour < 6
    assert {key: found[key] for key in found.keys() - {"runs"}} == {
        "service": "a-night-1",
        "schedule": "*/10 * * * *",
        "timezone": "Asia/Tokyo",
        "offset_seconds": share.total_seconds(),
        "windows": ["22:00-06:00"],
        "why": None,
        "held": "the daemon does not run",
    }


def test_every_service_is_there_with_its_runs_or_the_reason_why_not(services_dir: Path) -> None:
    """Never, no schedule, no reload at all: each is said in its row."""
    header, *rows = _shown(services_dir, "--count", "2")

    assert header == ["SERVICE", "RUN", "IN", "SCHEDULE"]
    assert [row[0] for row in rows] == ["a-night-1", "a-night-1", "b-never-1", "c-by-hand-1", "d-still-1"]
    assert rows[0][2] == "no daemon"
    assert rows[0][3].startswith("*/10 * * * * + ")
    assert rows[0][3].endswith(" in 22:00-06:00")
    assert [row[1:3] for row in rows[2:]] == [["never", "-"], ["-", "-"], ["-", "-"]]
    assert "is in a window (22:00-06:00)" in rows[2][3]
    assert rows[3][3] == f"{services_dir}/c-by-hand.json has no reload.schedule"
    assert rows[4][3] == f"{services_dir}/d-still.json has no reload section"


def test_without_a_daemon_it_says_that_nothing_starts_these_runs(services_dir: Path) -> None:
    for name, is_said in (("a-night", True), ("b-never", False)):
        result = CliRunner().invoke(cli, ["--services-dir", str(services_dir), "schedule", name])

        assert ("the daemon does not run" in result.stderr) is is_said


def test_one_service_by_its_name_or_its_id(services_dir: Path) -> None:
    """And as many runs of it as are asked for."""
    for name in ("a-night", "a-night-1"):
        assert [row[0] for row in _shown(services_dir, name, "--count", "40")[1:]] == ["a-night-1"] * 40


def test_an_unknown_name_is_a_usage_error(services_dir: Path) -> None:
    result = CliRunner().invoke(cli, ["--services-dir", str(services_dir), "schedule", "nope"])

    assert result.exit_code == 2
    assert "a-night, b-never, c-by-hand, d-still" in result.output
