"""``svcagent lock status``: who holds the lock, who waits, in which order."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from agent.consul import Consul, LockForm, lock_status
from agent.errors import Conflict
from tests.lab.ground import wait_until
from tests.real.conftest import ConsulHost
from tests.real.lock_fixture import consul_lock, line_of, make_lock, pairs, soon
from tests.support.svcagent import Svcagent


def test_holder_and_waiters_with_their_details(host: ConsulHost, consul: Consul) -> None:
    """In order of arrival, each with node, process, and since when."""
    with line_of(host, "line", 3):
        found = lock_status(consul, "line", "svcagent/line/queue")

    assert (found.form, found.limit) == (LockForm.SINGLE, 1)
    assert [holder.node for holder in (*found.holders, *found.waiters)] == ["host-0", "host-1", "host-2"]
    for one in (*found.holders, *found.waiters):
        assert one.pid is not None
        assert one.since is not None
        assert abs((datetime.now(UTC) - one.since).total_seconds()) < 60


def test_step_and_digest_are_those_of_the_last_update(consul: Consul) -> None:
    with make_lock(consul, "step") as lock:
        lock.acquire(soon())
        lock.update(step="restart", digest="sha256:1", service="web")
        [holder] = lock_status(consul, "step", "svcagent/step/queue").holders

        assert (holder.step, holder.digest, holder.service) == ("restart", "sha256:1", "web")
        assert holder.session == lock.session


def test_those_of_consul_lock_are_known_by_their_sessions(host: ConsulHost, consul: Consul) -> None:
    with consul_lock(host, "foreign"):
        wait_until(lambda: bool(pairs(host).get("foreign/.lock", {}).get("Session")), 20, "theirs holds it")
        [holder] = lock_status(consul, "foreign", "svcagent/foreign/queue").holders

    assert holder.name == "Consul lock for 'sleep 600' at 'foreign'"
    assert holder.node == consul.agent_self().node


def test_several_holders_and_their_limit(host: ConsulHost, consul: Consul) -> None:
    with make_lock(consul, "both", 2) as lock, consul_lock(host, "both", "-n=2"):
        wait_until(lambda: len(pairs(host, "both/")) == 2, 20, "theirs holds it")
        lock.acquire(soon())
        found = lock_status(consul, "both", "svcagent/both/queue")

    assert (found.form, found.limit) == (LockForm.SEMAPHORE, 2)
    assert {holder.command or holder.name for holder in found.holders} == {
        "svcagent reload",
        "Consul lock for 'sleep 600' at 'both'",
    }


def test_a_free_lock(host: ConsulHost, consul: Consul) -> None:
    """Without a key, and with one whose holder has died."""
    found = lock_status(consul, "nothing", "svcagent/nothing/queue")
    assert (found.form, found.holders, found.waiters) == (LockForm.NONE, (), ())

    with make_lock(consul, "nothing") as lock:
        lock.acquire(soon())
        host.ask.put(f"/v1/session/destroy/{lock.session}")
        found = lock_status(consul, "nothing", "svcagent/nothing/queue")
    assert (found.form, found.holders) == (LockForm.SINGLE, ())


def test_another_kind_of_key_is_a_conflict(consul: Consul) -> None:
    consul.kv_put("strange/.lock", "x")

    with pytest.raises(Conflict, match=r"strange/\.lock"):
        lock_status(consul, "strange", "svcagent/strange/queue")


def test_status_shows_all(host: ConsulHost, svcagent: Svcagent, consul: Consul, another: Callable[[], Consul]) -> None:
    """For people a row each and the way out; for programs one document."""
    _define(svcagent)
    settings = {"CONSUL_HTTP_ADDR": f"{host.address}:8500"}
    assert "the lock web_lock is free, none waiting" in svcagent("lock", "status", "web", **settings).out

    second = make_lock(another(), "web_lock", queue="svcagent/web/queue")
    with make_lock(consul, "web_lock") as lock, second:
        lock.acquire(soon())
        waiter = threading.Thread(target=lambda: second.acquire(soon(30)))
        waiter.start()
        wait_until(lambda: len(pairs(host, "svcagent/web/queue/")) == 1, 10, "it stands in the line")
        shown = svcagent("lock", "status", "web", **settings)
        document = json.loads(svcagent("--json", "lock", "status", "web", **settings).out)
        sessions = lock.session, second.session
        lock.release()
        waiter.join(10)

    assert shown.code == 0
    assert "holder\there\t1\tsvcagent reload" in shown.out
    assert "waiter 1\there\t1\tsvcagent reload" in shown.out
    assert "held by 1 of at most 1, 1 waiting" in shown.out
    assert f"/v1/session/destroy/{sessions[0]}" in shown.out
    assert (document["lock"], document["form"], document["limit"]) == ("web_lock", "single", 1)
    assert [one["session"] for one in (*document["holders"], *document["waiters"])] == list(sessions)
    assert document["waiters"][0]["place"] == 1
    assert document["holders"][0]["since"] == "2026-05-01T12:00:00Z"


def test_a_name_without_a_lock_is_a_usage_error(host: ConsulHost, svcagent: Svcagent) -> None:
    svcagent.define("plain")
    settings = {"CONSUL_HTTP_ADDR": f"{host.address}:8500"}

    for name, said in (("plain", "no reload section"), ("nobody", "no service is called")):
        result = svcagent("lock", "status", name, **settings)
        assert result.code == 2
        assert said in result.err


def _define(svcagent: Svcagent) -> None:
    reload = {"image": "127.0.0.1:5000/web:latest", "container": "web", "lock": "web_lock"}
    service = {"name": "web", "port": 8000, "checks": [{"http": "http://127.0.0.1:8000/", "interval": "10s"}]}
    (svcagent.services_dir / "web.json").write_text(json.dumps({"service": service, "reload": reload}))
