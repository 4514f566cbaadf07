"""``svcagent validate`` where no agent answers."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from agent.cli.group import cli

WEB = {"name": "web", "port": 80, "checks": [{"http": "http://127.0.0.1:80/", "interval": "10s"}]}
RELOAD = {"image": "x/web", "container": "web", "schedule": "0 12 * * *"}


def _validated(directory: Path, *options: str) -> Any:
    result = _invoked(directory, *options)
    assert (result.exception, result.return_value) == (None, 0)
    return result


def _invoked(directory: Path, *options: str, arguments: tuple[str, ...] = ()) -> Any:
    environment = {"CONSUL_HTTP_ADDR": "127.0.0.1:9"}
    command = ["--services-dir", str(directory), *options, "validate", *arguments]
    return CliRunner().invoke(cli, command, env=environment, standalone_mode=False)


@pytest.mark.parametrize(("windows", "is_warned"), [("22:00-06:00", True), ("11:00-13:00", False)])
def test_a_schedule_that_is_never_due_is_warned_of(tmp_path: Path, windows: str, is_warned: bool) -> None:
    file = tmp_path / "web.json"
    file.write_text(json.dumps({"service": WEB, "reload": {**RELOAD, "windows": [windows], "timezone": "UTC"}}))

    document = json.loads(_validated(tmp_path, "--json").stdout)

    assert [warning.startswith(f"{file}: reload.schedule: ") for warning in document["warnings"]] == [True] * is_warned


def test_files_that_look_like_definitions_and_are_ignored_are_warned_of(tmp_path: Path) -> None:
    for name in ("web.json", "a.yaml", "b.YML", "c.hcl", "d.JSON", "e.json5", ".hidden.hcl", "README.md"):
        (tmp_path / name).write_text(json.dumps({"service": WEB}) if name == "web.json" else "service: web")

    result = _validated(tmp_path)

    warned = [line for line in result.stderr.splitlines() if " is ignored: " in line]
    assert [Path(line.split()[1]).name for line in warned] == ["a.yaml", "b.YML", "c.hcl", "d.JSON", "e.json5"]
    assert result.stdout.splitlines()[-1] == "1 definition, 1 service, no faults"


def test_faults_are_listed_by_file_after_the_warnings(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"service": {"name": "a", "port": 0, "tag": []}}))
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.json").write_text(json.dumps({"service": WEB}))
    (tmp_path / "d.JSON").write_text("{}")

    result = _invoked(tmp_path)

    assert result.return_value == 78
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"svcagent: {tmp_path}/d.JSON is ignored")
    assert lines[1:4] == [
        f"svcagent: {tmp_path}/a.json: 2 errors",
        "  service.port: 0 is out of range",
        "    write a number that is at least 1",
    ]
    assert lines[-1] == "svcagent: 3 errors in 2 of 3 files"
    assert len(json.loads(_invoked(tmp_path, "--json").stdout)["faults"]) == 3


def test_a_name_is_a_usage_error(tmp_path: Path) -> None:
    assert isinstance(_invoked(tmp_path, arguments=("web",)).exception, click.UsageError)
