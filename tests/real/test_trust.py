"""The command line refuses files that other users could have written, and no other user can hold its locks."""

import fcntl
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.lab.server import svcagent_argv
from tests.real.conftest import ConsulHost
from tests.support.svcagent import Svcagent

NOBODY = 65534


def test_register_continues_when_another_user_locks_services_d(host: ConsulHost, svcagent: Svcagent) -> None:
    """Anyone who can read a directory can lock it: the lock of a registration is elsewhere."""
    svcagent.define("locked")
    descriptor = os.open(svcagent.services_dir, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    result = svcagent("register", "--wait", "1s", CONSUL_HTTP_ADDR=f"{host.address}:8500")

    os.close(descriptor)
    assert result.code == 0, result
    locks = [file for file in svcagent.state_dir.iterdir() if file.suffix == ".lock"]
    assert locks
    assert {stat.S_IMODE(file.stat().st_mode) for file in locks} == {0o600}
    host.ask.deregister_service("locked")


def test_a_held_registration_lock_is_waited_for_and_named(host: ConsulHost, svcagent: Svcagent) -> None:
    svcagent.define("locked")
    descriptor = os.open(svcagent.state_dir / "register.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    result = svcagent("register", "--wait", "0.2s", CONSUL_HTTP_ADDR=f"{host.address}:8500")

    os.close(descriptor)
    assert result.code == 75
    assert str(svcagent.state_dir / "register.lock") in result.err


@pytest.mark.parametrize("verb", [["validate"], ["plan"], ["register"], ["reload", "web"]])
def test_every_verb_refuses_another_users_definition(host: ConsulHost, svcagent: Svcagent, verb: list[str]) -> None:
    svcagent.define("web")
    file = svcagent.services_dir / "web.json"
    os.chown(file, NOBODY, NOBODY)

    result = svcagent(*verb, CONSUL_HTTP_ADDR=f"{host.address}:8500")

    assert result.code == 78
    assert f"run: chown root {file}" in result.err
    assert "web" not in host.ask.get("/v1/agent/services")


def test_a_missing_state_directory_is_created(host: ConsulHost, svcagent: Svcagent, tmp_path: Path) -> None:
    svcagent.define("stated")
    state = tmp_path / "new-state"

    result = svcagent("register", CONSUL_HTTP_ADDR=f"{host.address}:8500", SVCAGENT_STATE_DIR=str(state))

    assert result.code == 0, result
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    host.ask.deregister_service("stated")


@pytest.mark.parametrize("verb", [["register"], ["recover"], ["run"], ["reload", "web"]])
def test_a_state_directory_that_others_write_is_refused(host: ConsulHost, svcagent: Svcagent, verb: list[str]) -> None:
    """They could leave a journal there, and with it a command to run or maintenance to disable."""
    check = {"tcp": f"{host.address}:8500", "interval": "1s"}
    svcagent.write("web", {"service": {"name": "web", "checks": [check]}, "reload": {"restart": ["true"]}})
    svcagent.state_dir.chmod(0o770)

    result = svcagent(*verb, CONSUL_HTTP_ADDR=f"{host.address}:8500")

    assert result.code == 78, result
    assert f"run: chmod go-w {svcagent.state_dir}" in result.err


def test_root_is_advised_to_run_as_the_owner_of_the_state_directory(host: ConsulHost, svcagent: Svcagent) -> None:
    """If root took the directory over, the daemon that runs as that user could not use it any more."""
    svcagent.define("web")
    os.chown(svcagent.state_dir, NOBODY, -1)

    result = svcagent("register", CONSUL_HTTP_ADDR=f"{host.address}:8500")

    assert result.code == 78, result
    assert "sudo -u nobody" in result.err


def test_a_token_file_that_others_write_is_refused(host: ConsulHost, svcagent: Svcagent, tmp_path: Path) -> None:
    """And one that everybody reads is used, with a warning."""
    token = tmp_path / "token"
    token.write_text("")
    token.chmod(0o620)

    result = svcagent("--json", "plan", CONSUL_HTTP_ADDR=f"{host.address}:8500", CONSUL_HTTP_TOKEN_FILE=str(token))

    assert (result.code, result.kind) == (78, "token-unusable")
    assert f"run: chmod go-w {token}" in result.err


def test_no_definition_publishes_a_credential(host: ConsulHost, svcagent: Svcagent) -> None:
    svcagent.define("web", meta={"a": "${env:CONSUL_HTTP_TOKEN}", "b": "${env:DB_URL}", "c": "${env:ROLE}"})

    result = svcagent(
        "register",
        CONSUL_HTTP_ADDR=f"{host.address}:8500",
        CONSUL_HTTP_TOKEN="hush-hush",
        DB_URL="postgres://me:hush@db/",
        ROLE="api",
    )

    assert result.code == 78
    assert result.err.count("contains a credential") == 2
    assert "hush" not in result.text


def test_a_locale_without_the_character_ends_nothing(svcagent: Svcagent) -> None:
    svcagent.define("web", nane="…")

    result = subprocess.run(
        [*svcagent_argv(), "validate"],
        env=svcagent.environment(PYTHONIOENCODING="latin-1"),
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert result.returncode == 78


def test_no_file_blocks_the_others_report(svcagent: Svcagent) -> None:
    """A FIFO is not waited for, and whatever a file holds, the faults of the others are reported, too."""
    svcagent.define("web", port=70000)
    os.mkfifo(svcagent.services_dir / "fifo.json")
    (svcagent.services_dir / "deep.json").write_text("[" * 100_000)
    (svcagent.services_dir / "digits.json").write_text(
        '{"service": {"name": "d", "port": 1, "checks": [{"tcp": "127.0.0.1:1", "interval": "1s"}]},'
        f'"reload": {{"image": "a/b:c", "container": "dd", "drain": {{"min": "{"1" * 4301}s"}}}}}}'
    )

    result = svcagent("--json", "validate")

    assert result.code == 78
    named = {Path(fault["file"]).name for fault in json.loads(result.out)["faults"]}
    assert named == {"web.json", "fifo.json", "deep.json", "digits.json"}
