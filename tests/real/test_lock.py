"""The lock, beside the real ``consul lock``."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.clock import Deadline, SystemClock
from agent.consul import Consul, Lock
from agent.errors import Conflict, ConsulUnreachable, LockBusy, LockLost
from tests.lab.ground import wait_until
from tests.lab.server import spawn
from tests.real.conftest import ConsulHost

CLOCK = SystemClock()
DETAILS = {"node": "here", "pid": 1, "command": "svcagent reload", "since": "2026-05-01T12:00:00+00:00"}


def _lock(consul: Consul, prefix: str) -> Lock:
    return Lock(consul, prefix, "svcagent reload web", DETAILS, CLOCK)


def _soon(seconds: float = 10) -> Deadline:
    return Deadline.after(CLOCK, seconds)


@contextmanager
def _consul_lock(
    host: ConsulHost, prefix: str, *options: str, command: str = "sleep 600"
) -> Iterator["subprocess.Popen[Any]"]:
    """The real command, holding the lock until its child ends."""
    argv = ["consul", "lock", *options, prefix, command]
    process = spawn(argv, host.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def _holder(host: ConsulHost, prefix: str) -> str | None:
    for pair in host.ask.get("/v1/kv/?recurse") if host.ask.get("/v1/kv/?keys&separator=") else ():
        if pair["Key"] == f"{prefix}/.lock":
            session: str | None = pair.get("Session")
            return session
    return None


@pytest.fixture(autouse=True)
def _some_key(host: ConsulHost) -> None:
    """Consul answers 404 for a listing of no keys."""
    host.ask.put("/v1/kv/some-key", 1)


def test_nothing_is_left_after_release(host: ConsulHost, consul: Consul) -> None:
    """Neither key nor session outlives the lock."""
    with _lock(consul, "left") as lock:
        lock.acquire(_soon())
        assert _holder(host, "left") is not None

    assert _holder(host, "left") is None
    assert not [one for one in host.ask.get("/v1/session/list") if "'left'" in one["Name"]]


def test_consul_lock_waits_for_us(host: ConsulHost, consul: Consul) -> None:
    """While svcagent holds it, ``consul lock`` does not run its command; after release it does."""
    with _lock(consul, "theirs-waits") as lock:
        lock.acquire(_soon())
        mine = _holder(host, "theirs-waits")
        with _consul_lock(host, "theirs-waits", "-timeout=2s", command="true") as refused:
            assert refused.wait(30) != 0
        assert _holder(host, "theirs-waits") == mine
    with _consul_lock(host, "theirs-waits", command="true") as taken:
        assert taken.wait(30) == 0


def test_we_wait_for_consul_lock(host: ConsulHost, consul: Consul) -> None:
    """While ``consul lock`` holds it, svcagent does not get it and says who has it; after its end it does."""
    with _lock(consul, "ours-waits") as lock:
        with _consul_lock(host, "ours-waits"):
            wait_until(lambda: _holder(host, "ours-waits") is not None, 20, "consul lock holds it")
            with pytest.raises(LockBusy, match="Consul lock for 'sleep 600'"):
                lock.acquire(_soon(0))
        lock.acquire(_soon())

        lock.ask()


def test_a_busy_lock_of_svcagent_names_its_holder(consul: Consul) -> None:
    """Node, command, pid and since when: enough to go and look."""
    other = consul.another()
    with _lock(consul, "named") as lock, _lock(other, "named") as second:
        lock.acquire(_soon())
        with pytest.raises(LockBusy, match=r"here \(svcagent reload, pid 1, since 12:00:00 UTC\)"):
            second.acquire(_soon(0))
    other.close()


def test_a_semaphore_under_the_same_prefix_is_a_conflict(host: ConsulHost, consul: Consul) -> None:
    """``consul lock -n 2`` keeps its own kind of key there; mixing the two would let both run."""
    with _consul_lock(host, "semaphore", "-n=2"):
        wait_until(lambda: "semaphore/.lock" in host.ask.get("/v1/kv/?keys"), 20, "the semaphore is there")
        with _lock(consul, "semaphore") as lock, pytest.raises(Conflict, match="-n"):
            lock.acquire(_soon())


def test_a_lock_taken_away_is_known_at_once_when_asked(host: ConsulHost, consul: Consul) -> None:
    """The question before a disruptive step is answered by the leader, not from memory."""
    with _lock(consul, "taken") as lock:
        lock.acquire(_soon())
        host.ask.put(f"/v1/session/destroy/{_holder(host, 'taken')}")

        with pytest.raises(LockLost):
            lock.ask()


def test_a_lock_taken_away_is_noticed_by_itself(host: ConsulHost, consul: Consul) -> None:
    """The key is watched while it is held: a long wait learns of the loss without asking."""
    with _lock(consul, "watched") as lock:
        lock.acquire(_soon())
        assert not lock.is_lost

        host.ask.delete("/v1/kv/watched/.lock")

        wait_until(lambda: lock.is_lost, 10, "the loss is known")


def test_hand_over_wakes_the_waiter(consul: Consul) -> None:
    """A waiter gets the lock by the release itself, not by a later look."""
    other = consul.another()
    with _lock(other, "handed") as second:
        with _lock(consul, "handed") as lock:
            lock.acquire(_soon())
            waiter = threading.Thread(target=lambda: second.acquire(_soon(30)))
            waiter.start()
            waiter.join(0.3)
            assert waiter.is_alive()
        waiter.join(5)
        assert not waiter.is_alive()
        second.ask()
    other.close()


def test_a_silent_consul_is_not_a_held_lock(host: ConsulHost, consul: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked while Consul hangs, the lock is not confirmed."""
    monkeypatch.setattr("agent.consul.transport.ANSWER_SECONDS", 0.5)
    with _lock(consul, "silent") as lock:
        lock.acquire(_soon())
        host.server.freeze()
        try:
            with pytest.raises(ConsulUnreachable):
                lock.ask()
        finally:
            host.server.thaw()
