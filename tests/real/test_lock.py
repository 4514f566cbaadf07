"""The lock of one holder, beside the real ``consul lock``."""

import threading
from collections.abc import Callable

import pytest

from agent.consul import Consul
from agent.errors import Conflict, ConsulUnreachable, LockBusy, LockLost
from tests.lab.ground import wait_until
from tests.real.conftest import ConsulHost
from tests.real.lock_fixture import assert_nothing_left, consul_lock, holder, make_lock, soon
from tests.support.kinds import raises_kind


def test_nothing_is_left_after_release(host: ConsulHost, consul: Consul) -> None:
    with make_lock(consul, "left") as lock:
        lock.acquire(soon())
        assert holder(host, "left") is not None

    assert_nothing_left(host, "left")


def test_consul_lock_waits_for_us(host: ConsulHost, consul: Consul) -> None:
    """While svcagent holds it, ``consul lock`` does not run its command; after release it does."""
    with make_lock(consul, "theirs-waits") as lock:
        lock.acquire(soon())
        mine = holder(host, "theirs-waits")
        with consul_lock(host, "theirs-waits", "-timeout=2s", command="true") as refused:
            assert refused.wait(30) != 0
        assert holder(host, "theirs-waits") == mine
    with consul_lock(host, "theirs-waits", command="true") as taken:
        assert taken.wait(30) == 0


def test_we_wait_forconsul_lock(host: ConsulHost, consul: Consul) -> None:
    """While ``consul lock`` holds it, svcagent does not get it and says who has it; after its end it does."""
    with make_lock(consul, "ours-waits") as lock:
        with consul_lock(host, "ours-waits"):
            wait_until(lambda: holder(host, "ours-waits") is not None, 20, "consul lock holds it")
            with pytest.raises(LockBusy, match="Consul lock for 'sleep 600'"):
                lock.acquire(soon(0))
        lock.acquire(soon())

        lock.check_held()


def test_a_busy_lock_of_svcagent_names_itsholder(consul: Consul, another: Callable[[], Consul]) -> None:
    """Node, command, pid and since when: enough to go and look."""
    other = another()
    with make_lock(consul, "named") as lock, make_lock(other, "named") as second:
        lock.acquire(soon())
        with pytest.raises(LockBusy, match=r"here \(svcagent reload, pid 1, since 12:00:00 UTC\)"):
            second.acquire(soon(0))


def test_a_semaphore_under_the_same_prefix_is_a_conflict(host: ConsulHost, consul: Consul) -> None:
    """``consul lock -n 2`` keeps its own kind of key there; mixing the two would let both run."""
    with consul_lock(host, "semaphore", "-n=2"):
        wait_until(lambda: "semaphore/.lock" in host.ask.get("/v1/kv/?keys"), 20, "the semaphore is there")
        with make_lock(consul, "semaphore") as lock, raises_kind(Conflict, "lock-key-in-use"):
            lock.acquire(soon())


def test_a_removed_lock_is_detected_by_the_next_check(host: ConsulHost, consul: Consul) -> None:
    """The question before a disruptive step is answered by the leader, not from memory."""
    with make_lock(consul, "taken") as lock:
        lock.acquire(soon())
        host.ask.put(f"/v1/session/destroy/{holder(host, 'taken')}")

        with pytest.raises(LockLost):
            lock.check_held()


def test_a_lock_taken_away_is_noticed_by_itself(host: ConsulHost, consul: Consul) -> None:
    """The key is watched while it is held: a long wait learns of the loss without asking."""
    with make_lock(consul, "watched") as lock:
        lock.acquire(soon())
        assert not lock.is_lost

        host.ask.delete("/v1/kv/watched/.lock")

        wait_until(lambda: lock.is_lost, 10, "the loss is known")


def test_hand_over_wakes_the_waiter(consul: Consul, another: Callable[[], Consul]) -> None:
    """A waiter gets the lock by the release itself, not by a later look."""
    other = another()
    with make_lock(other, "handed") as second:
        with make_lock(consul, "handed") as lock:
            lock.acquire(soon())
            waiter = threading.Thread(target=lambda: second.acquire(soon(30)))
            waiter.start()
            waiter.join(0.3)
            assert waiter.is_alive()
        waiter.join(5)
        assert not waiter.is_alive()
        second.check_held()


def test_a_silent_consul_is_not_a_held_lock(host: ConsulHost, consul: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.consul.transport.ANSWER_SECONDS", 0.5)
    with make_lock(consul, "silent") as lock:
        lock.acquire(soon())
        host.server.freeze()
        try:
            with pytest.raises(ConsulUnreachable):
                lock.check_held()
        finally:
            host.server.thaw()
