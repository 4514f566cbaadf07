"""The verbs as a user runs them, on one real Consul agent."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.reload.host_lock import HostLock
from tests.real.conftest import ConsulHost
from tests.support.svcagent import Svcagent

WEB = {
    "service": {
        "name": "web",
        "tags": ["production"],
        "port": 8080,
        "checks": [{"http": "http://127.0.0.1:9/hc", "interval": "10s", "timeout": "1s"}],
    }
}


def _run(host: ConsulHost, *arguments: str, **environment: str) -> tuple[int, str, str]:
    result = Svcagent(host.directory, CONSUL_HTTP_ADDR=f"{host.address}:8500").process(*arguments, **environment)
    return result.code, result.out, result.err


def _write(host: ConsulHost, name: str, content: Any) -> Path:
    return Svcagent(host.directory).write(name, content)


@pytest.fixture(autouse=True)
def _nothing_registered(host: ConsulHost) -> None:
    """Each test starts with an empty agent and an empty services.d."""
    for service in host.ask.get("/v1/agent/services"):
        host.ask.deregister_service(service)
    host.environment()
    for file in (host.directory / "services.d").iterdir():
        file.unlink()


def test_register_creates_keeps_updates_and_removes(host: ConsulHost) -> None:
    """What is missing is created, what is right is left, what differs is updated, what is gone is removed."""
    file = _write(host, "web", WEB)
    created = _run(host, "--json", "register")
    kept = _run(host, "--json", "register")
    _write(host, "web", {"service": {**WEB["service"], "port": 8081}})
    updated = _run(host, "--json", "register")
    file.unlink()
    _write(host, "other", {"service": {"name": "other"}})
    removed = _run(host, "--json", "register")

    actions = [
        {change["service"]: change["action"] for change in json.loads(output)["changes"]}
        for _code, output, _errors in (created, kept, updated, removed)
    ]
    assert actions == [{"web": "create"}, {"web": "keep"}, {"web": "update"}, {"web": "remove", "other": "create"}]
    assert list(host.ask.get("/v1/agent/services")) == ["other"]


def test_dry_run_changes_nothing(host: ConsulHost) -> None:
    """It prints the plan and leaves the agent as it is."""
    _write(host, "web", WEB)

    code, output, _errors = _run(host, "register", "--dry-run")

    assert code == 0
    assert "create\tweb" in output
    assert host.ask.get("/v1/agent/services") == {}


def test_services_of_others_are_not_changed(host: ConsulHost) -> None:
    """Same id, another hand: refused with exit code 1, and not touched; deregister does not take it either."""
    host.ask.put("/v1/agent/service/register", {"Name": "web", "Port": 1})
    _write(host, "web", WEB)

    code, _output, errors = _run(host, "register")
    removal, _removal_output, removal_errors = _run(host, "deregister", "web")

    assert code == removal == 1
    assert "not changed" in errors
    assert "not changed" in removal_errors
    assert host.ask.get("/v1/agent/services")["web"]["Port"] == 1


def test_an_empty_directory_removes_nothing_unless_asked(host: ConsulHost) -> None:
    """A wrong path must not take a host's services away."""
    file = _write(host, "web", WEB)
    assert _run(host, "register")[0] == 0
    file.unlink()

    code, _output, errors = _run(host, "register")
    assert code == 1
    assert "--allow-empty" in errors
    assert "web" in host.ask.get("/v1/agent/services")
    assert _run(host, "register", "--allow-empty")[0] == 0
    assert host.ask.get("/v1/agent/services") == {}


def test_deregister_takes_its_own(host: ConsulHost) -> None:
    host.ask.put("/v1/agent/service/register", {"Name": "foreign"})
    _write(host, "web", WEB)
    assert _run(host, "register")[0] == 0

    assert _run(host, "deregister", "--all")[0] == 0

    assert list(host.ask.get("/v1/agent/services")) == ["foreign"]


def test_a_faulty_file_removes_no_service(host: ConsulHost) -> None:
    """`status` says to correct the file, not to deregister the service; `deregister` warns."""
    file, other = _write(host, "web", WEB), _write(host, "other", {"service": {"name": "other"}})
    assert _run(host, "register")[0] == 0
    other.unlink()
    assert "run: svcagent deregister other" in _run(host, "status")[1]
    file.write_text("{")
    _write(host, "other", {"service": {"name": "other"}})

    code, status, _errors = _run(host, "status")
    assert code == 78
    assert f"web: {file} may define it and has errors" in status
    assert "deregister" not in status
    code, _output, errors = _run(host, "deregister", "web")
    assert code == 0
    assert f"web: {file} may define it" in errors
    assert "other" not in errors


@pytest.mark.parametrize("verb", [["deregister"], ["status"], ["reload"], ["maint", "disable"], ["fleet"]])
def test_a_name_that_is_not_there_is_named_with_the_one_it_resembles(host: ConsulHost, verb: list[str]) -> None:
    _write(host, "web", WEB)
    assert _run(host, "register")[0] == 0

    code, _output, errors = _run(host, *verb, "wbe")

    assert code == (0 if verb == ["deregister"] else 2)
    assert "wbe" in errors
    assert "Did you mean web?" in errors


def test_deregister_waits_for_the_end_of_a_reload(host: ConsulHost) -> None:
    """It changes nothing while one runs here, and says which process that is."""
    _write(host, "web", WEB)
    assert _run(host, "register")[0] == 0

    with HostLock(host.directory / "state", "web", SystemClock(), 0.0):
        code, output, _errors = _run(host, "--json", "deregister", "--all")
    document = json.loads(output)

    assert (code, document["kind"]) == (75, "reload-running")
    assert f"pid {os.getpid()}" in document["error"]
    assert "web" in host.ask.get("/v1/agent/services")
    assert _run(host, "deregister", "--all")[0] == 0


def test_five_faults_in_two_files_are_one_report_and_the_good_file_is_registered(host: ConsulHost) -> None:
    """All faults of all files at once, each with file and place; exit code 78."""
    first = _write(
        host,
        "a",
        {"service": {"name": "a b", "port": 99999, "checks": [{"http": "http://127.0.0.1/", "interval": "10"}]}},
    )
    second = _write(host, "b", {"service": {"name": "b", "prot": 80, "tags": "production"}})
    good = _write(host, "c", {"service": {"name": "c"}})

    code, _output, errors = _run(host, "register")
    assert code == 78
    faults = [line for line in errors.splitlines() if line.startswith("svcagent: ")]
    assert len(faults) == 5, errors
    for file, place in (
        (first, "service.name"),
        (first, "service.port"),
        (first, "service.checks[0].interval"),
        (second, "service.prot"),
        (second, "service.tags"),
    ):
        assert any(f"{file}: {place}: " in fault for fault in faults), (place, errors)

    code, _output, errors = _run(host, "validate")
    lines = errors.splitlines()
    assert code == 78
    assert lines.index(f"svcagent: {first}: 3 errors") < lines.index(f"svcagent: {second}: 2 errors")
    assert lines[-1] == "svcagent: 5 errors in 2 of 3 files"
    assert str(good) not in errors
    assert list(host.ask.get("/v1/agent/services")) == ["c"]
    document = json.loads(_run(host, "--json", "validate")[1])
    assert (len(document["faults"]), document["exit_code"]) == (5, 78)
    assert len(json.loads(_run(host, "--json", "register")[1])["faults"]) == 5
    good.unlink()
    assert _run(host, "register")[0] == 78
    assert list(host.ask.get("/v1/agent/services")) == ["c"]


def test_no_consul_says_which_address_and_which_variable(host: ConsulHost) -> None:
    """Exit code 69, the address tried, and the variable that sets it; register says that it waits."""
    _write(host, "web", WEB)
    for arguments in (["register", "--wait", "300ms"], ["status"], ["maint", "status"], ["deregister", "--all"]):
        code, _output, errors = _run(host, *arguments, CONSUL_HTTP_ADDR="127.0.0.1:9")
        assert code == 69, arguments
        assert "http://127.0.0.1:9" in errors
        assert "CONSUL_HTTP_ADDR" in errors


def test_no_docker_says_which_address_and_which_variable(host: ConsulHost) -> None:
    """Exit code 69, the address tried, and the variable that sets it; status shows the rest all the same."""
    _write(host, "web", {**WEB, "reload": {"image": "127.0.0.1:5000/web:latest", "container": "web"}})
    assert _run(host, "register")[0] == 0
    nowhere = f"unix://{host.directory}/nowhere.sock"

    for arguments in (["reload", "web"], ["status"]):
        code, output, errors = _run(host, *arguments, DOCKER_HOST=nowhere)
        assert code == 69, arguments
        assert nowhere in errors
        assert "DOCKER_HOST" in errors
    assert "web" in output


def test_maintenance_survives_an_update(host: ConsulHost) -> None:
    """Who took it out and why stay in the catalog while the service is registered anew."""
    _write(host, "web", WEB)
    assert _run(host, "register")[0] == 0
    assert _run(host, "maint", "enable", "web", "--reason", "disk swap")[0] == 0
    before = host.ask.get("/v1/agent/checks")["_service_maintenance:web"]["Notes"]
    _write(host, "web", {"service": {**WEB["service"], "port": 8081}})

    assert _run(host, "register")[0] == 0

    assert host.ask.get("/v1/agent/checks")["_service_maintenance:web"]["Notes"] == before
    assert host.ask.get("/v1/agent/services")["web"]["Port"] == 8081
    assert _run(host, "maint", "disable", "web")[0] == 0


def test_wrong_settings_are_reported_like_definitions(host: ConsulHost) -> None:
    """A directory or a settings file that is not there is an error that says which."""
    nowhere = f"{host.directory}/nowhere"
    for arguments in (["--services-dir", nowhere, "validate"], ["--config", nowhere, "validate"]):
        code, _output, errors = _run(host, *arguments)
        assert code == 78
        assert nowhere in errors
