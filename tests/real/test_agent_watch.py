"""The watch on real agents: what wakes a convergence, how soon, and what it costs."""

import itertools
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.consul.transport import ConsulConnection
from agent.daemon import agent_watch
from agent.http import HttpAnswer
from tests.lab.ground import LabError, wait_until
from tests.real.access_fixture import asked, consul_with
from tests.real.converge_fixture import Agent, Waker, consul_agent
from tests.support.threads import repeating


@pytest.fixture(scope="module", params=[False, True], ids=["-dev", "with a data directory"])
def server(request: pytest.FixtureRequest) -> Iterator[Agent]:
    with consul_agent(is_remembering=request.param) as found:
        yield found


@pytest.fixture
def agent(server: Agent) -> Iterator[Agent]:
    register(server, "web")
    yield server
    if not server.server.is_running:
        server.server.restart()
    server.clear()


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    ask = ConsulConnection.ask

    def recorded(self: ConsulConnection, method: str, target: str, *more: Any) -> HttpAnswer:
        asked.append(target)
        return ask(self, method, target, *more)

    monkeypatch.setattr(ConsulConnection, "ask", recorded)
    return asked


def register(agent: Agent, name: str, **fields: Any) -> None:
    agent.ask.put("/v1/agent/service/register", {"Name": name, **fields})


def is_waiting(questions: list[str]) -> bool:
    return bool(questions) and "hash=" in questions[-1]


def test_a_deregistered_or_changed_canary_wakes_immediately(agent: Agent, questions: list[str]) -> None:
    with Waker(agent.address + ":8500", "web") as waker:
        wait_until(lambda: is_waiting(questions), 5, "it waits")
        waker.wakes_after(lambda: agent.forget("web"))
        questions.clear()
        register(agent, "web")
        waker.watch.follow("web")
        wait_until(lambda: is_waiting(questions), 5, "it waits again")
        waker.wakes_after(lambda: register(agent, "web", Port=81))


def test_what_is_no_loss_does_not_wake(agent: Agent, questions: list[str]) -> None:
    """Maintenance, checks, another service, the same registration, a wait that is over."""
    with Waker(agent.address + ":8500", "web") as waker:
        wait_until(lambda: is_waiting(questions), 5, "it waits")
        agent.ask.put("/v1/agent/service/maintenance/web?enable=true&reason=disk")
        agent.ask.put("/v1/agent/check/register", {"Name": "up", "ServiceID": "web", "TTL": "1h"})
        register(agent, "api")
        register(agent, "web")
        waker.sleeps(1)


def test_a_quiet_minute_costs_one_question(agent: Agent, questions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of a fifth of a second; Consul adds up to a sixteenth."""
    monkeypatch.setattr(agent_watch, "WAIT_SECONDS", 0.2)
    with Waker(agent.address + ":8500", "web") as waker:
        waker.sleeps(2)
    assert 8 <= len(questions) <= 13


@pytest.mark.parametrize("canary", ["web", ""])
def test_an_agents_restart_wakes_twice(agent: Agent, questions: list[str], canary: str) -> None:
    """Whether it remembers its services or not, and whether there is one to watch or not."""
    with Waker(agent.address + ":8500", canary) as waker:
        wait_until(lambda: bool(questions), 5, "it watches")
        time.sleep(0.1)
        waker.wakes_after(agent.server.kill)
        waker.sleeps(1)
        agent.server.start()
        wait_until(agent.is_answering, 20, "it answers", every=0.002)
        wait_until(lambda: len(waker.wakes) == 2, 1, "it wakes again")
        agent.server.wait_ready()


def test_a_reload_wakes_where_it_loses_the_services(agent: Agent, questions: list[str]) -> None:
    """In -dev mode; with a data directory they are there again before anybody could miss them."""
    with Waker(agent.address + ":8500", "web") as waker:
        wait_until(lambda: is_waiting(questions), 5, "it waits")
        os.kill(agent.server.pid, signal.SIGHUP)
        wait_until(lambda: "signal=hangup" in agent.server.tail(100), 10, "the agent heard")
        if agent.is_remembering:
            waker.sleeps(1)
        else:
            wait_until(lambda: bool(waker.wakes), 1, "it wakes")


def test_a_canary_that_stays_away_is_reported_once(agent: Agent, questions: list[str]) -> None:
    """Nobody puts it back; then it is there, and gone once more."""
    with Waker(agent.address + ":8500", "web") as waker:
        wait_until(lambda: is_waiting(questions), 5, "it waits")
        waker.wakes_after(lambda: agent.forget("web"))
        waker.sleeps(1)
        assert len(questions) <= 5
        questions.clear()
        register(agent, "web")
        waker.watch.follow("web")
        wait_until(lambda: is_waiting(questions), 5, "it waits again")
        waker.wakes_after(lambda: agent.forget("web"))


def test_another_canary_is_watched_as_soon_as_it_is_named(agent: Agent, questions: list[str]) -> None:
    """At the first start there is none; its registration is what makes one."""
    with Waker(agent.address + ":8500") as waker:
        time.sleep(0.1)
        waker.canary = "web"
        waker.watch.follow("web")
        wait_until(lambda: is_waiting(questions), 5, "it waits")
        assert waker.wakes == []
        waker.wakes_after(lambda: agent.forget("web"))


def test_a_restless_canary_costs_little(agent: Agent, questions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody changes it as often as it is put right."""
    monkeypatch.setattr(agent_watch, "MOST_WAKES", 5)
    ports = itertools.count(1)

    def fight() -> None:
        register(agent, "web", Port=next(ports))
        time.sleep(0.01)

    with Waker(agent.address + ":8500", "web") as waker, repeating(fight):
        time.sleep(3)
        assert len(waker.wakes) == 5
        assert len(questions) <= 20


def test_an_agent_that_is_away_is_tried_five_times_a_second(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []
    open_connection = ConsulConnection.open

    def counted(self: ConsulConnection) -> None:
        tries.append(1)
        open_connection(self)

    monkeypatch.setattr(ConsulConnection, "open", counted)
    agent.server.stop()
    with Waker(agent.address + ":8500", "web") as waker:
        wait_until(lambda: bool(waker.wakes), 5, "it is told")
        tries.clear()
        waker.sleeps(2)
    assert 7 <= len(tries) <= 11


@pytest.mark.parametrize("state", ["waiting", "idle", "frozen"])
def test_it_stops_before_its_query_ends(agent: Agent, questions: list[str], state: str) -> None:
    """Whatever it waits for: checked at the end of ``with``."""
    with Waker(agent.address + ":8500", "" if state == "idle" else "web"):
        wait_until(lambda: bool(questions) if state == "idle" else is_waiting(questions), 5, "it waits")
        if state == "frozen":
            agent.server.freeze()
    if state == "frozen":
        agent.server.thaw()


def test_it_stops_at_any_moment(agent: Agent) -> None:
    for number in range(30):
        with Waker(agent.address + ":8500", "web"):
            time.sleep(0.001 * (number % 10))


def test_a_token_that_is_refused_is_not_asked_with_again_and_again(questions: list[str], tmp_path: Path) -> None:
    """Told once when it is refused, and once when it is no longer."""
    master = str(uuid.uuid4())
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": master}}
    file = tmp_path / "token"
    file.write_text(master)
    with consul_with({"acl": acl}) as access, asked(access.address, master) as ask:

        def is_in_force() -> bool:
            try:
                return bool(ask.get("/v1/health/node/server"))
            except LabError:
                return False

        wait_until(is_in_force, 20, "the ACLs are in force")
        ask.put("/v1/agent/service/register", {"Name": "web"})
        with Waker(f"{access.address}:8500", "web", CONSUL_HTTP_TOKEN_FILE=str(file)) as waker:
            wait_until(lambda: is_waiting(questions), 5, "it waits")
            file.write_text(str(uuid.uuid4()))
            ask.put("/v1/agent/service/register", {"Name": "web", "Port": 1})
            wait_until(lambda: len(waker.wakes) >= 2, 5, "it is told")
            questions.clear()
            waker.sleeps(2)
            assert len(questions) <= 2
