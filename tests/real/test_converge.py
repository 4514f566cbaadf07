"""Convergence on a real agent: last good files, outages, maintenance's end, and all pieces wired together."""

import json
import os
import random
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.consul import Consul
from agent.consul.transport import ConsulConnection
from agent.errors import ConsulUnreachable, Denied, LockBusy, SvcagentError
from agent.files import write_atomically
from agent.http import HttpAnswer
from agent.maintenance import by_operator, by_reload, render
from agent.registration import ChangeAction, exclusive_registration
from tests.lab.ground import wait_until
from tests.real.access_fixture import asked, consul_with
from tests.real.converge_fixture import EVENT_SECONDS, HOSTNAME, Agent, Place, Wired, consul_agent, converging
from tests.support.svcagent import Svcagent

NEVER = {"interval": "1h", "status": "passing"}


@pytest.fixture(scope="module")
def server() -> Iterator[Agent]:
    """An agent in -dev mode: it forgets everything when it is restarted or reloaded."""
    with consul_agent(is_remembering=False) as found:
        yield found


@pytest.fixture
def agent(server: Agent) -> Iterator[Agent]:
    yield server
    if not server.server.is_running:
        server.server.restart()
    server.clear()
    server.ask.put("/v1/agent/maintenance?enable=false")


@pytest.fixture
def place(agent: Agent, tmp_path: Path) -> Place:
    return Place(tmp_path, agent.address)


def ports(agent: Agent) -> dict[str, int]:
    """What is registered, told apart by the port."""
    return {service_id: service["Port"] for service_id, service in agent.services().items()}


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelname == "WARNING"]


def test_a_faulty_file_changes_only_its_service(agent: Agent, place: Place, log: pytest.LogCaptureFixture) -> None:
    """It is told once when it comes, and once when it is mended."""
    place.define("web", port=80)
    place.define("api", port=90)
    with converging(place) as convergence:
        convergence.run()
        bad = place.write("web", '{"service": {"name": "web", "prot": 81}}')
        place.define("api", port=91)
        place.define("new", port=70)

        result = convergence.run()

        assert ports(agent) == {"web": 80, "api": 91, "new": 70}
        assert [(fault.file, fault.path) for fault in result.faults] == [(str(bad), "service.prot")]
        assert [one.service.port for one in result.definitions] == [91, 70, 80]
        assert {one.action for one in result.changes} == {ChangeAction.CREATE, ChangeAction.UPDATE}
        convergence.run()
        assert len(warnings(log)) == 1
        assert log.messages.count(f"{bad}: not applied; its last good version stays active") == 1
        place.define("web", port=82)
        assert convergence.run().faults == ()
    assert ports(agent)["web"] == 82
    assert log.messages[-2:] == [f"{bad}: no faults any more", "web: updated: its definition changed"]


def test_after_a_restart_a_bad_file_is_still_as_it_was(agent: Agent, place: Place) -> None:
    place.define("web", port=80)
    with converging(place) as convergence:
        convergence.run()
    place.write("web", "{")
    place.define("api", port=90)
    agent.forget("web")
    with converging(place) as convergence:
        result = convergence.run()

    assert ports(agent) == {"web": 80, "api": 90}
    assert len(result.faults) == 1


def test_what_is_kept_is_private_and_written_only_when_it_changes(agent: Agent, place: Place) -> None:
    """A copy of each good file, which a verb can read in the place of services.d."""
    place.define("web", port=80, checks=[{"http": "http://127.0.0.1:1/", **NEVER, "header": {"X": ["secret"]}}])
    place.define("api", port=90)
    kept = place.state_dir / "definitions"
    with converging(place) as convergence:
        convergence.run()
        before = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}
        place.define("api", port=91)
        place.write("web", "{")
        convergence.run()
        after = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}

        assert (kept.stat().st_mode & 0o777, (kept / "web.json").stat().st_mode & 0o777) == (0o700, 0o600)
        assert before["web.json"] == after["web.json"]
        assert before["api.json"] != after["api.json"]
        assert {name: one["service"]["port"] for name, one in place.kept().items()} == {"web.json": 80, "api.json": 91}
        (place.services_dir / "api.json").unlink()
        convergence.run()
    assert set(place.kept()) == {"web.json"}
    assert set(agent.services()) == {"web"}


def test_the_copy_never_lacks_a_service_that_is_defined(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each write: it is not there yet, or whole, or names one twice, which a verb refuses; also when cut short."""
    seen: list[set[str] | None] = []

    def look() -> None:
        kept = place.state_dir / "definitions"
        names = {one["service"]["name"] for one in place.kept().values()}
        seen.append(names if kept.exists() else None)

    def watched(*given: Any) -> None:
        look()
        write_atomically(*given)
        look()

    def cut_short(*given: Any) -> None:
        write_atomically(*given)
        raise SvcagentError("the disk is full")

    place.define("web", port=80)
    place.define("api", port=90)
    monkeypatch.setattr("agent.daemon.last_good.write_atomically", cut_short)
    with converging(place) as convergence:
        assert len(convergence.run().faults) == 1
        assert place.kept() == {}
        monkeypatch.setattr("agent.daemon.last_good.write_atomically", watched)
        assert convergence.run().faults == ()
        assert set(place.kept()) == {"api.json", "web.json"}
        (place.services_dir / "web.json").rename(place.services_dir / "zweb.json")
        convergence.run()

    assert set(place.kept()) == {"api.json", "zweb.json"}
    assert seen == [None] * 4 + [{"api", "web"}] * 2


@pytest.mark.parametrize(
    "bad",
    ["{", '{"service": {"name": "old", "prot": 1}}', '{"service": {"name": "other", "prot": 1}}'],
    ids=["not JSON", "faulty", "faulty and renamed"],
)
def test_an_unknown_bad_file_keeps_service(agent: Agent, place: Place, bad: str, log: pytest.LogCaptureFixture) -> None:
    """The daemon is new on this host, and finds a service registered whose file is faulty by now."""
    place.define("web", port=80)
    place.define("old", port=70)
    with converging(place) as convergence:
        convergence.run()
    shutil.rmtree(place.state_dir / "definitions")
    place.write("old", bad)
    with converging(place) as convergence:
        result = convergence.run()
        assert result.kept == ("old",)
        assert set(agent.services()) == {"old", "web"}
        (place.services_dir / "old.json").unlink()
        convergence.run()
    assert set(agent.services()) == {"web"}
    assert "old: stays registered: no valid file defines it, but a file with faults may" in warnings(log)


def test_a_service_that_was_given_up_goes_though_a_new_file_is_bad(agent: Agent, place: Place) -> None:
    place.define("web", port=80)
    place.define("old", port=70)
    with converging(place) as convergence:
        convergence.run()
        place.write("new", '{"service": {"name": "new", "prot": 1}}')
        (place.services_dir / "old.json").unlink()
        result = convergence.run()

    assert set(agent.services()) == {"web"}
    assert result.kept == ()


@pytest.mark.parametrize("gone", ["emptied", "removed", "a file", "a link to nowhere"])
def test_without_directory_nothing_goes(agent: Agent, place: Place, log: pytest.LogCaptureFixture, gone: str) -> None:
    """A disk that is not mounted is no order to deregister; it is told, and what the agent forgets is refilled."""
    place.define("web", port=80)
    with converging(place) as convergence:
        convergence.run()
        shutil.rmtree(place.services_dir)
        match gone:
            case "emptied":
                place.services_dir.mkdir()
            case "a file":
                place.services_dir.write_text("")
            case "a link to nowhere":
                place.services_dir.symlink_to("nowhere")
        agent.forget("web")
        result = convergence.run()

        assert set(agent.services()) == {"web"}
        assert [fault.file for fault in result.faults] == [str(place.services_dir)]
        assert [one.service.name for one in result.definitions] == ["web"]
        assert len(warnings(log)) == 1


def test_an_empty_directory_is_accepted_with_an_explicit_option(agent: Agent, place: Place) -> None:
    """``svcagent register --allow-empty`` is heard by the daemon as well, which would put all back otherwise."""
    file = place.define("web", port=80)
    with converging(place) as convergence:
        convergence.run()
        file.unlink()
        svcagent = Svcagent(place.directory, CONSUL_HTTP_ADDR=f"{place.address}:8500")
        svcagent.run("register", "--allow-empty", SVCAGENT_SERVICES_DIR=str(place.services_dir))
        result = convergence.run()

    assert agent.services() == {}
    assert (result.faults, result.definitions, result.canary) == ((), (), "")


def test_a_file_that_cannot_be_read_is_faulty(agent: Agent, place: Place) -> None:
    """A directory of that name, a pipe, a link to nowhere; what was there before stays."""
    for name in ("web", "api", "new"):
        place.define(name, port=80)
    with converging(place) as convergence:
        convergence.run()
        for name in ("web", "api", "new"):
            (place.services_dir / f"{name}.json").unlink()
        (place.services_dir / "web.json").mkdir()
        os.mkfifo(place.services_dir / "api.json")
        (place.services_dir / "new.json").symlink_to("nowhere")
        result = convergence.run()

    assert set(agent.services()) == {"web", "api", "new"}
    assert len(result.faults) == 3


def test_links_to_files_are_kept_as_files(agent: Agent, place: Place, tmp_path: Path) -> None:
    """What a configuration manager links to may go with its release."""
    release = tmp_path / "release"
    release.mkdir()
    place.define("web", port=80).rename(release / "web.json")
    (place.services_dir / "web.json").symlink_to(release / "web.json")
    with converging(place) as convergence:
        convergence.run()
        shutil.rmtree(release)
        agent.forget("web")
        convergence.run()

    assert set(agent.services()) == {"web"}
    assert not (place.state_dir / "definitions" / "web.json").is_symlink()


def test_what_differs_from_host_to_host_is_filled_in(agent: Agent, place: Place) -> None:
    """The host's name, its agent's address, and the daemon's environment, whose lack is a fault of that file."""
    place.environ["COLOUR"] = "blue"
    place.define("web", id="web-${HOSTNAME}", address="${ADDRESS}", tags=["${env:COLOUR}"])
    place.define("api", tags=["${env:NOT_SET}"])
    with converging(place) as convergence:
        result = convergence.run()

    (found,) = agent.services().values()
    assert (found["ID"], found["Address"], found["Tags"]) == (f"web-{HOSTNAME}", agent.address, ["blue"])
    assert [fault.path for fault in result.faults] == ["service.tags[0]"]


def test_what_the_agent_cannot_do_is_a_fault_of_that_file(agent: Agent, place: Place) -> None:
    """Script checks are off on it: the service stays as it was."""
    place.define("web", port=80)
    place.define("api", port=90)
    with converging(place) as convergence:
        convergence.run()
        place.define("web", port=81, checks=[{"args": ["/bin/true"], "interval": "1h"}])
        place.define("api", port=91)
        result = convergence.run()

    assert ports(agent) == {"web": 80, "api": 91}
    assert [fault.path for fault in result.faults] == ["service.checks[0].args"]


def test_others_services_are_left_and_reported_once(agent: Agent, place: Place, log: pytest.LogCaptureFixture) -> None:
    agent.ask.put("/v1/agent/service/register", {"Name": "web", "Port": 1})
    place.define("web", port=80)
    place.define("api", port=90)
    with converging(place) as convergence:
        for _ in range(3):
            result = convergence.run()

        assert ports(agent) == {"web": 1, "api": 90}
        assert [one.service_id for one in result.refused] == ["web"]
        assert len(warnings(log)) == 1
        agent.forget("web")
        convergence.run()
    assert ports(agent)["web"] == 80


def test_a_check_that_follows_an_unknown_node_keeps_no_other_waiting(agent: Agent, place: Place) -> None:
    """It would crash the agent; its service is refused until that node is there."""
    place.define("follower", checks=[{"alias_node": "nowhere"}])
    place.define("web", port=80)
    with converging(place) as convergence:
        result = convergence.run()

    assert set(agent.services()) == {"web"}
    assert [one.service_id for one in result.refused] == ["follower"]


def test_nothing_to_do_costs_three_questions(agent: Agent, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        place.define(f"web{number}", port=80, checks=[{"ttl": "1h", "status": "passing"}])
    asked = []
    ask = ConsulConnection.ask

    def recorded(self: ConsulConnection, method: str, target: str, *more: Any) -> HttpAnswer:
        asked.append((method, target))
        return ask(self, method, target, *more)

    with converging(place) as convergence:
        convergence.run()
        monkeypatch.setattr(ConsulConnection, "ask", recorded)
        convergence.run()

    assert asked == [("GET", "/v1/agent/self"), ("GET", "/v1/agent/checks"), ("GET", "/v1/agent/services")]
    assert len(agent.services()) == 20


def test_another_register_verb_is_waited_for(agent: Agent, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """And when it takes too long, this is tried again soon, with nothing written meanwhile."""
    monkeypatch.setattr("agent.daemon.converge.ALONE_SECONDS", 0.2)
    place.define("web", port=80)
    with converging(place) as convergence:
        with exclusive_registration(place.state_dir, SystemClock(), 0):
            result = convergence.run()
            assert isinstance(result.trouble, LockBusy)
            assert result.again_in is not None
            assert agent.services() == {}
        assert convergence.run().trouble is None
    assert set(agent.services()) == {"web"}


@pytest.mark.parametrize("seed", range(3))
def test_the_agent_always_has_the_last_good_definitions(agent: Agent, place: Place, seed: int) -> None:
    """Files written well and badly, removed and written again, services lost, the daemon restarted; in any order."""
    chance = random.Random(seed)
    now: dict[str, int | None] = {}
    good: dict[str, int] = {}

    def happen(name: str) -> None:
        match chance.choice(["write", "write", "break", "remove", "forget"]):
            case "write":
                now[name] = chance.randint(1, 9)
                place.define(name, port=now[name])
            case "break":
                now[name] = None
                place.define(name, prot=1) if chance.random() < 0.5 else place.write(name, "{")
            case "remove" if len(now) > 1:
                now.pop(name, None)
                (place.services_dir / f"{name}.json").unlink(missing_ok=True)
            case "forget":
                agent.forget(name)

    place.define("always", port=1)
    now["always"] = 1
    for _ in range(12):
        with converging(place) as convergence:
            for _ in range(chance.randint(1, 3)):
                for _ in range(chance.randint(1, 3)):
                    happen(chance.choice("abcd"))
                result = convergence.run()
                before = set(good)
                good = {name: port or good.get(name, 0) for name, port in now.items() if port or name in good}
                held = ports(agent)
                assert {name: held.get(name) for name in good} == good
                assert {Path(fault.file).stem for fault in result.faults} == {one for one in now if now[one] is None}
                # More is held only where a bad file that was never good may mean it.
                assert held.keys() - good.keys() == set(result.kept)
                assert not result.kept or any(name not in before for name in now if now[name] is None)


def _out(agent: Agent, service_id: str, reason: str) -> None:
    agent.ask.put(f"/v1/agent/service/maintenance/{service_id}?enable=true&reason={reason}")


def test_maintenance_is_disabled_at_its_end(agent: Agent, place: Place) -> None:
    """And only then, and not on what fails its checks; the next end is when to look again."""
    now = datetime.now(UTC)
    check = {"ttl": "1h", "status": "passing"}
    for name in ("over", "later", "endless", "failing"):
        place.define(name, checks=[check if name != "failing" else {"ttl": "1h"}])
    with converging(place) as convergence:
        convergence.run()
        ends = {"over": -1, "later": 30, "failing": -1}
        for name in ("over", "later", "endless", "failing"):
            until = now + timedelta(seconds=ends[name]) if name in ends else None
            _out(agent, name, render(by_operator("alice", "web1", "disk", now - timedelta(hours=1), until)))
        result = convergence.run()

        assert {one.target.service_id: one.may_be_disabled for one in result.ended} == {"over": True, "failing": False}
        assert [one.target.service_id for one in result.out] == ["endless", "failing", "later"]
        assert result.out[2].maintenance.owner == "alice"
        assert result.again_in is not None
        assert 20 < result.again_in <= 30
        again = convergence.run()
        assert again.ended == tuple(one for one in result.ended if not one.may_be_disabled)


def test_node_maintenance_and_a_reloads_maintenance_are_reported_and_not_changed(agent: Agent, place: Place) -> None:
    place.define("web")
    with converging(place) as convergence:
        convergence.run()
        _out(agent, "web", render(by_reload("1f3a9c21", "web1", "new image", datetime.now(UTC))))
        agent.ask.put("/v1/agent/maintenance?enable=true&reason=kernel")
        result = convergence.run()

    assert [(one.target.service_id, one.maintenance.kind) for one in result.out] == [("web", "reload"), ("", "unknown")]
    assert sum("aintenance" in check for check in agent.ask.get("/v1/agent/checks")) == 2


def test_an_absent_agent_is_reported_once_and_files_are_read(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    place = Place(tmp_path, "127.0.0.1:1")
    place.environ["CONSUL_HTTP_ADDR"] = "127.0.0.1:1"
    place.define("web", address="${ADDRESS}")
    place.write("bad", "{")
    with converging(place) as convergence:
        results = [convergence.run() for _ in range(6)]

    assert all(isinstance(one.trouble, ConsulUnreachable) for one in results)
    assert [one.again_in for one in results] == [0.5, 1, 2, 4, 5, 5]
    assert [one.service.name for one in results[0].definitions] == ["web"]
    assert len(warnings(log)) == 2
    assert set(place.kept()) == {"web.json"}


ACL = {"enabled": True, "default_policy": "deny", "tokens": {"master": str(uuid.uuid4())}}


def test_a_refused_token_is_reported_once_and_keeps_what_it_must(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """A token for one of two services registers that one; a token that is unknown registers none."""
    master = ACL["tokens"]["master"]  # type: ignore[index]  # it is a mapping
    with consul_with({"acl": ACL}) as access, asked(access.address, master) as ask:
        wait_until(lambda: _is_answered(lambda: ask.get("/v1/health/node/server")), 20, "the ACLs are in force")
        rules = [f'{kind} "" {{ policy = "read" }}' for kind in ("agent_prefix", "node_prefix")]
        rules.append('service "web" { policy = "write" }')
        ask.put("/v1/acl/policy", {"Name": "web", "Rules": "\n".join(rules)})
        token = ask.put("/v1/acl/token", {"Policies": [{"Name": "web"}]})["SecretID"]
        place = Place(tmp_path, access.address)
        file = tmp_path / "token"
        place.environ["CONSUL_HTTP_TOKEN_FILE"] = str(file)
        place.define("api")
        place.define("web")
        file.write_text(token)
        with converging(place) as convergence:
            first = convergence.run()
            convergence.run()
            assert [one.service_id for one in first.changes] == ["web"]
            assert [(service_id, type(error)) for service_id, error in first.failed] == [("api", Denied)]
            assert (first.canary, first.trouble) == ("web", None)
            assert len(warnings(log)) == 1
            over = by_operator("alice", "web1", "kernel", datetime.now(UTC), datetime.now(UTC))
            ask.put(f"/v1/agent/maintenance?enable=true&reason={render(over)}")
            assert [service_id for service_id, _error in convergence.run().failed] == ["api", "server (this host)"]
            ask.put("/v1/agent/maintenance?enable=false")
            convergence.run()
            log.clear()
            file.write_text(str(uuid.uuid4()))
            last = [convergence.run() for _ in range(3)][-1]
            assert isinstance(last.trouble, Denied)
            file.write_text(token)
            assert convergence.run().trouble is None
    assert len(warnings(log)) == 1
    assert [one for one in log.messages if "again after" in one] == ["registration succeeds again after 0s"]


def _is_answered(question: Callable[[], Any]) -> bool:
    from tests.lab.ground import LabError

    try:
        return bool(question())
    except LabError:
        return False


def soon(condition: Callable[[], bool], what: str) -> None:
    """Wait for what an event brings about, long before the convergence of each minute would."""
    wait_until(condition, EVENT_SECONDS, what, every=0.005)


def test_a_changed_file_is_registered_by_its_event(agent: Agent, place: Place) -> None:
    """From the write to the agent's own answer, whichever way it is written; and a hundred services are there."""
    for number in range(100):
        place.define(f"service{number}", port=1, checks=[{"http": "http://127.0.0.1:1/", **NEVER}])
    with Wired(place) as wired:
        assert len(agent.services()) == 100
        place.define("service7", port=2)
        soon(lambda: ports(agent)["service7"] == 2, "written")
        (place.services_dir / ".new").write_text(json.dumps({"service": {"name": "service8", "port": 2}}))
        (place.services_dir / ".new").rename(place.services_dir / "service8.json")
        soon(lambda: ports(agent)["service8"] == 2, "renamed into place")
        (place.services_dir / "service9.json").unlink()
        soon(lambda: "service9" not in ports(agent), "removed")
        place.write("service1", "{")
        place.define("service2", port=2)
        soon(lambda: ports(agent)["service2"] == 2, "beside a bad file")
        assert ports(agent)["service1"] == 1
        wait_until(lambda: len(wired.last.faults) == 1, 1, "the bad one is told")


def test_an_agent_that_forgot_everything_is_refilled_by_its_event(agent: Agent, place: Place) -> None:
    """A service deregistered by hand, a reload and a restart in -dev mode."""
    names = {"api", "db", "web"}
    for name in names:
        place.define(name, port=80)
    with Wired(place) as wired:
        agent.forget(wired.last.canary)
        soon(lambda: set(agent.services()) == names, "deregistered")
        os.kill(agent.server.pid, signal.SIGHUP)
        wait_until(lambda: "signal=hangup" in agent.server.tail(100), 10, "it heard")
        soon(lambda: set(agent.services()) == names, "reloaded")
        agent.server.stop()
        agent.server.start()
        wait_until(agent.is_answering, 20, "it is back", every=0.005)
        soon(lambda: set(agent.services()) == names, "restarted")


def test_an_outage_and_its_end_are_reported_once(agent: Agent, place: Place, log: pytest.LogCaptureFixture) -> None:
    """Told within a second or two, however often Consul is tried meanwhile; a change of that time is not missed."""
    place.define("web", port=80)
    with Wired(place) as wired:
        agent.server.stop()
        wait_until(lambda: wired.last.trouble is not None, 3, "it is noticed")
        place.define("web", port=81)
        time.sleep(4)
        tries = len(wired.runs)
        agent.server.start()
        wait_until(agent.is_answering, 20, "it is back", every=0.005)
        soon(lambda: ports(agent) == {"web": 81}, "registered as it is by now")
        wait_until(lambda: wired.last.trouble is None, 3, "that is noticed")

    assert 2 <= tries <= 12
    assert len(warnings(log)) == 1
    assert "cannot reach the Consul agent" in warnings(log)[0]
    assert len([one for one in log.messages if one.startswith("Consul answers again after ")]) == 1


def test_a_frozen_agent_is_waited_for(agent: Agent, place: Place) -> None:
    place.define("web", port=80)
    with Wired(place):
        agent.server.freeze()
        place.define("web", port=81)
        time.sleep(1)
        agent.server.thaw()
        soon(lambda: ports(agent) == {"web": 81}, "registered")


def test_a_forgetful_agent_gets_its_maintenance_back(agent: Agent, place: Place, log: pytest.LogCaptureFixture) -> None:
    """In -dev mode a restart forgets services and maintenance, an operator's and the node's."""
    for name in ("api", "web"):
        place.define(name, port=80)
    with converging(place) as convergence:
        convergence.run()
        agent.ask.put("/v1/agent/service/maintenance/web?enable=true&reason=disk")
        agent.ask.put("/v1/agent/maintenance?enable=true&reason=kernel")
        convergence.run()
    agent.server.restart()
    assert agent.services() == {}
    with converging(place) as convergence:  # a daemon that was started again knows it too
        result = convergence.run()

        checks = agent.ask.get("/v1/agent/checks")
        assert {one: check["Notes"] for one, check in checks.items()} == {
            "_node_maintenance": "kernel",
            "_service_maintenance:web": "disk",
        }
        assert set(ports(agent)) == {"api", "web"}
        assert {one.service_id for one in result.changes} == {"api", "web"}
        assert any("svcagent maint disable web" in one for one in warnings(log))
        assert any("svcagent maint disable --node" in one for one in warnings(log))
        agent.ask.put("/v1/agent/service/maintenance/web?enable=false")
        convergence.run()
        agent.forget("web")
        convergence.run()
    assert "_service_maintenance:web" not in agent.ask.get("/v1/agent/checks")


def test_removals_that_need_consent_are_withheld(agent: Agent, place: Place, log: pytest.LogCaptureFixture) -> None:
    """The services stay registered, others are created, and it is logged once."""
    for name in ("a", "b", "c", "d", "e"):
        place.define(name, port=80)
    with converging(place) as convergence:
        convergence.run()
        for name in ("a", "b", "c"):
            (place.services_dir / f"{name}.json").unlink()
        place.define("new", port=90)

        result = convergence.run()
        convergence.run()

        assert set(ports(agent)) == {"a", "b", "c", "d", "e", "new"}
        assert "register --allow-removals" in result.objection
        assert len(warnings(log)) == 1
        for name in ("a", "b", "c"):
            agent.forget(name)
        assert convergence.run().objection == ""


def test_another_directory_changes_nothing_without_consent(agent: Agent, place: Place, tmp_path: Path) -> None:
    place.define("web", port=80)
    place.define("old", port=80)
    with converging(place) as convergence:
        convergence.run()
    place.services_dir.rename(tmp_path / "elsewhere")
    other = Place(tmp_path / "other", agent.address)
    (place.state_dir / "registration.json").rename(other.state_dir / "registration.json")
    other.define("web", port=81)
    with converging(other) as convergence:
        result = convergence.run()

    assert ports(agent) == {"web": 80, "old": 80}
    assert str(other.services_dir) in result.objection


def test_a_bug_with_one_service_keeps_no_other_waiting(
    agent: Agent, place: Place, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """Its trace is logged once, its state is known, and it is tried again."""
    real = Consul.register_service

    def register(consul: Consul, body: dict[str, Any]) -> None:
        if body["ID"] == "api":
            raise RuntimeError("bug")
        real(consul, body)

    for name in ("api", "web"):
        place.define(name, port=80)
    with converging(place) as convergence:
        monkeypatch.setattr(Consul, "register_service", register)
        result = convergence.run()
        convergence.run()
        assert ports(agent) == {"web": 80}
        assert [service_id for service_id, _error in result.failed] == ["api"]
        assert len([one for one in log.records if one.levelname == "ERROR"]) == 1
        monkeypatch.setattr(Consul, "register_service", real)
        assert convergence.run().failed == ()
    assert set(ports(agent)) == {"api", "web"}


def test_a_bug_of_a_convergence_is_its_trouble(agent: Agent, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.define("web", port=80)
    with converging(place) as convergence:
        monkeypatch.setattr(Consul, "services_and_checks", lambda *_args: 1 / 0)
        result = convergence.run()
        assert (result.trouble is not None, result.again_in is not None) == (True, True)
        assert [one.service.name for one in result.definitions] == ["web"]
        monkeypatch.undo()
        assert convergence.run().trouble is None
    assert ports(agent) == {"web": 80}


def test_a_bug_with_one_file_is_a_fault_of_it(agent: Agent, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("agent.definitions.parse_file")
    find_name_uses = module.find_name_uses

    def fail_for_web(file: Path, *more: Any) -> Any:
        if file.name == "web.json":
            raise MemoryError
        return find_name_uses(file, *more)

    monkeypatch.setattr(module, "find_name_uses", fail_for_web)
    for name in ("api", "web"):
        place.define(name, port=80)
    with converging(place) as convergence:
        result = convergence.run()

    assert ports(agent) == {"api": 80}
    assert [Path(one.file).name for one in result.faults] == ["web.json"]
