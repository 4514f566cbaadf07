"""Credentials that are read without the SDK are those that the SDK would send; where it is needed, that is known."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient
from docker.auth import get_config_header

from agent.engine.connection import EngineConnection, needs_sdk, plain_authorization
from tests.support.nobody import as_nobody

ALICE = {"auth": base64.b64encode(b"alice:s3:cret").decode()}
BOB = {"auth": base64.b64encode(b"bob:word").decode()}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any configuration, for svcagent and for the SDK."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    return tmp_path


def of_the_sdk(file: Path, registry: str) -> str:
    client = APIClient(base_url="unix:///nowhere", version="1.41")
    client.reload_config(str(file))
    header: bytes | None = get_config_header(client, registry)
    client.close()
    return (header or b"").decode()


@pytest.mark.parametrize("registry", ["docker.io", "registry.example.com:5000", "other.example.com"])
@pytest.mark.parametrize(
    "auths",
    [
        {"registry.example.com:5000": ALICE, "https://index.docker.io/v1/": BOB},
        {"https://registry.example.com:5000/v2/": ALICE, "docker.io": BOB},
        {},
        {"https://registry.example.com:5000": ALICE, "registry.example.com:5000": BOB},
    ],
)
def test_plain_entries_make_the_header_of_the_sdk(home: Path, auths: dict[str, Any], registry: str) -> None:
    file = home / "config.json"
    file.write_text(json.dumps({"auths": auths}))

    assert plain_authorization(file, registry) == of_the_sdk(file, registry)


def test_without_any_configuration_there_is_no_header(home: Path) -> None:
    file = home / "elsewhere" / "config.json"

    assert plain_authorization(file, "docker.io") == of_the_sdk(file, "docker.io") == ""


def test_in_a_home_of_another_user_there_are_no_credentials(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after ``sudo -u svcagent`` that keeps HOME."""
    home = open_directory / "home"
    (home / ".docker").mkdir(parents=True)
    (home / ".docker" / "config.json").write_text(json.dumps({"auths": {"docker.io": ALICE}}))
    home.chmod(0)
    monkeypatch.setenv("HOME", str(home))
    docker = EngineConnection("unix:///nowhere", {"HOME": str(home)})
    file = docker.credentials_file

    with as_nobody():
        assert plain_authorization(file, "docker.io") == of_the_sdk(file, "docker.io") == ""
        assert not needs_sdk(file)
        assert "Permission denied" in docker.credentials_source()


def test_without_a_home_there_are_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, and a user who is not in the password database."""

    def unknown(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.delenv("HOME")
    docker = EngineConnection("unix:///nowhere", {})
    file = docker.credentials_file

    assert plain_authorization(file, "docker.io") == of_the_sdk(file, "docker.io") == ""
    assert docker.credentials_source().endswith(f"{file} does not exist")


@pytest.mark.parametrize(
    "configuration",
    [
        "not JSON",
        "[]",
        '{"r": {"auth": "YTpi"}}',
        '{"auths": {"r": {}}}',
        '{"auths": {"r": {"auth": "%"}}}',
        '{"auths": {"r": {"auth": "YTpi", "identitytoken": "x"}}}',
        '{"auths": {"r": {"auth": "YTpi"}}, "credsStore": "pass"}',
        '{"auths": {"r": {"auth": "YTpi"}}, "credHelpers": {"r": "ecr"}}',
    ],
)
def test_what_is_unusual_is_left_to_the_sdk(home: Path, configuration: str) -> None:
    file = home / "config.json"
    file.write_text(configuration)

    assert plain_authorization(file, "r") is None


def test_a_configuration_at_another_place_is_left_to_the_sdk(home: Path) -> None:
    (home / ".dockercfg").write_text("{}")

    assert plain_authorization(home / "config.json", "r") is None


@pytest.mark.parametrize(("configuration", "expected"), [('{"HttpHeaders": {"A": "b"}}', True), ("{}", False)])
def test_headers_for_the_engine_are_added_by_the_sdk(home: Path, configuration: str, expected: bool) -> None:
    file = home / "config.json"
    file.write_text(configuration)

    assert needs_sdk(file) is expected
