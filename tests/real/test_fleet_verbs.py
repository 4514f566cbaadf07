"""The verbs about the whole fleet, through the command line, on a real Consul."""

import json
import os
import pty
import re
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.consul import Consul
from agent.fleet import HostState, Past, Pause, Pin, Quarantine, history, pause, quarantine, rollout, write_host_state
from agent.maintenance import by_operator, render
from tests.lab.server import spawn, svcagent_argv
from tests.real.conftest import ConsulHost
from tests.support.svcagent import Svcagent

NOW = datetime.now(UTC).replace(microsecond=0)
OLD, NEW = f"sha256:{'0' * 64}", f"sha256:{'1' * 64}"
IMAGE = "registry.example.com/web:latest"


@pytest.fixture
def run(host: ConsulHost, svcagent: Svcagent) -> Callable[..., str]:
    """svcagent to its end, which must have this exit code; all that it printed."""

    def run_to_end(*argv: str, code: int = 0, **settings: str) -> str:
        given = {"CONSUL_HTTP_ADDR": f"{host.address}:8500", "SUDO_USER": "alice"} | settings
        result = svcagent(*argv, **given)
        assert result.code == code, result
        return result.text

    return run_to_end


@pytest.fixture
def web(host: ConsulHost, number: int) -> Iterator[str]:
    """A service of its own for a test, on two hosts of which one passes, and on one that is gone from Consul."""
    name = f"web{number}"
    for node, status in (("host1", "passing"), ("host2", "critical")):
        _register(host, name, node, status)
    yield name
    for node in ("host1", "host2"):
        host.ask.put("/v1/catalog/deregister", {"Node": node})


def _register(host: ConsulHost, name: str, node: str, status: str, *held: str) -> None:
    checks = [{"Node": node, "CheckID": f"{name}-real", "Name": "real", "Status": status, "ServiceID": name}]
    for notes in held:
        check_id = f"_service_maintenance:{name}"
        checks.append(
            {"Node": node, "CheckID": check_id, "Name": "m", "Status": "critical", "ServiceID": name, "Notes": notes}
        )
    body = {"Node": node, "Address": "127.0.0.9", "Service": {"Service": name, "Port": 1}, "Checks": checks}
    host.ask.put("/v1/catalog/register", body)


def test_pause_and_resume_say_who_why_and_until_when(run: Callable[..., str], consul: Consul, web: str) -> None:
    assert f"{web}: paused until 20" in run("pause", web, "--reason", "release\n party", "--for", "2h")
    held = pause.find(consul, web, NOW)
    assert held is not None
    assert (held.by, held.why) == ("alice", "release party")
    assert "this replaces the pause by alice" in run("pause", web, "--reason", "release party")
    assert f"{web}: already paused" in run("pause", web, "--reason", "release party")
    document = json.loads(run("pause", web, "--reason", "release party", "--for", "2h", "--json"))
    assert document["pause"]["by"] == "alice"
    assert document["was"]["until"] is None
    assert "reloads are paused, by alice on " in run("fleet", web)

    assert json.loads(run("resume", web, "--json", SUDO_USER="bob"))["was"]["by"] == "alice"
    assert f"{web}: not paused" in run("resume", web)
    assert json.loads(run("resume", web, "--json")) == {"service": web, "was": None}


def test_another_operators_pause_stays_unless_replaced(run: Callable[..., str], consul: Consul, web: str) -> None:
    """The refusal says whose it is and what to add."""
    run("pause", web, "--reason", "release", SUDO_USER="bob")

    said = run("pause", web, "--reason", "mine", "--until", "2099-01-01T00:00Z", "--json", code=1)
    assert json.JSONDecoder().raw_decode(said)[0]["kind"] == "paused-already"
    assert "bob" in said
    assert "(release)" in said
    assert "--replace" in said
    assert json.loads(run("pause", web, "--reason", "mine", "--replace", "--json"))["was"]["by"] == "bob"
    held = pause.find(consul, web, NOW)
    assert held is not None
    assert held.by == "alice"


def test_an_expired_pause_is_reported(run: Callable[..., str], consul: Consul, web: str) -> None:
    pause.put(consul, web, Pause("bob", "host2", "w", NOW - timedelta(hours=2), NOW - timedelta(hours=1)), NOW)

    assert "paused" not in run("fleet", web)
    assert "not paused; the pause by bob" in run("resume", web)


@pytest.mark.parametrize(
    "arguments",
    [
        ["pause", "web"],
        ["pause", "web", "--reason", " "],
        ["pause", "web", "--reason", "x", "--for", "2h", "--until", "18:00"],
        ["pause", "web", "--reason", "x", "--for", "0s"],
        ["pause", "web", "--reason", "x", "--until", "2001-01-01T00:00Z"],
        ["pause", "no-such-service", "--reason", "x"],
        ["resume", "no-such-service"],
        ["fleet", "no-such-service"],
        ["fleet", "a/../b"],
        ["fleet", "web", "--watch", "--json"],
        ["history", "no-such-service"],
        ["history", "web", "--limit", "0"],
        ["quarantine", "clear", "no-such-service", "--all"],
        ["quarantine", "clear", "web", "sha256:1", "--all"],
    ],
)
def test_what_is_no_sense_is_a_usage_error(run: Callable[..., str], arguments: list[str]) -> None:
    """A name that nobody knows is one too: a typo must not pause nothing."""
    said = run("--json", *arguments, code=2)

    assert json.JSONDecoder().raw_decode(said)[0]["kind"] == "usage"
    assert "no-such-service" not in arguments or "no-such-service" in said


def test_a_definition_with_faults_prevents_no_pause(run: Callable[..., str], svcagent: Svcagent, web: str) -> None:
    """The stop works for whatever Consul knows; what it does not know may be in the files with faults."""
    (svcagent.services_dir / "bad.json").write_text("{")

    run("pause", web, "--reason", "x")
    assert "bad.json" in run("pause", "no-such-service", "--reason", "x", code=78)


def test_a_service_defined_only_here_is_paused(run: Callable[..., str], svcagent: Svcagent, consul: Consul) -> None:
    """The pause is the service's, whatever its instance is called."""
    svcagent.define("only-defined", id="only-defined-1")

    run("pause", "only-defined-1", "--reason", "x")
    assert pause.find(consul, "only-defined", NOW) is not None


def test_quarantine_lists_and_clears(run: Callable[..., str], consul: Consul, web: str) -> None:
    """Everything that is known of it, and a part of the digest is enough."""
    assert "nothing is quarantined or suspect" in run("quarantine", "list", web)
    for digest in (OLD, NEW):
        quarantine.put(consul, web, Quarantine(digest, "host1", NOW, "not ready\nmore", IMAGE, "boom\nbang"))

    everywhere = run("quarantine", "list")
    assert f"{web}\t{OLD}\thost1\t" in everywhere
    assert "not ready" in everywhere
    assert "bang" not in everywhere
    assert "  boom\n  bang" in run("quarantine", "list", web)
    document = json.loads(run("quarantine", "list", web, "--json"))
    assert [one["digest"] for one in document] == [OLD, NEW]
    assert document[0]["log"] == "boom\nbang"

    for unclear in ([], ["sha256:"], ["2"]):
        assert OLD in run("quarantine", "clear", web, *unclear, code=2)
    rollout.pin(consul, web, Pin(IMAGE, OLD, "host1", NOW), 0)
    cleared = run("quarantine", "clear", web, "000")
    assert f"{web}: {OLD} was cleared by " in cleared
    assert f"svcagent reload {web} --force" in cleared, "its rollout goes on: how to take a newer one instead"
    assert "neither quarantined nor suspect" in run("quarantine", "clear", web, OLD)
    other = run("quarantine", "clear", web)
    assert f"{NEW} was cleared by " in other
    assert "--force" not in other
    assert "nothing to clear" in run("quarantine", "clear", web)
    assert json.loads(run("quarantine", "clear", web, "--all", "--json")) == []


def test_quarantine_clears_unreadable_ones(host: ConsulHost, run: Callable[..., str], consul: Consul, web: str) -> None:
    """A damaged entry is listed with what is wrong, holds, and goes like any other."""
    quarantine.put(consul, web, Quarantine(OLD, "host1", NOW, "not ready"))
    host.ask.put(f"/v1/kv/svcagent/{web}/quarantine/{NEW}", {"v": 7})

    assert "its version is 7" in run("quarantine", "list", web)
    assert "its version is 7" in run("quarantine", "clear", web, "--all")
    assert quarantine.read_all(consul, web) == {}


def test_an_operator_lists_and_clears_a_suspect_version(run: Callable[..., str], consul: Consul, web: str) -> None:
    """With its host and step; the host's document goes, and the operator is named."""
    taking = HostState(OLD, "reloading", NOW, step="ready", service_id=web, session="gone", wanted=NEW)
    write_host_state(consul, web, "host1", taking)

    said = run("quarantine", "list", web)
    assert f"{web}\t{NEW}\thost1\t" in said
    assert "is suspect" in said
    [document] = json.loads(run("quarantine", "list", web, "--json"))
    assert (document["kind"], document["digest"], document["host"], document["step"]) == (
        "suspect",
        NEW,
        "host1",
        "ready",
    )
    shown = run("fleet", web)
    assert "\tsuspect (ready)\t" in shown
    assert f"svcagent quarantine clear {web} {NEW}" in shown
    fleet = json.loads(run("fleet", web, "--json"))
    assert [one["host"] for one in fleet["suspects"]] == ["host1"]
    assert {one["host"]: one["suspect"] for one in fleet["hosts"]} == {"host1": True, "host2": False}

    assert "cleared by alice" in run("quarantine", "clear", web, NEW)
    assert "nothing is quarantined or suspect" in run("quarantine", "list", web)
    assert consul.kv_keys(f"svcagent/{web}/hosts/") == ()


def test_two_instances_have_two_rows(host: ConsulHost, run: Callable[..., str], consul: Consul, web: str) -> None:
    """The rollout is done with the host after the second."""
    second = {"ID": f"{web}-2", "Service": web, "Port": 2}
    host.ask.put("/v1/catalog/register", {"Node": "host1", "Address": "127.0.0.9", "Service": second})
    rollout.pin(consul, web, Pin(IMAGE, NEW, "host1", NOW), 0)
    for service_id, digest in ((web, NEW), (f"{web}-2", OLD)):
        write_host_state(consul, web, "host1", HostState(digest, "running", NOW, service_id=service_id))

    shown = run("fleet", web)
    assert "0 of 2 hosts run it, not yet: host1, host2" in shown
    assert f"host1 ({web}-2)\t{OLD[:19]}" in shown
    write_host_state(consul, web, "host1", HostState(NEW, "running", NOW, service_id=f"{web}-2"))
    assert "1 of 2 hosts run it, not yet: host2" in run("fleet", web)


def test_no_rollout_waits_for_a_down_host(host: ConsulHost, run: Callable[..., str], consul: Consul, web: str) -> None:
    serf = {"Node": "host2", "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "critical"}
    host.ask.put("/v1/catalog/register", {"Node": "host2", "Address": "127.0.0.9", "Check": serf})
    rollout.pin(consul, web, Pin(IMAGE, NEW, "host1", NOW), 0)

    assert "0 of 1 host run it, not yet: host1" in run("fleet", web)


def test_a_service_is_found_by_its_name_in_any_case(run: Callable[..., str], consul: Consul, web: str) -> None:
    run("pause", web.upper(), "--reason", "x")

    assert pause.find(consul, web, NOW) is not None


def test_fleet_shows_instance_or_document(host: ConsulHost, run: Callable[..., str], consul: Consul, web: str) -> None:
    """Health and maintenance by the catalog, digest and state by what the host told, the pin with its progress."""
    _register(host, web, "host2", "passing", render(by_operator("bob", "host9", "disk", NOW)))
    write_host_state(consul, web, "host1", HostState(NEW, "running", NOW, "latest", "ab12"))
    write_host_state(consul, web, "gone", HostState(OLD, "rolled back", NOW, error="not ready\nlog"))
    rollout.pin(consul, web, Pin(IMAGE, NEW, "host1", NOW), 0)

    lines = run("fleet", web).splitlines()
    since = f"{NOW:%Y-%m-%dT%H:%M:%SZ}"
    short = NEW[:19]
    assert lines[0].startswith(f"rollout of {IMAGE} to {short}, pinned by host1 at {since}: 1 of 1 host run it")
    assert [line.split("\t") for line in lines[2:]] == [
        ["gone", OLD[:19], "-", "rolled back", "no instance", "-", since, "not ready"],
        ["host1", short, "latest", "running", "passing", "-", since, "-"],
        ["host2", "-", "-", "unknown", "passing", "bob on host9", "-", "-"],
    ]
    document = json.loads(run("fleet", web, "--json"))
    assert document["pin"]["done"] == ["host1"]
    assert document["pin"]["missing"] == []
    assert {one["host"]: (one["state"], one["health"]) for one in document["hosts"]} == {
        "host1": ("running", "passing"),
        "host2": (None, "passing"),
        "gone": ("rolled back", None),
    }


def test_fleet_names_the_hosts_that_a_rollout_waits_for(run: Callable[..., str], consul: Consul, web: str) -> None:
    rollout.pin(consul, web, Pin(IMAGE, NEW, "host1", NOW), 0)

    assert "0 of 2 hosts run it, not yet: host1, host2" in run("fleet", web)


def _watching(host: ConsulHost, web: str, **popen: Any) -> "subprocess.Popen[Any]":
    environment = host.environment() | {"PYTHONUNBUFFERED": "1"}
    return spawn([*svcagent_argv(), "fleet", web, "--watch"], environment, **popen)


def _line(process: "subprocess.Popen[Any]") -> str:
    assert process.stdout is not None
    line: str = process.stdout.readline()
    return line.rstrip("\n")


def test_fleet_in_a_pipe_prints_a_line_for_each_change(host: ConsulHost, consul: Consul, web: str) -> None:
    """What hosts tell, what the catalog shows, pin and pause; Ctrl-C ends it with 130 and no word."""
    process = _watching(host, web, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert [_line(process).split("\t")[0] for _ in range(3)] == ["HOST", "host1", "host2"]
        write_host_state(consul, web, "host1", HostState(OLD, "reloading", NOW, step="drain"))
        assert _line(process).startswith(f"host1\t{OLD[:19]}\t-\treloading (drain)\tpassing")
        _register(host, web, "host2", "passing")
        assert _line(process).startswith("host2\t-\t-\tunknown\tpassing")
        rollout.pin(consul, web, Pin(IMAGE, NEW, "host1", NOW), 0)
        assert _line(process).startswith("rollout of ")
        pause.put(consul, web, Pause("bob", "h", "w", NOW), NOW)
        assert _line(process).startswith("reloads are paused, by bob")
        host.ask.put("/v1/catalog/deregister", {"Node": "host2"})
        assert "0 of 1 host " in _line(process)
        assert _line(process) == "host2\tgone"
    finally:
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (130, "", "")


def test_fleet_ends_when_its_reader_is_gone(host: ConsulHost, consul: Consul, web: str) -> None:
    process = _watching(host, web, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(3):
            _line(process)
        assert process.stdout is not None
        process.stdout.close()
        write_host_state(consul, web, "host1", HostState(OLD, "reloading", NOW, step="drain"))
        assert process.wait(20) == 0
    finally:
        process.kill()
        _output, errors = process.communicate(timeout=20)
    assert errors == ""


def test_fleet_waits_for_a_consul_that_is_away(host: ConsulHost, consul: Consul, web: str) -> None:
    """Says so once, and shows what has changed when it is back."""
    process = _watching(host, web, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(3):
            _line(process)
        host.server.kill()
        assert "Retrying" in _line(process)
        host.server.restart()
        write_host_state(consul, web, "host1", HostState(NEW, "running", NOW))
        assert _line(process).startswith(f"host1\t{NEW[:19]}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 143


def test_fleet_on_a_terminal_draws_until_ctrl_c(host: ConsulHost, consul: Consul, web: str) -> None:
    """The table changes in its place, and the cursor is visible again at the end."""
    outer, inner = pty.openpty()
    process = _watching(host, web, stdout=inner, stderr=inner)
    os.close(inner)
    seen = bytearray()

    def has(text: str) -> bool:
        while text.encode() not in seen:
            seen.extend(os.read(outer, 65536))
        del seen[: seen.index(text.encode())]
        return True

    try:
        assert has("host2")
        write_host_state(consul, web, "host1", HostState(OLD, "queueing", NOW))
        assert has("queueing")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert has("\x1b[?25h")
    os.close(outer)
    assert process.returncode == 130


def _past(number: int, node: str, **more: Any) -> Past:
    began = NOW + timedelta(minutes=number)
    steps = (("check", 0.25), ("ready", 3.0))
    return Past(f"id{number}", node, began, "reloaded", IMAGE, OLD, NEW, steps, **more)


def test_history_shows_the_fleets_past_and_one_hosts(run: Callable[..., str], consul: Consul, web: str) -> None:
    """The newest first, with seconds by step, result, digests and error."""
    assert f"no reload of {web} is known" in run("history", web)
    for number in range(3):
        history.publish(consul, web, _past(number, f"host{number % 2}", error="boom\nbang" if number == 2 else ""))

    lines = [line.split("\t") for line in run("history", web).splitlines()]
    assert [line[1] for line in lines] == ["HOST", "host0", "host1", "host0"]
    assert lines[1][2:] == ["reloaded", OLD[:19], NEW[:19], "3.2", "check 0.25, ready 3.00", "boom"]
    assert len(run("history", web, "--host", "host0", "--limit", "1").splitlines()) == 2
    unknown = run("history", web, "--host", "hots1")
    assert f"no reload of {web} on hots1 is known; there are some on: host0, host1. Did you mean host1?" in unknown
    [document] = json.loads(run("history", web, "--host", "host1", "--json"))
    assert document["id"] == "id1"
    assert (document["from"], document["to"], document["outcome"]) == (OLD, NEW, "reloaded")
    assert document["steps"][1] == {"step": "ready", "seconds": 3.0}


def test_a_row_of_history_is_two_lines_of_a_terminal_at_most(host: ConsulHost, consul: Consul, web: str) -> None:
    """The outcome, and what matters most of the rest: the error, or else the slowest steps."""
    history.publish(consul, web, _past(1, "host1"))
    history.publish(consul, web, _past(2, "a-host-with-a-long-name", error="it did not become ready " * 20))
    outer, inner = pty.openpty()
    termios.tcsetwinsize(inner, (24, 80))
    environment = {**os.environ, "CONSUL_HTTP_ADDR": f"{host.address}:8500", "TERM": "xterm"}
    with spawn([*svcagent_argv(), "history", web], environment, stdout=inner) as process:
        assert process.wait(20) == 0
    os.close(inner)
    seen = os.read(outer, 65536).decode()
    os.close(outer)

    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in seen.splitlines()]
    assert [len(line) <= 80 for line in lines] == [True] * 5
    assert "it did not become ready" in lines[2]
    assert lines[4].strip().endswith("ready 3.00, check 0.25")


def test_history_says_whether_a_recovery_restored_the_old_version(
    run: Callable[..., str], consul: Consul, web: str
) -> None:
    for number, running in enumerate((OLD, NEW, "")):
        past = replace(_past(number, "host1"), outcome="recovered", running=running)
        history.publish(consul, web, past)

    rows = [line.split("\t") for line in run("history", web).splitlines()]
    assert [row[2] for row in rows[1:]] == ["recovered", "recovered", "recovered (rolled back)"]
    assert [one["running"] for one in json.loads(run("history", web, "--json"))] == [None, NEW, OLD]


def test_history_is_read_from_disk_without_consul(run: Callable[..., str], svcagent: Svcagent) -> None:
    """This host's own is shown, and the exit code says that it is not all."""
    history.write_to_disk(svcagent.state_dir, "web", _past(1, "here"))

    said = run("history", "web", code=69, CONSUL_HTTP_ADDR="127.0.0.1:1")
    assert "here\treloaded" in said
    assert "Showing only what this host has on disk" in said
    assert "\treloaded" not in run("history", "web", "--host", "there", code=69, CONSUL_HTTP_ADDR="127.0.0.1:1")


@pytest.mark.parametrize(
    "arguments", [["pause", "web", "--reason", "x"], ["resume", "web"], ["quarantine", "list"], ["fleet", "web"]]
)
def test_without_consul_it_is_69(run: Callable[..., str], arguments: list[str]) -> None:
    assert "127.0.0.1:1" in run(*arguments, code=69, CONSUL_HTTP_ADDR="127.0.0.1:1")
