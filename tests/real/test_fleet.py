"""What hosts tell each other, on a real Consul: documents there and back, races, rights."""

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest

from agent.clock import Deadline, SystemClock
from agent.consul import Consul, Lock
from agent.errors import Conflict, Denied
from agent.fleet import (
    FleetView,
    HostState,
    HostStatus,
    InstanceKey,
    Past,
    Pause,
    Pin,
    Quarantine,
    VersionAction,
    agree,
    alive_sessions,
    find_suspects,
    history,
    host_state,
    observe,
    pause,
    quarantine,
    remove_departed,
    rollout,
    suspect,
    write_host_state,
)
from agent.fleet.document import ERROR_BYTES, LOG_BYTES
from tests.lab.ground import wait_until
from tests.real.access_fixture import Access, asked, consul_with
from tests.real.conftest import ConsulHost
from tests.support.kinds import raises_kind
from tests.support.threads import concurrently

T = TypeVar("T")

CLOCK = SystemClock()
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
OLD, PINNED, NEW = (f"sha256:{digit * 64}" for digit in "012")
IMAGE = "registry.example.com/web:latest"
HOSTS = 8


@pytest.fixture
def service(number: int) -> str:
    """A name of its own for a test."""
    return f"web{number}"


@pytest.fixture
def consuls(host: ConsulHost) -> Iterator[list[Consul]]:
    connections = [Consul(host.settings) for _ in range(HOSTS)]
    yield connections
    for one in connections:
        one.close()


def _digest(begin: str) -> str:
    return f"sha256:{begin:0<64}"


def _webs(*nodes: str) -> frozenset[InstanceKey]:
    return frozenset((node, "web") for node in nodes)


def _at_once(consuls: list[Consul], act: Callable[[int, Consul], T]) -> list[T]:
    """Every host does this at the same moment; what each got."""
    return concurrently(lambda pair: act(*pair), list(enumerate(consuls)))


def test_every_document_is_read_as_it_was_written(consul: Consul, service: str) -> None:
    """Whatever it is written in; and a view has them all."""
    pinned = Pin(IMAGE, PINNED, "host1", NOW)
    entry = Quarantine(PINNED, "host1", NOW, "nicht bereit: größer, 日本", IMAGE, "line 1\nline 2")
    stop = Pause("alice", "host1", "größer", NOW, NOW + timedelta(hours=2))
    state = HostState(PINNED, HostStatus.ROLLED_BACK, NOW, "latest", "ab12", "ready", "not ready", "web-1")
    assert observe(consul, service, NOW) == FleetView()

    assert rollout.pin(consul, service, pinned, 0) == pinned
    assert quarantine.put(consul, service, entry) == entry
    assert pause.put(consul, service, stop, NOW) is None
    write_host_state(consul, service, "host1", state)

    view = observe(consul, service, NOW)
    assert view == FleetView(pinned, view.pin_index, {("host1", "web-1"): state}, {PINNED: entry}, stop)
    assert quarantine.find(consul, service, PINNED) == entry
    assert quarantine.find(consul, service, NEW) is None
    assert pause.find(consul, service, NOW) == stop
    assert observe(consul, service, NOW + timedelta(hours=2)).pause is None
    assert quarantine.clear(consul, service, PINNED) == entry
    assert quarantine.clear(consul, service, PINNED) is None
    assert pause.clear(consul, service) == stop
    assert pause.clear(consul, service) is None


def test_documents_are_small_json_with_a_version(host: ConsulHost, consul: Consul, service: str) -> None:
    quarantine.put(consul, service, Quarantine(PINNED, "host1", NOW, "w" * 9000, IMAGE, "line\n" * 10_000))
    write_host_state(consul, service, "host1", HostState(PINNED, "running", NOW, error="e" * 9000))

    raw = host.ask.get(f"/v1/kv/svcagent/{service}/quarantine/sha256-{PINNED[7:]}?raw")
    assert raw["v"] == 1
    assert len(raw["log"]) <= LOG_BYTES
    assert raw["log"].endswith("line\nline")
    state = host.ask.get(f"/v1/kv/svcagent/{service}/hosts/host1?raw")
    assert len(state.pop("error")) == ERROR_BYTES
    assert state == {"v": 1, "digest": PINNED, "state": "running", "since": "2026-05-01T12:00:00+00:00"}


def test_a_host_with_nothing_to_do_notifies_once(consul: Consul, service: str) -> None:
    """Every ten minutes from cron: no write, and since stays; another digest, tag or state is told."""
    for digest, tag in ((OLD, "latest"), (NEW, "latest"), (NEW, "stable")):
        host_state.note_running(consul, service, "h1", "web", digest, tag, NOW)
        index, _ = consul.kv_get(f"svcagent/{service}/hosts/h1/web")
        host_state.note_running(consul, service, "h1", "web", digest, tag, NOW + timedelta(hours=1))
        assert consul.kv_get(f"svcagent/{service}/hosts/h1/web")[0] == index
    write_host_state(consul, service, "h1", HostState(NEW, HostStatus.ROLLED_BACK, NOW, "stable", service_id="web"))
    host_state.note_running(consul, service, "h1", "web", NEW, "stable", NOW)

    assert host_state.read_all(consul, service) == {
        ("h1", "web"): HostState(NEW, "running", NOW, "stable", service_id="web", seen=NOW)
    }


def test_a_service_is_not_shown_what_belongs_to_one_with_a_longer_name(consul: Consul, service: str) -> None:
    """A prefix of keys ends where the service's name does."""
    write_host_state(consul, f"{service}-other", "host1", HostState(OLD, "running", NOW))

    assert observe(consul, service, NOW) == FleetView()


def test_damaged_documents_hold_the_fleet_and_can_be_cleared(host: ConsulHost, consul: Consul, service: str) -> None:
    """Nobody takes them for absent; the verbs' calls take them away."""
    for name in (f"quarantine/{PINNED}", "pause", "rollout", "hosts/host1"):
        host.ask.put(f"/v1/kv/svcagent/{service}/{name}", {"v": 99})

    view = observe(consul, service, NOW)
    assert view.pin is not None
    assert view.pin.problem
    assert view.pause is not None
    assert PINNED in view.quarantine
    assert view.hosts["host1", ""].state == HostStatus.UNREADABLE
    entry = Quarantine(PINNED, "host2", NOW, "w")
    assert quarantine.put(consul, service, entry).node == ""
    with raises_kind(Conflict, "paused-already"):
        pause.put(consul, service, Pause("alice", "host1", "w", NOW), NOW)

    assert quarantine.clear(consul, service, PINNED) is not None
    assert pause.clear(consul, service) is not None
    decision, _view = agree(consul, service, "host2", IMAGE, NEW, OLD, _webs("host1", "host2"), CLOCK)
    assert (decision.wanted, decision.action) == (NEW, VersionAction.REPLACE)
    found, _index = rollout.find(consul, service)
    assert found is not None
    assert found.digest == NEW


def test_instances_of_one_host_do_not_overwrite_each_other(consul: Consul, service: str) -> None:
    """Whatever their IDs hold; and the first write of one replaces the document of an earlier release."""
    old = HostState(OLD, "running", NOW)
    write_host_state(consul, service, "host 1", old)
    assert host_state.read_all(consul, service) == {("host 1", ""): old}
    states = {
        ("host 1", service_id): HostState(digest, "running", NOW, service_id=service_id, is_settled=True, session="s")
        for service_id, digest in (("web:8080", NEW), ("web/é", OLD))
    }
    for (node, _service_id), state in states.items():
        write_host_state(consul, service, node, state)

    assert host_state.read_all(consul, service) == states
    assert all(re.fullmatch(r"[A-Za-z0-9,._/=-]+", one) for one in consul.kv_keys(f"svcagent/{service}/"))


def test_names_that_differ_by_case_are_one_service(consul: Consul, service: str) -> None:
    """And a pause or quarantine of an earlier release, under the name with capitals, holds and can be cleared."""
    capital = service.capitalize()
    quarantine.put(consul, capital, Quarantine(NEW, "h1", NOW, "w"))
    pause.put(consul, capital, Pause("alice", "h1", "w", NOW), NOW)
    rollout.pin(consul, capital, Pin(IMAGE, NEW, "h1", NOW), 0)
    view = observe(consul, service, NOW)
    assert (list(view.quarantine), view.pause is not None, view.pin is not None) == ([NEW], True, True)
    assert pause.clear(consul, service) is not None
    assert quarantine.clear(consul, service, NEW) is not None

    for name in (f"quarantine/{PINNED}", "pause"):
        consul.kv_put(f"svcagent/{capital}/{name}", json.dumps({"v": 99}))
    assert list(observe(consul, capital, NOW).quarantine) == [PINNED]
    assert observe(consul, capital, NOW).pause is not None
    assert quarantine.put(consul, capital, Quarantine(PINNED, "h2", NOW, "w")).node == ""
    assert quarantine.clear(consul, capital, PINNED) is not None
    mine = Pause("alice", "h1", "w", NOW)
    pause.put(consul, capital, mine, NOW, is_replacing=True)
    assert pause.find(consul, capital, NOW) == pause.find(consul, service, NOW) == mine
    assert pause.clear(consul, capital) == mine
    assert consul.kv_keys(f"svcagent/{capital}/") == ()


def test_documents_of_departed_hosts_are_removed(host: ConsulHost, consul: Consul, service: str) -> None:
    """Not of a host that was seen lately, or is in the catalog, nor ones that do not say how old they are."""
    own = consul.agent_self().node
    long_ago = NOW - timedelta(days=31)
    for node in ("gone", "known", own):
        state = HostState(OLD, "running", long_ago, service_id="web")
        write_host_state(consul, service, node, state)
        history.publish(consul, service, replace(_past(1, node), began=long_ago))
    write_host_state(consul, service, "idle", HostState(OLD, "running", long_ago, service_id="web", seen=NOW))
    write_host_state(consul, service, "late", HostState(OLD, "running", long_ago, service_id="web"))
    history.publish(consul, service, replace(_past(1, "late"), began=NOW))
    consul.kv_put(f"svcagent/{service}/hosts/newer/web", json.dumps({"v": 2}))
    host.ask.put("/v1/catalog/register", {"Node": "known", "Address": "127.0.0.9"})
    try:
        assert remove_departed(consul, service, own, NOW) == ("gone",)
        assert remove_departed(consul, service, own, NOW) == ()
    finally:
        host.ask.put("/v1/catalog/deregister", {"Node": "known"})

    assert {node for node, _id in host_state.read_all(consul, service)} == {"known", own, "idle", "late", "newer"}
    assert {past.node for past in history.read(consul, service, 10)} == {"known", own, "late"}
    assert remove_departed(consul, service, "not-in-the-catalog", NOW) == ()


@pytest.mark.parametrize("limit", [1, 2])
def test_a_version_is_suspect_once_the_session_of_its_reload_is_gone(consul: Consul, service: str, limit: int) -> None:
    """While the lock is held it is a reload like any other; both forms of the lock."""
    prefix, own = f"{service}_lock", ("own", "web")
    sessions: list[str] = []
    second = consul.another()
    lock = Lock(
        second,
        prefix,
        "svcagent reload web",
        {"node": "h1"},
        CLOCK,
        limit=limit,
        queue=f"svcagent/{service}/queue",
        on_session=sessions.append,
    )
    taking = HostState(OLD, "reloading", NOW, step="ready", service_id="web", wanted=NEW)
    with closing(second), lock:
        lock.acquire(Deadline.after(CLOCK, 10))
        write_host_state(consul, service, "h1", replace(taking, session=sessions[-1]))
        assert alive_sessions(consul, prefix) == {sessions[-1]}
        assert find_suspects(consul, service, prefix, NEW, own) == ()
        assert suspect.find_all_suspects(consul, service, None) == ()

    [found] = find_suspects(consul, service, prefix, NEW, own)
    assert (found.node, found.step) == ("h1", "ready")
    assert find_suspects(consul, service, prefix, OLD, own) == ()
    assert find_suspects(consul, service, prefix, NEW, ("h1", "web")) == ()
    assert suspect.find_all_suspects(consul, service, None) == (found,)
    assert not suspect.clear(consul, service, replace(found, step="drain"))
    assert suspect.clear(consul, service, found)
    assert find_suspects(consul, service, prefix, NEW, own) == ()


def test_a_pause_belongs_to_the_operator_who_set_it(consul: Consul, service: str) -> None:
    """Asked again: nothing to do, or its end moves; another's stands until it is replaced, lifted or over."""
    mine = Pause("alice", "host1", "release", NOW, NOW + timedelta(hours=1))
    longer = Pause("alice", "host1", "release", NOW + timedelta(minutes=5), NOW + timedelta(hours=2))
    bobs = Pause("bob", "host2", "disk", NOW)
    pause.put(consul, service, mine, NOW)

    assert pause.put(consul, service, mine, NOW) == mine
    assert pause.put(consul, service, longer, NOW) == mine
    held = pause.find(consul, service, NOW)
    assert held is not None
    assert (held.since, held.until) == (NOW, longer.until)
    with raises_kind(Conflict, "paused-already"):
        pause.put(consul, service, bobs, NOW)
    assert pause.put(consul, service, bobs, NOW, is_replacing=True) == held
    assert pause.put(consul, service, Pause("carol", "host3", "x", NOW), NOW, is_replacing=True) == bobs


def test_an_expired_pause_is_replaced(consul: Consul, service: str) -> None:
    pause.put(consul, service, Pause("alice", "host1", "w", NOW, NOW + timedelta(hours=1)), NOW)
    later = NOW + timedelta(hours=1)

    assert pause.put(consul, service, Pause("bob", "host2", "w", later), later) is None


def test_of_many_concurrent_pauses_one_succeeds(consuls: list[Consul], service: str) -> None:
    def stop(number: int, consul: Consul) -> str:
        try:
            pause.put(consul, service, Pause(f"user{number}", "h", "w", NOW), NOW)
        except Conflict as error:
            return str(error)
        return ""

    results = _at_once(consuls, stop)

    assert results.count("") == 1
    winner = results.index("")
    assert all(f"already paused by user{winner} on h" in one for one in results if one)


def test_of_many_who_find_an_image_broken_the_first_entry_stays(consuls: list[Consul], service: str) -> None:
    entries = _at_once(
        consuls, lambda number, consul: quarantine.put(consul, service, Quarantine(PINNED, f"h{number}", NOW, "w"))
    )

    assert len({entry.node for entry in entries}) == 1
    assert quarantine.read_all(consuls[0], service) == {PINNED: entries[0]}


def test_of_many_who_pin_one_does_and_all_know_which(consuls: list[Consul], service: str) -> None:
    stands = _at_once(
        consuls, lambda number, consul: rollout.pin(consul, service, Pin(IMAGE, _digest(f"{number}"), "h", NOW), 0)
    )

    assert len(set(stands)) == 1
    assert rollout.find(consuls[0], service)[0] == stands[0]


def test_hosts_whose_tag_moves_under_them_agree_on_one_digest(consuls: list[Consul], service: str) -> None:
    """Each has seen another digest under the tag, and all decide at the same moment."""
    nodes = [f"h{number}" for number in range(HOSTS)]
    for node in nodes:
        write_host_state(consuls[0], service, node, HostState(OLD, "running", NOW))

    def take(number: int, consul: Consul) -> str:
        decision, view = agree(consul, service, nodes[number], IMAGE, _digest(f"a{number}"), OLD, _webs(*nodes), CLOCK)
        assert {node for node, _service_id in view.hosts} == set(nodes)
        return decision.wanted

    first = _at_once(consuls, take)
    assert len(set(first)) == 1

    for node in nodes:
        write_host_state(consuls[0], service, node, HostState(first[0], "running", CLOCK.now()))

    def take_next(number: int, consul: Consul) -> str:
        decision, _view = agree(
            consul, service, nodes[number], IMAGE, _digest(f"b{number}"), first[0], _webs(*nodes), CLOCK
        )
        return decision.wanted

    second = _at_once(consuls, take_next)
    assert len(set(second)) == 1
    assert second[0].startswith("sha256:b")


def test_a_pin_that_was_replaced_meanwhile_is_not_overwritten(consul: Consul, service: str) -> None:
    """An index of an earlier look does not count any more."""
    rollout.pin(consul, service, Pin(IMAGE, OLD, "a", NOW), 0)
    _found, index = rollout.find(consul, service)
    theirs = Pin(IMAGE, PINNED, "b", NOW)
    assert rollout.pin(consul, service, theirs, index) == theirs

    assert rollout.pin(consul, service, Pin(IMAGE, NEW, "a", NOW), index) == theirs


def _past(number: int, node: str = "h1") -> Past:
    began = NOW + timedelta(minutes=number)
    return Past(f"id{number}", node, began, "reloaded", IMAGE, OLD, NEW, (("check", 0.1), ("ready", 3.25)))


def test_history_is_bounded_by_host_and_the_newest_comes_first_over_all(consul: Consul, service: str) -> None:
    """Told twice it is there once; a host's own comes alone."""
    for number in range(history.KEPT_PER_HOST + 3):
        history.publish(consul, service, _past(number))
    history.publish(consul, service, _past(history.KEPT_PER_HOST + 2))
    other = _past(10, node="h2")
    history.publish(consul, service, other)

    own = history.read(consul, service, 100, "h1")
    assert own == [_past(number) for number in reversed(range(3, history.KEPT_PER_HOST + 3))]
    everything = history.read(consul, service, 100)
    assert len(everything) == history.KEPT_PER_HOST + 1
    assert other in everything
    moments = [one.began for one in everything]
    assert moments == sorted(moments, key=lambda moment: moment or NOW, reverse=True)
    assert history.read(consul, service, 2) == everything[:2]
    assert history.read(consul, "nobody", 2) == []


def test_a_damaged_past_is_one_row_and_says_so(host: ConsulHost, consul: Consul, service: str) -> None:
    history.publish(consul, service, _past(1))
    host.ask.put(f"/v1/kv/svcagent/{service}/history/h2/20990101T000000Z-x", [])

    damaged, whole = history.read(consul, service, 10)
    assert (damaged.node, damaged.outcome) == ("h2", history.UNREADABLE)
    assert whole == _past(1)


def test_a_tree_can_be_waited_for(host: ConsulHost, consul: Consul, service: str) -> None:
    """A change below it, the first one too, ends the wait at once; none, and it ends when its time is over."""
    index, empty = consul.kv_tree(f"svcagent/{service}/hosts/")
    assert empty == ()
    timer = threading.Timer(0.2, lambda: host.ask.put(f"/v1/kv/svcagent/{service}/hosts/h1", {"v": 1}))
    timer.start()
    began = time.monotonic()
    while not (pairs := consul.kv_tree(f"svcagent/{service}/hosts/", index, 10)[1]):
        assert time.monotonic() - began < 9
    timer.join()

    assert [pair.key for pair in pairs] == [f"svcagent/{service}/hosts/h1"]
    assert json.loads(pairs[0].value) == {"v": 1}
    assert consul.kv_keys(f"svcagent/{service}/") == (f"svcagent/{service}/hosts/h1",)
    assert consul.kv_keys(f"svcagent/{service}/", "/") == (f"svcagent/{service}/hosts/",)


MASTER = str(uuid.uuid4())


@pytest.fixture(scope="module")
def denying() -> Iterator[Access]:
    """An agent that denies by default, with a host's state, a quarantine and a pin in it."""
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER}}
    with consul_with({"acl": acl}) as access:
        with access.connection(CONSUL_HTTP_TOKEN=MASTER) as consul:
            wait_until(lambda: _may_write(consul), 20, "the ACLs are in force")
            quarantine.put(consul, "web", Quarantine(PINNED, "h1", NOW, "w"))
        yield access


def _may_write(consul: Consul) -> bool:
    try:
        return consul.kv_put("svcagent/web/hosts/h1", "{}")
    except Denied:
        return False


def test_a_token_without_key_read_gets_an_error_instead_of_an_empty_list(denying: Access) -> None:
    """Consul leaves them out of a tree without a word; svcagent names the rule."""
    with asked(denying.address, MASTER) as ask:
        ask.put("/v1/acl/policy", {"Name": "blind", "Rules": 'key_prefix "other/" { policy = "write" }'})
        token = ask.put("/v1/acl/token", {"Policies": [{"Name": "blind"}]})["SecretID"]
    with denying.connection(CONSUL_HTTP_TOKEN=token) as consul:
        for ask_for in (
            lambda: observe(consul, "web", NOW),
            lambda: host_state.read_all(consul, "web"),
            lambda: quarantine.read_all(consul, "web"),
            lambda: history.read(consul, "web", 5),
            lambda: consul.kv_keys("svcagent/"),
        ):
            with pytest.raises(Denied, match=r'key_prefix "svcagent/(web/)?" \{ policy = "(write|read)" \}'):
                ask_for()


def test_the_shipped_rule_for_keys_suffices(denying: Access) -> None:
    """All that hosts tell each other, with that rule and nothing else."""
    with asked(denying.address, MASTER) as ask:
        ask.put("/v1/acl/policy", {"Name": "shipped", "Rules": 'key_prefix "svcagent/" { policy = "write" }'})
        token = ask.put("/v1/acl/token", {"Policies": [{"Name": "shipped"}]})["SecretID"]
    with denying.connection(CONSUL_HTTP_TOKEN=token) as consul:
        assert PINNED in observe(consul, "web", NOW).quarantine
        assert observe(consul, "empty", NOW) == FleetView()
        agree(consul, "web", "h1", IMAGE, NEW, OLD, _webs("h1"), CLOCK)
        write_host_state(consul, "web", "h1", HostState(NEW, "running", NOW))
        history.publish(consul, "web", _past(1))
        pause.put(consul, "web", Pause("alice", "h1", "w", NOW), NOW)
        assert pause.clear(consul, "web") is not None
        assert quarantine.clear(consul, "web", PINNED) is not None
