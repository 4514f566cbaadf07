"""Registrations that are killed, that meet each other, or that find an agent which is not there or has forgotten."""

import json
import random
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agent.consul.transport import ConsulConnection
from agent.http import HttpAnswer
from tests.lab.asking import Consul as Asking
from tests.lab.ground import claimed, wait_until
from tests.lab.host import environment_in
from tests.lab.server import Server
from tests.real.conftest import ConsulHost
from tests.real.registration_fixture import RegistrationHost
from tests.unit.test_definitions_faults import BAD, UNREADABLE

SERVICES = 80


@pytest.fixture
def site(host: ConsulHost, tmp_path: Path) -> Iterator[RegistrationHost]:
    found = RegistrationHost(tmp_path, host)
    yield found
    found.clear()


def many(site: RegistrationHost, generation: int, count: int = SERVICES) -> None:
    """Services that change in every way from one generation to the next: kinds of checks, ports, which there are."""
    for file in site.services_dir.glob("*.json"):
        file.unlink()
    for number in range(generation, generation + count):
        kind = ("http", "http://127.0.0.1:1/") if (number + generation) % 2 else ("tcp", "127.0.0.1:1")
        check = {kind[0]: kind[1], "interval": "1h"}
        checks = [check | {"id": f"explicit-{number}"}, check]
        site.service(f"s{number:04}", port=1000 + generation, checks=checks)


def kill_after(
    process: "subprocess.Popen[str]", site: RegistrationHost, before: Mapping[str, Any], writes: int
) -> None:
    """SIGKILL when that many services are not as they were."""

    def is_far_enough() -> bool:
        now = site.services()
        return sum(now[one] != before.get(one) for one in now) >= writes or process.poll() is not None

    wait_until(is_far_enough, 20, f"{writes} services are written", every=0.001)
    process.send_signal(signal.SIGKILL)


def theirs(site: RegistrationHost) -> list[Any]:
    services, checks = site.services(), site.host.ask.get("/v1/agent/checks")
    return [services.get("theirs"), checks.get("their-check"), checks.get("node-check")]


def test_killed_at_any_moment_the_next_run_converges(site: RegistrationHost) -> None:
    site.put("service/register", {"ID": "theirs", "Name": "s0001", "Check": {"CheckID": "their-check", "TTL": "1h"}})
    site.put("check/register", {"ID": "node-check", "Name": "node-check", "TTL": "1h"})
    foreign = theirs(site)
    many(site, 0)
    site.register()
    moments = random.Random(7)
    for generation in range(1, 6):
        many(site, generation * 10)
        before = site.services()
        process = site.start("register")
        kill_after(process, site, before, moments.randrange(1, SERVICES // 2))
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        if generation % 2:
            continue  # killed again before it could finish what the last one left

        site.register()

        wanted = {f"s{number:04}" for number in range(generation * 10, generation * 10 + SERVICES)}
        assert set(site.services()) == wanted | {"theirs"}
        explicit = {f"explicit-{name[1:].lstrip('0') or '0'}" for name in wanted}
        checks = site.host.ask.get("/v1/agent/checks")
        own = {check_id for check_id, check in checks.items() if check["ServiceID"] in wanted}
        assert {one for one in own if one.startswith("explicit-")} == explicit
        assert len(own) == 2 * len(wanted)
        assert {change["action"] for change in site.planned().values()} == {"keep"}
    assert theirs(site) == foreign


class Killed(BaseException):
    """No handler of svcagent's takes it for a failure."""


def test_interrupted_anywhere_the_next_run_converges(site: RegistrationHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every moment of a run that creates, changes, retypes and removes: all that Consul saw is a number of writes."""
    tcp, http = {"tcp": "127.0.0.1:1", "interval": "1h"}, {"http": "http://127.0.0.1:1/", "interval": "1h"}
    for writes in count():
        site.put("service/register", {"ID": "theirs", "Name": "gone", "Check": {"CheckID": "their-check", "TTL": "1h"}})
        foreign = theirs(site)
        site.service("changed", port=1, checks=[{"id": "stays", **http}, {"id": "goes", "ttl": "1h"}])
        site.service("retyped", checks=[{"id": "one", **http}, {"id": "moves", "ttl": "1h"}])
        site.registered("gone", checks=[{"ttl": "1h"}])
        site.remove("gone")
        site.service("changed", port=2, checks=[{"id": "stays", **http}, {"id": "new", "ttl": "1h"}])
        site.service("new", checks=[{"id": "moves", "ttl": "1h"}])
        site.service("retyped", checks=[{"id": "one", **tcp}])

        with monkeypatch.context() as patched:
            patched.setattr(ConsulConnection, "ask", _killed_after(writes))
            try:
                site.register()
            except Killed:
                is_complete = False
            else:
                is_complete = True
        site.register()

        assert {change["action"] for change in site.planned().values()} == {"keep"}, writes
        assert set(site.services()) == {"changed", "new", "retyped", "theirs"}
        assert {"stays", "new", "moves", "one", "their-check"} == set(site.checks()) - {"serfHealth"}, writes
        assert theirs(site) == foreign
        site.clear()
        for file in site.services_dir.glob("*.json"):
            file.unlink()
        if is_complete:
            assert writes > 5
            return


def _killed_after(writes: int) -> Callable[..., HttpAnswer]:
    """A connection on which that many writes are carried out, and no more."""
    left, ask = iter(range(writes)), ConsulConnection.ask

    def counted(self: ConsulConnection, method: str, *more: Any) -> HttpAnswer:
        if method != "GET" and next(left, None) is None:
            raise Killed
        return ask(self, method, *more)

    return counted


def test_two_concurrent_runs_both_succeed(site: RegistrationHost) -> None:
    many(site, 0, 60)
    site.register()
    many(site, 10, 60)

    runs = [site.start("register") for _ in range(3)]
    ends = [(*run.communicate(), run.returncode) for run in runs]

    assert [(err, code) for _out, err, code in ends] == [("", 0)] * 3
    assert sorted(out.splitlines()[-1] for out, _err, _code in ends) == [
        "0 changed, 60 unchanged",
        "0 changed, 60 unchanged",
        "70 changed, 0 unchanged",
    ]


def test_a_hundred_malformed_definitions_are_each_reported_and_skipped(site: RegistrationHost) -> None:
    """Wrong JSON, and what is no JSON: cut short, not UTF-8, huge, nested deeply, a link to nowhere."""
    site.registered("good")
    site.service("other")
    bad = [*BAD, *UNREADABLE]
    files = [site.write(f"bad {number:03}.v1", content) for number, (content, _path, _said) in enumerate(bad)]
    assert len(files) >= 100
    lost = site.services_dir / "lost.json"
    lost.symlink_to("nowhere")

    run = site.start("--json", "register")
    out, err = run.communicate()

    faults = json.loads(out)["faults"]
    assert run.returncode == 78
    assert {fault["file"] for fault in faults} >= {str(file) for file in files}
    assert f"{lost}: the symbolic link points to" in err
    for file, (_content, path, said) in zip(files, bad, strict=True):
        told = [one for one in faults if one["file"] == str(file) and one["path"] == path]
        assert any(said in f"{one['problem']}; {one['remedy']}" for one in told), (file, path, said)
        assert f"{file}: " in err
    assert set(site.services()) == {"good", "other"}


@pytest.fixture
def dev() -> Iterator[tuple[Server, ConsulHost]]:
    """An agent in -dev mode that takes script checks; not started."""
    with claimed() as ground:
        address = ground.address(1)
        config = {"enable_script_checks": True, "ports": {"serf_wan": -1, "grpc": -1}}
        file = ground.directory / "dev.json"
        file.write_text(json.dumps(config))
        ask = Asking(f"http://{address}:8500")
        server = Server(
            "consul -dev",
            ["consul", "agent", "-dev", f"-bind={address}", f"-client={address}", f"-config-file={file}"],
            ground.directory / "consul.log",
            environment_in(ground.directory, ground.directory),
            lambda: _answers(ask),
        )
        try:
            yield server, ConsulHost(server, address, ground.directory, None, ask)  # type: ignore[arg-type]  # nobody asks for it
        finally:
            ask.close()
            server.discard()


def _answers(ask: Asking) -> bool:
    try:
        return bool(ask.get("/v1/status/leader"))
    except OSError:
        return False


def test_a_late_agent_that_forgets_everything_is_filled(dev: tuple[Server, ConsulHost], tmp_path: Path) -> None:
    server, host = dev
    site = RegistrationHost(tmp_path, host)
    site.service("web", port=80, checks=[{"args": ["/bin/true"], "interval": "1s"}])
    boot = site.start("register", "--wait", "30s")
    assert boot.stderr is not None
    said = boot.stderr.readline()
    server.start()
    out, _ = boot.communicate()

    assert "Waiting up to 30 s for it" in said
    assert (boot.returncode, out.splitlines()[-1]) == (0, "1 changed, 0 unchanged")
    wait_until(lambda: "passing" in site.checks().values(), 10, "the script check runs")

    server.restart()
    assert site.services() == {}
    site.register()

    assert set(site.services()) == {"web"}


def test_without_an_agent_it_gives_up_in_time_and_says_what_to_do(tmp_path: Path) -> None:
    host = ConsulHost(None, "127.0.0.1:1", tmp_path, None, None)  # type: ignore[arg-type]  # nothing answers there
    site = RegistrationHost(tmp_path, host, CONSUL_HTTP_ADDR="127.0.0.1:1")
    site.service("web")

    outcome = site("--json", "register", "--wait", "500ms")

    assert (outcome.code, outcome.kind) == (69, "consul-unreachable")
