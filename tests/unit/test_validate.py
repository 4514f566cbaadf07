"""``svcagent validate`` where no agent answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli.group import cli

WEB = {"name": "web", "port": 80, "checks": [{"http": "http://127.0.0.1:80/", "interval": "10s"}]}
RELOAD = {"image": "x/web", "container": "web", "schedule": "0 12 * * *"}


def _validated(directory: Path, *options: str) -> Any:
    environment = {"CONSUL_HTTP_ADDR": "127.0.0.1:9"}
    arguments = ["--services-dir", str(directory), *options, "validate"]
    result = CliRunner().invoke(cli, arguments, env=environment, standalone_mode=False)
    assert (result.exception, result.return_value) == (None, 0)
    return result


@pytest.mark.parametrize(("windows", "is_warned"), [("22:00-06:00", True), ("11:00-13:00", False)])
def test_a_schedule_that_is_never_due_is_warned_of(tmp_path: Path, windows: str, is_warned: bool) -> None:
    file = tmp_path / "web.json"
    file.write_text(json.dumps({"service": WEB, "reload": {**RELOAD, "windows": [windows], "timezone": "UTC"}}))

    document = json.loads(_validated(tmp_path, "--json").stdout)

    assert [warning.startswith(f"{file}: reload.schedule: ") for warning in document["warnings"]] == [True] * is_warned


def test_files_that_look_like_definitions_and_are_ignored_are_warned_of(tmp_path: Path) -> None:
    for name in ("web.json", "a.yaml", "b.YML", "c.hcl", ".hidden.hcl", "README.md"):
        (tmp_path / name).write_text(json.dumps({"service": WEB}) if name == "web.json" else "service: web")

    result = _validated(tmp_path)

    warned = [line for line in result.stderr.splitlines() if " is ignored: " in line]
    assert [Path(line.split()[1]).name for line in warned] == ["a.yaml", "b.YML", "c.hcl"]
    assert result.stdout.splitlines()[-1] == "1 definition, 1 service, no faults"
