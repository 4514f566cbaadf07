"""``svcagent maint`` on a real Consul agent and server, as an operator runs it."""

import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import dns.message
import dns.query
import pytest

from agent.consul import Consul
from agent.maintenance import MaintenanceTarget, by_operator, by_reload, disable_own_maintenance, parse, render
from tests.lab import asking
from tests.lab.ground import wait_until
from tests.lab.server import Server, spawn, svcagent_argv
from tests.real.access_fixture import consul_hosts
from tests.support.consul import consul_at
from tests.support.svcagent import Svcagent

NODE = "host1"
NOW = datetime.now(UTC)
ENABLE_SLOW = ("maint", "enable", "slow", "--reason", "x", "--wait-drained")
_numbers = count(1)


class MaintHost(Svcagent):
    """A host with a Consul agent, and the Consul server; verbs are processes that alice runs by sudo."""

    def __init__(self, home: Path, server: Server, agent: Server, address: str, *asks: asking.Consul) -> None:
        engine = f"unix://{home}/no-engine.sock"
        super().__init__(home, CONSUL_HTTP_ADDR=f"{address}:8500", DOCKER_HOST=engine, SUDO_USER="alice")
        self.server, self.agent, self.address = server, agent, address
        self.ask, self.at_server = asks

    def maint(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Return all that a verb of ``svcagent maint`` printed, errors last."""
        return self.shown("maint", *arguments, code=code, **environment)

    def shown(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Return all that a verb printed, errors last."""
        result = self.process(*arguments, **environment)
        assert result.code == code, result
        return result.text

    def refusal(self, *arguments: str, code: int = 1, **environment: str) -> str:
        """Return the kind of the error that a verb of ``svcagent maint`` ends with."""
        result = self.process("--json", "maint", *arguments, **environment)
        assert result.code == code, result
        return result.kind

    def notes(self, service: str) -> str | None:
        """The reason of a service's maintenance in the catalog."""
        return self.reason(f"_service_maintenance:{service}")

    def reason(self, check_id: str) -> str | None:
        """The reason that the catalog shows in one maintenance check."""
        checks = self.at_server.get(f"/v1/health/node/{NODE}?consistent")
        return next((check["Notes"] for check in checks if check["CheckID"] == check_id), None)

    def plant(self, service: str, text: str) -> None:
        """Maintenance by other means than svcagent's; in the catalog when this returns."""
        self.ask._session.put(  # noqa: SLF001  # the reason is a parameter to be quoted
            f"{self.ask.url}/v1/agent/service/maintenance/{service}", params={"enable": "true", "reason": text}
        ).raise_for_status()
        wait_until(lambda: self.notes(service) == text, 10, "the catalog shows it")


@pytest.fixture(scope="module")
def site() -> Iterator[MaintHost]:
    """Running, with DNS answers for ``slow`` that may be remembered for a minute."""
    with consul_hosts(NODE, ttls={"slow": "60s"}) as one:
        asks = one.asks[NODE], one.at_server
        yield MaintHost(one.directory / NODE, one.server, one.agents[NODE], one.addresses[NODE], *asks)


@pytest.fixture
def consul(site: MaintHost) -> Iterator[Consul]:
    """svcagent's own connection to the host's agent."""
    with consul_at(f"{site.address}:8500") as connection:
        yield connection


@pytest.fixture
def web(site: MaintHost) -> Iterator[str]:
    """A service of its own for a test: one instance, passing."""
    with _registered(site, f"web{next(_numbers)}") as name:
        yield name


@contextmanager
def _registered(site: MaintHost, name: str, service_id: str = "", status: str = "passing") -> Iterator[str]:
    service_id = service_id or name
    check = {"CheckID": f"{service_id}-real", "TTL": "1h", "Status": status}
    body = {"ID": service_id, "Name": name, "Port": 8000 + next(_numbers), "Checks": [check]}
    site.ask.put("/v1/agent/service/register", body)
    wait_until(lambda: _is_in_catalog(site, name, service_id), 10, f"{service_id} is in the catalog")
    try:
        yield name
    finally:
        site.ask.deregister_service(service_id)


def _is_in_catalog(site: MaintHost, name: str, service_id: str) -> bool:
    entries = site.at_server.get(f"/v1/health/service/{name}?consistent")
    return any(one["Service"]["ID"] == service_id and len(one["Checks"]) == 2 for one in entries)


def _over(why: str = "disk swap") -> str:
    """The reason of a maintenance whose end has come."""
    return render(by_operator("bob", "host2", why, NOW - timedelta(hours=2), NOW - timedelta(hours=1)))


def test_the_reason_is_a_sentence_that_says_all(site: MaintHost, web: str) -> None:
    """Who, host, since, until and why stand in Consul itself, whatever the reason is written in."""
    site.maint("enable", web, "--reason", "Plattentausch: größer & schneller,\n100 %", "--for", "2h")

    text = site.notes(web) or ""
    assert text.startswith(f"Taken out by alice on {NODE} since 20")
    assert text.endswith("Z: Plattentausch: größer & schneller, 100 %")
    held = parse(text)
    assert held.since is not None
    assert held.until == held.since + timedelta(hours=2)


def test_out_when_enable_returns_and_back_when_disable_returns(site: MaintHost, web: str) -> None:
    """Who asks the server after a command is told nothing older than it; and disable says whose it was."""
    site.maint("enable", web, "--reason", "disk swap", SUDO_USER="bob")
    assert site.at_server.passing(web) == ()

    assert f"it was enabled by bob on {NODE}" in site.maint("disable", web)
    assert site.at_server.passing(web) == (NODE,)
    assert "not in maintenance" in site.maint("disable", web)


def test_without_sudo_it_is_the_user(site: MaintHost, web: str) -> None:
    site.maint("enable", web, "--reason", "disk swap", SUDO_USER="")

    assert "Taken out by root on" in (site.notes(web) or "")


def test_status_shows_owner_age_and_end(site: MaintHost, web: str) -> None:
    """ISO 8601 in the document, and what has no maintenance is in it too."""
    site.maint("enable", web, "--reason", "disk swap", "--until", "2099-01-01T00:00+01:00")

    document = json.loads(site.maint("status", web, "--json"))
    assert document[1] == {"target": NODE, "is_node": True, "maintenance": None}
    held = document[0]["maintenance"]
    assert (held["owner"], held["host"], held["reason"]) == ("alice", NODE, "disk swap")
    assert held["until"] == "2098-12-31T23:00:00Z"
    assert 0 <= held["age_seconds"] < 60


def test_on_a_terminal_times_are_for_people(site: MaintHost, web: str) -> None:
    """Hours and minutes today, an age in words, and no ISO 8601."""
    site.plant(web, render(by_operator("bob", "host2", "disk swap", datetime.now(UTC) - timedelta(seconds=310))))
    ours, theirs = pty.openpty()
    argv = [*svcagent_argv(), "maint", "status", web]
    environment = site.environment(COLUMNS="150", TERM="xterm")
    subprocess.run(argv, env=environment, stdout=theirs, stderr=theirs, check=True, timeout=30)
    os.close(theirs)
    shown = os.read(ours, 10000).decode()
    os.close(ours)

    assert "5m 1" in shown
    assert "bob on host2" in shown
    assert "Z" not in shown


def test_foreign_maintenance_has_an_unknown_owner_and_can_be_disabled(site: MaintHost, web: str) -> None:
    """What ``consul maint`` set has no owner, is shown, is not taken over unasked, and can be disabled."""
    argv = ["consul", "maint", "-enable", f"-service={web}", "-reason=by hand"]
    subprocess.run(argv, env=site.environment(), check=True, stdout=subprocess.DEVNULL, timeout=30)

    held = json.loads(site.maint("status", web, "--json"))[0]["maintenance"]
    assert (held["kind"], held["owner"], held["reason"], held["since"]) == ("unknown", "unknown", "by hand", None)
    assert "unknown\t-\t-\t-\tby hand" in site.maint("status", web)
    assert site.refusal("enable", web, "--reason", "mine") == "maintenance-held"
    assert "an unknown owner (by hand)" in site.maint("disable", web)
    assert site.at_server.passing(web) == (NODE,)


def test_consul_maintenance_command_disables_what_svcagent_enabled(site: MaintHost, web: str) -> None:
    """A rewritten maintenance is Consul's own kind still: its tools show it and lift it."""
    site.plant(web, "by hand")
    site.maint("enable", web, "--reason", "mine", "--replace")
    argv = ["consul", "maint"]
    shown = subprocess.run(argv, env=site.environment(), check=True, capture_output=True, text=True, timeout=30).stdout
    assert "Taken out by alice" in shown

    subprocess.run([*argv, "-disable", f"-service={web}"], env=site.environment(), check=True, timeout=30)

    wait_until(lambda: site.at_server.passing(web) == (NODE,), 10, "it is in service")


def test_a_name_that_is_not_registered_lists_what_is(site: MaintHost, web: str) -> None:
    for verb in (("enable", "--reason", "x"), ("status",)):
        assert web in site.maint(*verb, "wbe", code=2)
        assert site.refusal(*verb, "wbe", code=2) == "usage"


def test_several_instances_of_one_name(site: MaintHost, web: str) -> None:
    """The name means all of them, an ID one of them, --all every service."""
    with _registered(site, web, f"{web}-second"), _registered(site, "other"):
        site.maint("enable", f"{web}-second", "--reason", "x")
        assert [site.notes(one) is not None for one in (web, f"{web}-second", "other")] == [False, True, False]
        site.maint("enable", web, "--reason", "x")
        assert [site.notes(one) is not None for one in (web, f"{web}-second", "other")] == [True, True, False]
        site.maint("enable", "--all", "--reason", "x")
        assert [site.notes(one) is not None for one in (web, f"{web}-second", "other")] == [True, True, True]
        assert len(json.loads(site.maint("disable", "--all", "--json"))) == 3
        assert [site.notes(one) for one in (web, f"{web}-second", "other")] == [None, None, None]


def test_out_already_says_whose_and_changes_nothing(site: MaintHost, web: str) -> None:
    """Nor is anything else changed that was named with it."""
    with _registered(site, "other"):
        site.maint("enable", web, "--reason", "disk swap", SUDO_USER="bob")
        before = site.notes(web)

        said = site.maint("enable", "--all", "--reason", "new kernel", code=1)

        assert "enabled by bob" in said
        assert "disk swap" in said
        assert site.notes(web) == before
        assert site.notes("other") is None


def test_asking_twice_is_asking_once(site: MaintHost, web: str) -> None:
    """The same person, the same reason: nothing to do; and another end moves the end."""
    site.maint("enable", web, "--reason", "disk swap")
    before = site.notes(web)
    site.maint("enable", web, "--reason", "disk swap")
    assert site.notes(web) == before

    site.maint("enable", web, "--reason", "disk swap", "--until", "2099-01-01T00:00Z")

    was, now = parse(before or ""), parse(site.notes(web) or "")
    assert now.since == was.since
    assert now.until == datetime(2099, 1, 1, tzinfo=UTC)


class Watcher:
    """Sees every state that the leader shows of one service, by blocking queries."""

    def __init__(self, site: MaintHost, name: str) -> None:
        self.passing: list[bool] = []
        self.reasons: list[str] = []
        self._ask = asking.Consul(site.at_server.url)
        self._path = f"/v1/health/service/{name}?consistent&wait=1s&index="
        self._is_over = False
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        wait_until(lambda: bool(self.passing), 10, "the watcher has seen the service")
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over = True
        self._thread.join()
        self._ask.close()

    def _watch(self) -> None:
        index = "0"
        while not self._is_over:
            answer = self._ask._session.get(self._ask.url + self._path + index, timeout=10)  # noqa: SLF001  # its headers
            index = answer.headers["X-Consul-Index"]
            for entry in answer.json():
                self.passing.append(all(check["Status"] == "passing" for check in entry["Checks"]))
                self.reasons += [check["Notes"] for check in entry["Checks"] if "_maintenance" in check["CheckID"]]


def test_taken_over_without_a_moment_in_service(site: MaintHost, web: str) -> None:
    """Whoever watches the health API never sees it passing, however often it changes hands."""
    site.plant(web, "by hand")
    with Watcher(site, web) as watcher:
        for turn in range(4):
            site.maint("enable", web, "--reason", f"turn {turn}", "--replace", SUDO_USER=f"user{turn}")

    assert not any(watcher.passing)
    assert {parse(one).why for one in watcher.reasons} == {"by hand", *(f"turn {turn}" for turn in range(4))}
    assert "Taken out by user3" in (site.notes(web) or "")


def test_the_watcher_would_see_a_moment_in_service(site: MaintHost, web: str) -> None:
    """The plain way, lifting and enabling, is seen by it: the test above can fail."""
    site.plant(web, "by hand")
    with Watcher(site, web) as watcher:
        for turn in range(4):
            site.ask.put(f"/v1/agent/service/maintenance/{web}?enable=false")
            site.plant(web, f"turn {turn}")

    assert any(watcher.passing)


def test_killed_while_taking_over(site: MaintHost, web: str) -> None:
    """Whenever it is killed, one of the two reasons is there whole, and the same command again completes it."""
    site.plant(web, "by hand")
    with Watcher(site, web) as watcher:
        for turn in range(3):
            before = site.notes(web)
            argv = [*svcagent_argv(), "maint", "enable", web, "--reason", f"turn {turn}", "--replace"]
            process = spawn(argv, site.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # At once, or as soon as the agent holds the new reason, which is before the catalog shows it.
            wait_until(lambda was=before, turn=turn: turn % 2 == 0 or _local(site, web) != was, 20, "it is rewritten")  # type: ignore[misc]  # mypy cannot infer defaults of a lambda
            process.kill()
            process.wait()
            assert _local(site, web) in (before, site.notes(web)) or parse(_local(site, web)).why == f"turn {turn}"
            site.maint("enable", web, "--reason", f"turn {turn}", "--replace")
            assert parse(site.notes(web) or "").why == f"turn {turn}"

    assert not any(watcher.passing)
    site.maint("disable", web)
    assert site.at_server.passing(web) == (NODE,)


def _status(site: MaintHost, check_id: str) -> str:
    return str(site.ask.get("/v1/agent/checks")[check_id]["Status"])


def _local(site: MaintHost, service: str) -> str:
    return str(site.ask.get("/v1/agent/checks")[f"_service_maintenance:{service}"]["Notes"])


def test_a_maintenance_taken_over_outlives_the_agent(site: MaintHost, web: str) -> None:
    """Killed and started again, the agent still holds it, with the new reason."""
    site.plant(web, "by hand")
    site.maint("enable", web, "--reason", "mine", "--replace")

    site.agent.kill()
    site.agent.restart()

    assert "Taken out by alice" in _local(site, web)
    assert site.at_server.passing(web) == ()


def test_a_reloads_maintenance_is_left_to_it(site: MaintHost, web: str, consul: Consul) -> None:
    """Neither disabled nor taken over but by force; and then the reload leaves it to who has it now."""
    own = by_reload("1f3a9c21", NODE, "to run sha256:1", NOW)
    site.plant(web, render(own))

    assert site.refusal("disable", web) == "maintenance-held"
    assert site.refusal("enable", web, "--reason", "mine") == "maintenance-held"
    assert "--force" in site.maint("enable", web, "--reason", "mine", "--replace", code=1)
    assert site.notes(web) == render(own)

    site.maint("enable", web, "--reason", "mine", "--replace", "--force")
    assert not disable_own_maintenance(consul, MaintenanceTarget(NODE, web, web), own)
    assert "Taken out by alice" in (site.notes(web) or "")

    site.ask.put(f"/v1/agent/service/maintenance/{web}?enable=false")
    site.plant(web, render(own))
    assert "svcagent reload 1f3a9c21" in site.maint("disable", web, "--force")
    assert site.at_server.passing(web) == (NODE,)


def test_expire_disables_expired_maintenance_and_reports_it_once(site: MaintHost, web: str) -> None:
    """By cron: a line when there was something to do, silence after that."""
    site.maint("enable", web, "--reason", "disk swap", "--for", "1s")
    said = ""

    def is_over() -> bool:
        nonlocal said
        said = site.maint("expire")
        return said != ""

    wait_until(is_over, 10, "its end has come")

    assert f"{web}: maintenance expired and was disabled" in said
    assert site.at_server.passing(web) == (NODE,)
    assert site.maint("expire") == ""


def test_expire_leaves_what_has_no_end_or_is_not_over(site: MaintHost, web: str) -> None:
    """Ends are ends, and what svcagent did not write has none."""
    with _registered(site, "other"):
        site.plant(web, "by hand until 2001-01-01T00:00:00Z")
        site.maint("enable", "other", "--reason", "x", "--for", "2h")

        assert site.maint("expire") == ""
        assert site.notes(web) is not None
        assert site.notes("other") is not None


def test_over_but_failing_stays_out_and_says_why(site: MaintHost, web: str) -> None:
    """Which check, what it says; once it passes, the next run puts it back."""
    site.plant(web, _over())
    site.ask.put(f"/v1/agent/check/update/{web}-real", {"Status": "critical", "Output": "connection refused"})

    said = site.maint("expire", code=75)
    assert f"check {web}-real is critical (connection refused)" in said
    assert json.loads(site.maint("expire", "--json", code=75).split("svcagent: ")[0])[0]["disabled"] is False
    assert site.notes(web) == _over()

    site.ask.put(f"/v1/agent/check/pass/{web}-real")
    site.maint("expire")
    assert site.at_server.passing(web) == (NODE,)


def test_register_and_reload_end_expired_maintenance(site: MaintHost) -> None:
    """Each for its own services, before anything else; the reload then fails for want of an engine."""
    listening = {"tcp": f"{site.address}:8500", "interval": "1s", "id": "defined-tcp"}
    checks = [listening, {"ttl": "1h", "id": "defined-real"}]
    definition = {
        "service": {"name": "defined", "port": 80, "checks": checks},
        "reload": {"image": "127.0.0.1:1/defined:latest", "container": "defined"},
    }
    file = site.write("defined", definition)
    site.shown("register")
    wait_until(lambda: _status(site, "defined-tcp") == "passing", 10, "the port is seen")
    for verb, code in ((("register",), 0), (("reload", "defined"), 69)):
        site.plant("defined", _over())
        site.ask.put("/v1/agent/check/fail/defined-real")
        assert "check defined-real is critical" in site.shown(*verb, code=code)
        assert site.notes("defined") is not None
        site.ask.put("/v1/agent/check/pass/defined-real")
        assert "defined: maintenance expired and was disabled" in site.shown(*verb, code=code)
        assert site.notes("defined") is None
    file.unlink()
    site.shown("register", "--allow-empty")


def test_the_host_has_an_owner_a_reason_and_an_end_too(site: MaintHost, web: str) -> None:
    """All its services are out, status says so of each, and the end lifts it if their checks pass."""
    site.maint("enable", "--node", "--reason", "new kernel", "--for", "1s")
    assert site.at_server.passing(web) == ()
    assert json.loads(site.maint("status", web, "--json"))[1]["maintenance"]["reason"] == "new kernel"
    assert site.refusal("enable", "--node", "--reason", "mine", SUDO_USER="bob") == "maintenance-held"
    with Watcher(site, web) as watcher:
        site.maint("enable", "--node", "--reason", "mine", "--replace", "--for", "1s", SUDO_USER="bob")
    assert not any(watcher.passing)
    assert "this host is in maintenance" in site.maint("disable", web)

    site.ask.put(f"/v1/agent/check/fail/{web}-real")
    wait_until(lambda: parse(site.reason("_node_maintenance") or "").is_over(datetime.now(UTC)), 10, "it is over")
    assert f"check {web}-real is critical" in site.maint("expire", code=75)
    site.ask.put(f"/v1/agent/check/pass/{web}-real")
    assert f"{NODE} (this host): maintenance expired and was disabled" in site.maint("expire")
    assert site.at_server.passing(web) == (NODE,)


def test_the_last_passing_instance(site: MaintHost, web: str) -> None:
    """Taken out with a warning, or not at all with --guard, until another one passes."""
    assert site.refusal("enable", web, "--reason", "x", "--guard", code=75) == "no-instance-left"
    assert site.at_server.passing(web) == (NODE,)
    assert "its clients would have none" in site.maint("enable", web, "--reason", "x")
    site.maint("disable", web)

    elsewhere = {"Node": "elsewhere", "Address": "127.0.0.9", "Service": {"Service": web, "Port": 1}}
    site.at_server.put("/v1/catalog/register", elsewhere)
    try:
        assert "clients" not in site.maint("enable", web, "--reason", "x", "--guard")
    finally:
        site.at_server.put("/v1/catalog/deregister", {"Node": "elsewhere"})


def test_two_instances_here_are_not_each_others_replacement(site: MaintHost, web: str) -> None:
    """What is taken out by the same command does not count as left."""
    with _registered(site, web, f"{web}-second"):
        site.maint("enable", f"{web}-second", "--reason", "x", "--guard")
        site.maint("disable", f"{web}-second")
        for whole in (web, "--node"):
            assert site.refusal("enable", whole, "--reason", "x", "--guard", code=75) == "no-instance-left"
        assert site.at_server.passing(web) == (NODE, NODE)


def test_drained_means_unnamed(site: MaintHost, web: str) -> None:
    """When --wait-drained returns, neither the health API nor DNS has it."""
    assert _named(site, web) == 1

    assert "drained" in site.maint("enable", web, "--reason", "x", "--wait-drained")

    assert _named(site, web) == 0
    assert site.at_server.passing(web) == ()


def _named(site: MaintHost, name: str) -> int:
    query = dns.message.make_query(f"{name}.service.consul", "SRV")
    return len(dns.query.tcp(query, site.address, port=8600, timeout=5).answer)


def test_ctrl_c_while_draining_leaves_it_out_and_says_so(site: MaintHost) -> None:
    """The DNS answers for this one may be remembered for a minute; nobody has to wait for that."""
    with _registered(site, "slow"):
        # Line by line even into a pipe: the test waits for a line.
        process = site.start(*ENABLE_SLOW, env={"PYTHONUNBUFFERED": "1"})
        wait_until(lambda: site.notes("slow") is not None, 20, "it is out")
        assert process.stdout is not None
        assert "slow: in maintenance" in process.stdout.readline()  # the wait has begun
        process.send_signal(signal.SIGINT)
        _output, errors = process.communicate(timeout=20)

        assert process.returncode == 130
        assert "slow is still in maintenance" in errors
        assert "svcagent maint disable slow" in errors
        assert site.notes("slow") is not None


def test_a_frozen_server_makes_it_unknown_and_asking_again_makes_it_so(site: MaintHost, web: str) -> None:
    """The agent cannot tell, so svcagent does not pretend to: exit 69; afterwards the same command ends well."""
    site.server.freeze()
    try:
        began = time.monotonic()
        said = site.maint("enable", web, "--reason", "disk swap", "--wait", "2s", code=69)
        assert time.monotonic() - began < 40
    finally:
        site.server.thaw()
    # Until the agent counts its server as dead it does not answer the write; after that it does, and nobody sees it.
    assert re.search(f"unknown whether ({web} is out of service|clients see it)", said)
    assert f"svcagent maint status {web}" in said
    assert "failed" not in said

    wait_until(lambda: bool(site.at_server.get("/v1/status/leader")), 20, "the server leads again")
    site.maint("enable", web, "--reason", "disk swap")
    assert site.at_server.passing(web) == ()


def test_without_an_agent_it_is_unreachable(site: MaintHost) -> None:
    said = site.maint("status", code=69, CONSUL_HTTP_ADDR=f"{site.address}:1")

    assert f"{site.address}:1" in said
