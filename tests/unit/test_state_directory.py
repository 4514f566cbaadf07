"""A verb that does nothing, or only reads, creates no state directory; a wrong services directory is a fault."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli.group import cli
from agent.errors import BadDefinition, SvcagentError

CHECK = {"http": "http://127.0.0.1:80/", "interval": "10s"}
WEB = {"service": {"name": "web", "checks": [CHECK]}, "reload": {"image": "x/web", "container": "web"}}


@pytest.fixture(autouse=True)
def _no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")


def _run(home: Path, services_dir: Path, *argv: str) -> Result:
    return CliRunner().invoke(cli, ["--services-dir", str(services_dir), "--state-dir", str(home / "state"), *argv])


@pytest.mark.parametrize(
    "argv", ["reload nope", "register nope", "recover nope", "why nope", "why web", "history web", "status", "plan"]
)
def test_no_state_directory_is_created(tmp_path: Path, argv: str) -> None:
    services_dir = tmp_path / "services.d"
    services_dir.mkdir()
    (services_dir / "web.json").write_text(json.dumps(WEB))

    _run(tmp_path, services_dir, *argv.split())

    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("verb", ["reload", "why", "status", "register", "plan", "schedule"])
def test_a_services_directory_that_does_not_exist(tmp_path: Path, verb: str) -> None:
    """It is reported as such, whatever the name."""
    error = _run(tmp_path, tmp_path / "nowhere", verb, "web").exception

    assert isinstance(error, BadDefinition)
    assert [fault.file for fault in error.faults] == [str(tmp_path / "nowhere")]


def test_a_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    services_dir = tmp_path / "services.d"
    services_dir.mkdir()
    (services_dir / "web.json").write_text(json.dumps(WEB))

    error = _run(tmp_path / "nowhere", services_dir, "reload", "web").exception

    assert isinstance(error, SvcagentError)
    assert str(tmp_path / "nowhere") in str(error)
