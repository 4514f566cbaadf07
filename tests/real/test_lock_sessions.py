"""The lock's session: told before it is used, renewed, given back, and none left behind."""

import json
import signal
import socket
import threading
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress

import pytest

from agent.consul import Consul, Lock, own_sessions, release_dead_session
from agent.consul.lock.session_renewer import SESSION_TTL
from agent.errors import LockBusy, LockLost, Unreachable
from tests.lab.ground import LabError, wait_until
from tests.real.access_fixture import Listener
from tests.real.conftest import ConsulHost
from tests.real.lock_fixture import assert_nothing_left, holder, line_of, make_lock, pairs, raft_writes, sessions, soon
from tests.support.consul import consul_at


@pytest.mark.parametrize("limit", [1, 2])
def test_the_session_is_reported_before_it_holds_anything(host: ConsulHost, consul: Consul, limit: int) -> None:
    """So that a journal knows of all that there could be to give back."""
    prefix = f"told-{limit}"
    told: list[tuple[str, bool]] = []

    def on_session(session: str) -> None:
        held = [pair for pair in pairs(host).values() if pair.get("Session") == session]
        told.append((session, bool(held)))

    with make_lock(consul, prefix, limit, on_session=on_session) as lock:
        assert lock.session is None
        lock.acquire(soon())

        assert told == [(str(lock.session), False)]


def test_what_cannot_be_journalled_is_not_begun(host: ConsulHost, consul: Consul) -> None:
    """A disk that is full when the session is to be written down: no lock, and no session is left."""

    def on_session(_session: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), make_lock(consul, "full", on_session=on_session) as lock:
        lock.acquire(soon())

    assert_nothing_left(host, "full")


def test_waiting_no_time_needs_no_session(host: ConsulHost, consul: Consul, another: Callable[[], Consul]) -> None:
    with make_lock(consul, "busy") as lock, make_lock(another(), "busy") as second:
        lock.acquire(soon())
        with pytest.raises(LockBusy, match="place 1"):
            second.acquire(soon(0))

        assert second.session is None
        assert sessions(host, "busy") == [lock.session]


def test_an_update_is_one_write_and_keeps_the_lock(host: ConsulHost, consul: Consul) -> None:
    """Step and digest, for those who look at who holds it."""
    with make_lock(consul, "updated") as lock:
        lock.update(digest="sha256:1")  # before it is held: for later
        lock.acquire(soon())
        before = raft_writes(host)
        lock.update(step="drain")

        assert raft_writes(host) - before <= 2  # of which Consul's own may be one, now and then
        found = pairs(host)["updated/.lock"]
        assert found["Session"] == lock.session
        details = json.loads(b64decode(found["Value"]))
        assert (details["v"], details["step"], details["digest"], details["node"]) == (1, "drain", "sha256:1", "here")


def test_an_update_does_not_take_back_what_was_lost(host: ConsulHost, consul: Consul) -> None:
    with make_lock(consul, "gone") as lock:
        lock.acquire(soon())
        host.ask.delete("/v1/kv/gone/.lock")
        with pytest.raises(LockLost):
            lock.update(step="drain")

        assert "gone/.lock" not in pairs(host)


@pytest.mark.parametrize("limit", [1, 2])
def test_a_crashed_process_s_lock_is_released_immediately(host: ConsulHost, consul: Consul, limit: int) -> None:
    """By whoever recovers on its host: the next in line has it without waiting for the session, or for lock-delay."""
    prefix = f"recovered-{limit}"
    with line_of(host, prefix, limit + 1, limit) as waiters:
        dead, following = waiters[0], waiters[-1]
        [session] = [line.removeprefix("session ") for line in dead.said if line.startswith("session")]
        dead.signal(signal.SIGKILL)

        release_dead_session(consul, prefix, session, limit=limit)
        following.hears("held", 5)

        assert session not in sessions(host, prefix)
        release_dead_session(consul, prefix, session, limit=limit)  # a second time: nothing is there
        for waiter in waiters[1:]:
            waiter.report_event("ask")
            assert waiter.hears("asked") == "asked held"
            waiter.report_event("release")
            waiter.hears("released")
    assert_nothing_left(host, prefix)


def test_a_crashed_waiter_s_place_is_removed(host: ConsulHost, consul: Consul) -> None:
    with line_of(host, "recovered-waiter", 3) as (first, dead, third):
        [session] = [line.removeprefix("session ") for line in dead.said if line.startswith("session")]
        dead.signal(signal.SIGKILL)

        release_dead_session(consul, "recovered-waiter", session)

        third.hears("place 1 host-0")
        assert len(pairs(host, "svcagent/recovered-waiter/queue/")) == 1
        first.report_event("ask")
        assert first.hears("asked") == "asked held"


@pytest.mark.parametrize("limit", [1, 2])
def test_others_locks_are_kept(host: ConsulHost, consul: Consul, limit: int, another: Callable[[], Consul]) -> None:
    """The session of the dead is long gone, and another has the lock, in this form or the other."""
    prefix = f"others-{limit}"
    with make_lock(consul, prefix, limit) as lock:
        lock.acquire(soon())
        before = pairs(host, f"{prefix}/")
        for form in (1, 2):
            release_dead_session(another(), prefix, "11111111-2222-3333-4444-555555555555", limit=form)

        lock.check_held()
        assert pairs(host, f"{prefix}/") == before


def test_a_crashed_holders_key_is_deleted(host: ConsulHost, consul: Consul, another: Callable[[], Consul]) -> None:
    """Its session has ended by itself: the key is free, and still says who held it."""
    session = consul.create_session("Consul lock for 'svcagent reload web' at 'stale'", SESSION_TTL)
    with make_lock(consul, "stale") as lock:
        lock.acquire(soon())
        host.ask.put(f"/v1/session/destroy/{lock.session}")
        assert "stale/.lock" in pairs(host)
        release_dead_session(another(), "stale", session)

        assert "stale/.lock" not in pairs(host)


def test_own_sessions_are_this_node_s_for_this_lock(consul: Consul, another: Callable[[], Consul]) -> None:
    node = consul.agent_self().node
    theirs = consul.create_session("Consul lock for 'sleep 600' at 'mine'", SESSION_TTL)
    with make_lock(consul, "mine") as lock, make_lock(another(), "mine2") as other:
        assert own_sessions(consul, node, "mine", "svcagent reload web") == ()
        lock.acquire(soon())
        other.acquire(soon())

        assert own_sessions(consul, node, "mine", "svcagent reload web") == (lock.session,)
        assert own_sessions(consul, "elsewhere", "mine", "svcagent reload web") == ()
        assert own_sessions(consul, node, "mine", "svcagent reload another") == ()
    consul.destroy_session(theirs)


def test_a_silent_consul_loses_the_lock(host: ConsulHost, consul: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
    """15 s after the last renewal that a frozen server answered nobody may trust the lock; thawed, it is still held."""
    monkeypatch.setattr("agent.consul.transport.ANSWER_SECONDS", 2.0)
    with make_lock(consul, "frozen") as lock:
        lock.acquire(soon())
        host.server.freeze()
        try:
            threading.Event().wait(SESSION_TTL / 3)
            assert not lock.is_lost
            wait_until(lambda: lock.is_lost, SESSION_TTL, "it counts as lost")
            with pytest.raises(Unreachable):
                lock.check_held()
        finally:
            host.server.thaw()
        # The servers had not heard of it for less than they allow: it was kept, and is renewed.
        wait_until(lambda: not lock.is_lost, 20, "it is known to be held")
        lock.check_held()


def test_a_restarted_consul_keeps_the_line(host: ConsulHost, consul: Consul, another: Callable[[], Consul]) -> None:
    """The place in the line is kept: the entry and its session are in Consul's log."""
    with make_lock(consul, "restarted") as lock, make_lock(another(), "restarted") as second:
        lock.acquire(soon())
        waiter = threading.Thread(target=lambda: second.acquire(soon(60)))
        waiter.start()
        wait_until(lambda: len(pairs(host, "svcagent/restarted/queue/")) == 1, 10, "it stands in the line")
        session = second.session
        host.server.restart()

        wait_until(lambda: _is_held_again(host, lock), 20, "Consul knows of it")
        lock.release()
        waiter.join(20)
        assert not waiter.is_alive()
        assert second.session == session
        second.check_held()


def _is_held_again(host: ConsulHost, lock: Lock) -> bool:
    """A server that has just started says 404 of what it has not read from its log yet."""
    with suppress(LabError):
        return holder(host, "restarted") == lock.session
    return False


def test_an_unreleased_lock_is_reported(host: ConsulHost, consul: Consul, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody renews it any more, so it ends by itself."""
    monkeypatch.setattr("agent.consul.transport.ANSWER_SECONDS", 0.5)
    lock = make_lock(consul, "stuck")
    lock.acquire(soon())
    session = lock.session
    host.server.freeze()
    try:
        with pytest.raises(Unreachable, match="ends by itself within 30 s"):
            lock.release()
    finally:
        host.server.thaw()
    lock.release()
    assert lock.session is None
    release_dead_session(consul, "stuck", str(session))


def test_a_session_that_a_new_leader_has_not_read_of_is_not_gone() -> None:
    """For a moment it says 404 of what is in its log; asked consistently, it knows, or says that it does not."""
    asked: list[str] = []

    def serve(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            asked.append(request.decode().split(" HTTP", 1)[0])
            is_known = len(asked) > 2
            is_found = asked[-1].startswith("GET") or is_known
            body = b'[{"ID":"0d","Name":"x","Node":"n"}]' if is_found else b"Session id '0d' not found"
            status = b"200 OK" if is_found else b"404 Not Found"
            head = b"HTTP/1.1 %s\r\nX-Consul-Index: 1\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
            connection.sendall(head + body)

    with Listener(serve) as listener, consul_at(f"127.0.0.1:{listener.port}") as consul:
        assert consul.renew_session("0d")

    assert asked == ["PUT /v1/session/renew/0d", "GET /v1/session/info/0d?consistent=1", "PUT /v1/session/renew/0d"]
