"""The lock of several holders, beside the real ``consul lock -n 2``."""

import json
import threading
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest

from agent.consul import Consul, lock_status
from agent.consul.transport import Transport
from agent.errors import Conflict, LockBusy, LockLost
from agent.http import HttpAnswer
from tests.lab.ground import wait_until
from tests.real.conftest import ConsulHost
from tests.real.lock_fixture import assert_nothing_left, consul_lock, make_lock, pairs, soon
from tests.support.kinds import raises_kind

FLAGS = 0xE0F69A2BAA414DE0


def _listed(host: ConsulHost, prefix: str) -> dict[str, Any]:
    """What the lock's own key says, in Consul's own words."""
    found = pairs(host).get(f"{prefix}/.lock")
    return dict(json.loads(b64decode(found["Value"]))) if found else {}


def _is_held_by(host: ConsulHost, prefix: str, count: int) -> bool:
    return len(_listed(host, prefix).get("Holders", ())) == count


def test_the_keys_are_as_consul_has_them(host: ConsulHost, consul: Consul) -> None:
    """List and contender, both with flags beyond 2**63, which no JSON on the way may round."""
    with make_lock(consul, "wire", 2) as lock:
        lock.acquire(soon())
        found = pairs(host, "wire/")

        assert set(found) == {"wire/.lock", f"wire/{lock.session}"}
        assert {pair["Flags"] for pair in found.values()} == {FLAGS}
        assert found[f"wire/{lock.session}"]["Session"] == lock.session
        assert "Session" not in found["wire/.lock"]
        assert _listed(host, "wire") == {"Limit": 2, "Holders": {lock.session: True}}
        assert host.ask.get(f"/v1/session/info/{lock.session}")[0]["Behavior"] == "delete"
    assert_nothing_left(host, "wire")


def test_two_hold_it_and_the_third_waits(another: Callable[[], Consul]) -> None:
    first, second, third = (make_lock(another(), "three", 2) for _ in range(3))
    with first, second, third:
        first.acquire(soon())
        second.acquire(soon())
        with pytest.raises(LockBusy, match=r"held by here \(.*\), here \(.*place 1"):
            third.acquire(soon(0.2))
        first.check_held()
        second.check_held()

        first.release()
        third.acquire(soon())
        third.check_held()
        with pytest.raises(LockLost):
            first.check_held()


def test_consul_lock_is_the_third(host: ConsulHost, another: Callable[[], Consul]) -> None:
    """Two of ours hold it, ``consul lock -n 2`` waits; after one of them is done it goes on."""
    first, second = (make_lock(another(), "theirs", 2) for _ in range(2))
    with second, first:
        first.acquire(soon())
        second.acquire(soon())
        with consul_lock(host, "theirs", "-n=2", command="true") as taken:
            wait_until(lambda: len(pairs(host, "theirs/")) == 4, 10, "it contends")
            threading.Event().wait(0.3)
            assert taken.poll() is None
            first.release()
            assert taken.wait(30) == 0
        second.check_held()
    assert_nothing_left(host, "theirs")


def test_we_are_the_third(host: ConsulHost, consul: Consul) -> None:
    """Two ``consul lock -n 2`` hold it, we wait and say who they are; after one of them is done we go on."""
    with make_lock(consul, "ours", 2) as lock, consul_lock(host, "ours", "-n=2", command="sleep 601"):
        with consul_lock(host, "ours", "-n=2", command="sleep 602"):
            wait_until(lambda: _is_held_by(host, "ours", 2), 20, "both hold it")
            with pytest.raises(LockBusy, match=r"'sleep 60[12]' at 'ours' on .*, .*'sleep 60[12]'"):
                lock.acquire(soon(0.5))
            waiter = threading.Thread(target=lambda: lock.acquire(soon(30)))
            waiter.start()
            waiter.join(0.3)
            assert waiter.is_alive()
        waiter.join(5)
        assert not waiter.is_alive()
        lock.check_held()
        assert _is_held_by(host, "ours", 2)
    assert_nothing_left(host, "ours")


def test_one_of_each(host: ConsulHost, consul: Consul, another: Callable[[], Consul]) -> None:
    """One of theirs and one of ours hold it; one more of each waits."""
    mine, waiting = make_lock(consul, "mixed", 2), make_lock(another(), "mixed", 2)
    with mine, waiting, consul_lock(host, "mixed", "-n=2"):
        wait_until(lambda: _is_held_by(host, "mixed", 1), 20, "theirs holds it")
        mine.acquire(soon())

        with pytest.raises(LockBusy):
            waiting.acquire(soon(0.3))
        with consul_lock(host, "mixed", "-n=2", "-timeout=1s", command="true") as refused:
            assert refused.wait(30) != 0
        mine.check_held()


def test_a_crashed_holder_of_consul_lock_is_dropped(host: ConsulHost, consul: Consul) -> None:
    """Its session's end deletes its key and leaves the list as it was; there is no lock-delay."""
    with consul_lock(host, "dead", "-n=2"), consul_lock(host, "dead", "-n=2"), make_lock(consul, "dead", 2) as lock:
        wait_until(lambda: _is_held_by(host, "dead", 2), 20, "both hold it")
        dead, alive = sorted(_listed(host, "dead")["Holders"])
        waiter = threading.Thread(target=lambda: lock.acquire(soon(30)))
        waiter.start()
        wait_until(lambda: lock.session is not None, 10, "it waits")
        host.ask.put(f"/v1/session/destroy/{dead}")
        waiter.join(8)

        assert not waiter.is_alive()
        assert set(_listed(host, "dead")["Holders"]) == {alive, lock.session}


def test_consul_lock_drops_our_crashed_holder(host: ConsulHost, another: Callable[[], Consul]) -> None:
    """By ``consul lock`` itself, which finds the list full and a holder without a key."""
    first, second = (make_lock(another(), "ourdead", 2) for _ in range(2))
    with first, second:
        first.acquire(soon())
        second.acquire(soon())
        with consul_lock(host, "ourdead", "-n=2", command="true") as taken:
            wait_until(lambda: len(pairs(host, "ourdead/")) == 4, 10, "it contends")
            host.ask.put(f"/v1/session/destroy/{first.session}")
            assert taken.wait(30) == 0
        second.check_held()
        wait_until(lambda: first.is_lost, 10, "the loss is known")


@pytest.mark.parametrize("what", ["list", "contender"])
def test_a_key_deleted_by_hand_is_noticed(host: ConsulHost, consul: Consul, what: str) -> None:
    """Either of the two is enough to let somebody else in."""
    prefix = f"byhand-{what}"
    with make_lock(consul, prefix, 2) as lock:
        lock.acquire(soon())
        assert not lock.is_lost
        host.ask.delete(f"/v1/kv/{prefix}/{'.lock' if what == 'list' else lock.session}")

        with pytest.raises(LockLost):
            lock.check_held()
        wait_until(lambda: lock.is_lost, 10, "the loss is known")
    assert_nothing_left(host, prefix)


def test_another_limit_is_a_conflict(host: ConsulHost, consul: Consul, another: Callable[[], Consul]) -> None:
    """Two hosts that disagree would let too many run."""
    with make_lock(consul, "limits", 2) as lock:
        lock.acquire(soon())
        with make_lock(another(), "limits", 3) as other, raises_kind(Conflict, "lock-limit-differs"):
            other.acquire(soon())
        with consul_lock(host, "limits", "-n=3", command="true") as theirs:
            assert theirs.wait(20) != 0


def test_the_other_form_is_a_conflict(host: ConsulHost, consul: Consul) -> None:
    with consul_lock(host, "form"):
        wait_until(lambda: "form/.lock" in pairs(host), 20, "theirs holds it")
        with make_lock(consul, "form", 2) as lock, raises_kind(Conflict, "lock-key-in-use"):
            lock.acquire(soon())


def test_details_are_in_the_contender_s_key(host: ConsulHost, consul: Consul) -> None:
    """The list itself is Consul's: there is no room in it."""
    with make_lock(consul, "details", 2) as lock:
        lock.acquire(soon())
        before = pairs(host, "details/")
        lock.update(step="drain", digest="sha256:1")
        after = pairs(host, "details/")

        assert after["details/.lock"] == before["details/.lock"]
        found = json.loads(b64decode(after[f"details/{lock.session}"]["Value"]))
        assert (found["v"], found["node"], found["step"], found["digest"]) == (1, "here", "drain", "sha256:1")
        lock.check_held()
        host.ask.put(f"/v1/session/destroy/{lock.session}")
        with pytest.raises(LockLost):
            lock.update(step="restart")
        assert f"details/{lock.session}" not in pairs(host)


def test_one_of_two_holders_has_the_turn(host: ConsulHost, another: Callable[[], Consul]) -> None:
    """Both hold the lock; draining is for one after the other."""
    first, second = (make_lock(another(), "turns", 2) for _ in range(2))
    done: list[str] = []

    def drain() -> None:
        with second.turn(soon(20)):
            done.append("second")

    with first, second:
        first.acquire(soon())
        second.acquire(soon())
        with first.turn(soon()):
            with raises_kind(LockBusy, "turn-busy"), second.turn(soon(0)):
                pytest.fail("it began")
            waiter = threading.Thread(target=drain)
            waiter.start()
            waiter.join(0.3)
            assert done == []
            done.append("first")
        waiter.join(5)
        assert done == ["first", "second"]
        assert "svcagent/turns/turn" not in pairs(host)
    assert_nothing_left(host, "turns")


def test_the_turn_needs_the_lock(host: ConsulHost, consul: Consul) -> None:
    """Whoever lost it may not begin."""
    with make_lock(consul, "noturn", 2) as lock:
        lock.acquire(soon())
        host.ask.put(f"/v1/session/destroy/{lock.session}")
        wait_until(lambda: lock.is_lost, 10, "the loss is known")
        with pytest.raises(LockLost), lock.turn(soon()):
            pytest.fail("it began")


def test_a_single_holder_needs_no_turn(host: ConsulHost, consul: Consul) -> None:
    with make_lock(consul, "single") as lock:
        lock.acquire(soon())
        with lock.turn(soon()):
            assert "svcagent/single/turn" not in pairs(host)


def test_documents_next_to_locks_are_not_read(
    host: ConsulHost, consul: Consul, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default prefix is the one that all documents of the service have."""
    host.ask.put("/v1/kv/svcagent/beside/history/h1/1", "x" * 100_000)
    real, seen = Transport.get, []

    def get(self: Transport, callback: Callable[[HttpAnswer], Any], path: str, *more: Any) -> Any:
        def read(answer: HttpAnswer) -> Any:
            seen.append((path, len(answer.content)))
            return callback(answer)

        return real(self, read, path, *more)

    monkeypatch.setattr(Transport, "get", get)
    with make_lock(consul, "svcagent/beside", 2) as lock:
        lock.acquire(soon())
        lock.check_held()
        lock.update(step="drain")
        assert lock_status(consul, "svcagent/beside", "svcagent/beside/queue").limit == 2

    assert [path for path, length in seen if length > 10_000] == []
    assert seen
    host.ask.delete("/v1/kv/svcagent/beside/history/h1/1")
    assert_nothing_left(host, "svcagent/beside")


@pytest.mark.parametrize("value", ["[" * 50_000, '{"Limit":2,"Holders":["a"]}', f'{{"Limit":{"9" * 4301}}}', "\x00"])
def test_a_list_that_cannot_be_read_is_a_conflict(host: ConsulHost, consul: Consul, value: str) -> None:
    consul.kv_put("unread/.lock", value, flags=FLAGS)
    with make_lock(consul, "unread", 2) as lock, pytest.raises(Conflict):
        lock.acquire(soon())
    assert pairs(host, "unread/").keys() == {"unread/.lock"}
    host.ask.delete("/v1/kv/unread/.lock")
