"""The line before the lock: who waits for whom, and what waiting costs."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial

import pytest

from agent.clock import Interrupts
from agent.consul import Consul, Lock
from agent.consul.model import KvOperation
from agent.errors import Interrupted, LockBusy, OutcomeUnknown
from tests.lab.ground import wait_until
from tests.real.conftest import ConsulHost
from tests.real.lock_fixture import (
    CLOCK,
    DETAILS,
    assert_nothing_left,
    consul_lock,
    holder,
    line_of,
    make_lock,
    pairs,
    raft_writes,
    sessions,
    soon,
)
from tests.support.threads import background


def _queue(host: ConsulHost, prefix: str) -> list[str]:
    """The sessions of those who wait, in order."""
    entries = [pair for pair in pairs(host, f"svcagent/{prefix}/queue/").values() if pair.get("Session")]
    return [pair["Session"] for pair in sorted(entries, key=lambda pair: int(pair["CreateIndex"]))]


def _is_line_of(host: ConsulHost, prefix: str, count: int) -> bool:
    return len(_queue(host, prefix)) == count


@contextmanager
def _waiting(
    host: ConsulHost, consul: Consul, prefix: str, count: int, limit: int = 1, before: int = 0
) -> Iterator[list[str]]:
    """So many waiters, one behind the other, each a thread; the list gets their names as they hold the lock.

    ``before``: how many stand in the line already.
    """
    held: list[str] = []
    with ExitStack() as waiters:
        for number in range(count):
            waiters.enter_context(background(_take_and_release, consul.another(), prefix, f"w{number}", held, limit))
            wait_until(partial(_is_line_of, host, prefix, before + number + 1), 10, "it stands in the line")
        yield held


def _take_and_release(consul: Consul, prefix: str, name: str, held: list[str], limit: int) -> None:
    details = {**DETAILS, "node": name}
    with closing(consul), Lock(consul, prefix, "svcagent reload web", details, CLOCK, limit=limit) as lock:
        lock.acquire(soon(60))
        held.append(name)
        lock.check_held()
        # Several holders change one list by check-and-set: were each done at once, they would refuse each other.
        threading.Event().wait(0.0 if limit == 1 else 0.05)


@pytest.mark.parametrize("limit", [1, 2])
def test_thirty_waiters_in_order(host: ConsulHost, consul: Consul, limit: int, another: Callable[[], Consul]) -> None:
    """In order of arrival, with at most six Raft writes each: session, entry, lock, release, session."""
    count, prefix = 30, f"thirty-{limit}"
    holders = [make_lock(connection, prefix, limit) for connection in (consul, another())[:limit]]
    for one in holders:
        one.acquire(soon())
    before = raft_writes(host)
    with _waiting(host, consul, prefix, count, limit) as held:
        assert held == []
        for one in holders:
            one.release()

    if limit == 1:
        assert held == [f"w{number}" for number in range(count)]
    else:
        # Two go on at a time, so one may tell of it before the other.
        assert all(abs(int(name[1:]) - at) <= limit for at, name in enumerate(held))
    writes = (raft_writes(host) - before) / count
    assert writes <= 6
    assert_nothing_left(host, prefix)


def test_waiting_writes_nothing(host: ConsulHost, consul: Consul) -> None:
    """A failed attempt would be a Raft write, each time that somebody looks."""
    with make_lock(consul, "quiet") as lock:
        lock.acquire(soon())
        with _waiting(host, consul, "quiet", 3) as held:
            before = raft_writes(host)
            lock.check_held()
            threading.Event().wait(3)
            assert raft_writes(host) - before <= 1  # Consul's own, now and then
            assert held == []
            lock.release()


def test_a_free_lock_without_a_line_costs_four_writes(host: ConsulHost, consul: Consul) -> None:
    """Session, lock, release, session: there is no entry to be made."""
    before = raft_writes(host)
    with make_lock(consul, "free") as lock:
        lock.acquire(soon())
    assert raft_writes(host) - before <= 5

    assert_nothing_left(host, "free")


def test_who_comes_later_does_not_overtake(consul: Consul) -> None:
    """In the moment in which the lock is free, somebody is next already."""
    stranger = consul.create_session("nobody's", 15)
    consul.kv_put("svcagent/next/queue/x", '{"v":1,"node":"other","lock":"next"}', acquire=stranger)

    with make_lock(consul, "next") as lock, pytest.raises(LockBusy, match="others came before; this is place 2"):
        lock.acquire(soon(0.5))
    consul.destroy_session(stranger)


def test_entries_for_another_lock_are_ignored(consul: Consul) -> None:
    """A definition that got another lock may have waiters for both, in one place."""
    stranger = consul.create_session("nobody's", 15)
    consul.kv_put("svcagent/moved/queue/x", '{"v":1,"node":"other","lock":"elsewhere"}', acquire=stranger)

    with make_lock(consul, "moved") as lock:
        lock.acquire(soon(0))
    consul.destroy_session(stranger)


def test_the_line_is_at_its_configured_place(host: ConsulHost, consul: Consul, another: Callable[[], Consul]) -> None:
    """Beside the documents of its service, whatever the lock is called."""
    with (
        make_lock(consul, "elsewhere") as lock,
        make_lock(another(), "elsewhere", queue="svcagent/web/queue") as second,
    ):
        lock.acquire(soon())
        waiter = threading.Thread(target=lambda: second.acquire(soon(20)))
        waiter.start()
        wait_until(lambda: len(pairs(host, "svcagent/web/queue/")) == 1, 10, "it stands there")
        [entry] = pairs(host, "svcagent/web/queue/").values()
        assert entry["Session"] == second.session
        lock.release()
        waiter.join(10)
        assert pairs(host, "svcagent/web/queue/") == {}
        second.check_held()


def test_who_gives_up_leaves_nothing(host: ConsulHost, consul: Consul, another: Callable[[], Consul]) -> None:
    """At the end of its time; and those behind move up."""
    with make_lock(consul, "tired") as lock, make_lock(another(), "tired") as second:
        lock.acquire(soon())
        with pytest.raises(LockBusy, match=r"held by here .* place 1 in the line"):
            second.acquire(soon(0.3))
        assert second.session is not None
        second.release()

        assert pairs(host, "svcagent/tired/") == {}
        assert sessions(host, "tired") == [lock.session]


def test_who_is_interrupted_leaves_nothing(host: ConsulHost, consul: Consul, another: Callable[[], Consul]) -> None:
    interrupts = Interrupts()
    with make_lock(consul, "cut") as lock:
        lock.acquire(soon())
        threading.Thread(target=_interrupt, args=(host,)).start()
        with (
            interrupts.caught(),
            Lock(another(), "cut", "svcagent reload web", DETAILS, CLOCK, interrupts.allowed) as second,
            pytest.raises(Interrupted),
        ):
            second.acquire(soon(20))
        assert pairs(host, "svcagent/cut/") == {}
        assert sessions(host, "cut") == [lock.session]


def _interrupt(host: ConsulHost) -> None:
    wait_until(lambda: len(_queue(host, "cut")) == 1, 10, "it stands in the line")
    os.kill(os.getpid(), signal.SIGINT)


def test_the_place_in_the_queue_is_reported_when_it_changes(host: ConsulHost) -> None:
    with line_of(host, "told", 4) as (first, second, third, fourth):
        assert fourth.said[-1].startswith("place 3 host-0 (svcagent reload, pid ")
        assert third.said[-1].startswith("place 2 ")

        first.report_event("release")
        second.hears("held")
        assert third.hears("place 1").startswith("place 1 host-1 ")
        second.report_event("release")
        third.hears("held")
        assert fourth.hears("place 1").startswith("place 1 host-2 ")


def test_an_entry_deleted_by_hand_is_made_again_at_the_end(host: ConsulHost) -> None:
    """Whoever deletes it sends that waiter back; it does not wait for ever."""
    with line_of(host, "deleted", 4) as (first, second, third, fourth):
        entries = sorted(pairs(host, "svcagent/deleted/queue/").values(), key=lambda pair: int(pair["CreateIndex"]))
        host.ask.delete(f"/v1/kv/{entries[1]['Key']}")
        fourth.hears("place 2")  # the third is out of the line, and does not know yet

        for before, after in ((first, second), (second, fourth), (fourth, third)):
            before.report_event("release")
            after.hears("held")


def test_a_session_destroyed_by_hand_in_the_line_is_made_again(host: ConsulHost) -> None:
    """The waiter goes to the end of the line with a new session, and gets the lock all the same."""
    with line_of(host, "ended", 3) as (first, second, third):
        old = second.said[0].removeprefix("session ")
        host.ask.put(f"/v1/session/destroy/{old}")
        third.hears("place 1")
        assert holder(host, "ended") is not None

        first.report_event("release")
        third.hears("held")
        third.report_event("release")
        assert second.hears("session") != f"session {old}"
        second.hears("held")
        second.report_event("release")
        second.hears("released")
    assert_nothing_left(host, "ended")


def test_consul_lock_is_excluded_with_a_line(host: ConsulHost, consul: Consul) -> None:
    """It contends beside the head of the line, and one of the two has it at a time."""
    ran = host.directory / "ran"
    with make_lock(consul, "beside") as lock:
        lock.acquire(soon())
        with (
            consul_lock(host, "beside", command=f"touch {ran}; sleep 0.3; rm {ran}") as theirs,
            _waiting(host, consul, "beside", 3) as held,
        ):
            threading.Event().wait(0.5)
            assert (held, ran.exists()) == ([], False)
            lock.release()
            assert theirs.wait(30) == 0
    assert held == ["w0", "w1", "w2"]
    assert_nothing_left(host, "beside")


@pytest.mark.parametrize("limit", [1, 2])
def test_a_lost_answer_does_not_make_it_wait_for_itself(
    host: ConsulHost, consul: Consul, monkeypatch: pytest.MonkeyPatch, limit: int, another: Callable[[], Consul]
) -> None:
    """The lock was taken and the entry deleted, and the connection broke before Consul could say so."""
    prefix = f"answer-{limit}"
    holders = [make_lock(another(), prefix, limit) for _ in range(limit)]
    for one in holders:
        one.acquire(soon())
    answer = consul.kv_transaction

    def lose_answer(*operations: KvOperation) -> bool:
        if not answer(*operations):  # a holder was just giving it back
            return False
        monkeypatch.undo()
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(consul, "kv_transaction", lose_answer)
    with make_lock(consul, prefix, limit) as lock:
        waiter = threading.Thread(target=lambda: lock.acquire(soon(30)))
        waiter.start()
        wait_until(partial(_is_line_of, host, prefix, 1), 10, "it stands in the line")
        with _waiting(host, consul, prefix, 1, limit, before=1):
            for one in holders:
                one.release()
            waiter.join(10)
            assert not waiter.is_alive()
            lock.check_held()
            lock.release()
    assert_nothing_left(host, prefix)
