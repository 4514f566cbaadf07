"""Who stands where in the line, who is on a semaphore's list, and how a holder is told of."""

import json
from typing import cast

import pytest

from agent.consul.client import Consul
from agent.consul.lock.forms import LOCK_FLAGS, SEMAPHORE_FLAGS, read_list
from agent.consul.lock.holder import Holder, encode, parse
from agent.consul.lock.queue import Entry, Queue, QueuePlace, find_dead_end, find_place, order, queue_of, turn_of
from agent.consul.model import KvPair
from agent.errors import Conflict


def _line(text: str) -> list[Entry]:
    """Letters in order of arrival; a capital is alive, a small one dead."""
    return [
        Entry(f"q/{letter}", letter if letter.isupper() else None, at, at, parse(letter, b""))
        for at, letter in enumerate(text, 10)
    ]


@pytest.mark.parametrize(
    ("line", "who", "number", "before", "dead"),
    [
        ("A", "A", 1, None, ""),
        ("AB", "B", 2, "A", ""),
        ("ABC", "B", 2, "A", ""),
        ("aB", "B", 1, None, "a"),
        ("AbC", "C", 2, "A", "b"),
        ("AbCdeF", "F", 3, "C", "de"),
        ("AbCdeF", "C", 2, "A", "b"),
        ("abC", "C", 1, None, "ab"),
        ("AbC", "A", 1, None, ""),
    ],
)
def test_everybody_waits_for_the_living_one_before(line: str, who: str, number: int, before: str, dead: str) -> None:
    """And the dead between the two are its own to clear away, nobody else's."""
    entries = _line(line)
    by_letter = {entry.key[2:]: entry for entry in entries}

    place = find_place(list(reversed(entries)), who)  # Consul lists by key, not by age

    assert place is not None
    assert (place.number, place.before) == (number, by_letter.get(before or ""))
    assert {entry.key[2:] for entry in place.dead} == set(dead)


@pytest.mark.parametrize(("line", "who"), [("", "A"), ("B", "A"), ("Ba", "a"), ("B", None)])
def test_who_has_no_entry_has_no_place(line: str, who: str | None) -> None:
    """Never joined, deleted by hand, or dead: one that is dead does not know it."""
    assert find_place(_line(line), who) is None


@pytest.mark.parametrize(("line", "dead"), [("", ""), ("A", ""), ("Ab", "b"), ("aBcd", "cd"), ("ab", "ab")])
def test_crashed_waiters_at_the_end_are_left_to_the_next_waiter(line: str, dead: str) -> None:
    assert "".join(entry.key[2:] for entry in find_dead_end(_line(line))) == dead


def test_every_stale_entry_is_removed_by_one_waiter() -> None:
    entries = _line("aBcdEFgHij")
    places = [find_place(entries, entry.session) for entry in order(entries)]
    cleared = [entry.key for place in places if isinstance(place, QueuePlace) for entry in place.dead]

    assert sorted([*cleared, *(entry.key for entry in find_dead_end(entries))]) == [f"q/{one}" for one in "acdgij"]


def _pair(key: str, value: str = "", session: str | None = None, flags: int = SEMAPHORE_FLAGS) -> KvPair:
    return KvPair(key, value.encode(), flags, session, 7, 5)


def _list(*holders: str, limit: int = 2) -> KvPair:
    return _pair("p/.lock", json.dumps({"Limit": limit, "Holders": dict.fromkeys(holders, True)}))


@pytest.mark.parametrize(
    ("pairs", "living", "is_any_dead"),
    [
        ([], [], False),
        ([_list()], [], False),
        ([_pair("p/.lock", '{"Limit":2,"Holders":null}')], [], False),
        ([_list("a"), _pair("p/a", session="a")], ["a"], False),
        ([_list("a"), _pair("p/b", session="b")], [], True),
        ([_list("a", "b"), _pair("p/b", session="b")], ["b"], True),
        ([_list("a"), _pair("p/other", session="a")], ["a"], False),
        ([_list("a"), _pair("p/a", session=None)], [], True),
    ],
)
def test_a_holder_without_its_key_has_crashed(pairs: list[KvPair], living: list[str], is_any_dead: bool) -> None:
    """As Consul's own semaphore judges: a key below the prefix that its session holds is a sign of life."""
    found = read_list("p", pairs, 2)

    assert [holder.session for holder in found.living] == living
    assert found.is_any_dead == is_any_dead
    assert found.index == (7 if any(pair.key == "p/.lock" for pair in pairs) else 0)


@pytest.mark.parametrize(
    "pair",
    [
        _pair("p/.lock", '{"Limit":2,"Holders":{}}', flags=LOCK_FLAGS),
        _pair("p/.lock", "", "a", flags=LOCK_FLAGS),
        _pair("p/.lock", "nonsense"),
        _pair("p/.lock", "[]"),
        _pair("p/.lock", '{"Limit":"2"}'),
        _pair("p/.lock", '{"Limit":true}'),
        _pair("p/.lock", '{"Limit":0}'),
        _pair("p/.lock", '{"Limit":-1}'),
        _pair("p/.lock", '{"Limit":NaN}'),
        _pair("p/.lock", f'{{"Limit":{"9" * 400}}}'),
        _pair("p/.lock", f'{{"Limit":{"9" * 4301}}}'),
        _pair("p/.lock", "[" * 50_000 + "]" * 50_000),
        _pair("p/.lock", '{"Limit":2,"Holders":["a"]}'),
        _pair("p/.lock", '{"Limit":2,"Holders":{"a":"true"}}'),
        _pair("p/.lock", '{"Limit":2,"Holders":"a"}'),
        _pair("p/.lock", '{"Limit":2,"Holders":' + '{"a":' * 50_000 + "1" + "}" * 50_001),
        _list(*map(str, range(1001))),
    ],
)
def test_what_is_no_such_list_is_a_conflict(pair: KvPair) -> None:
    """It is somebody's, and may mean that somebody holds it."""
    with pytest.raises(Conflict):
        read_list("p", [pair], 2)


def test_details_come_back_as_they_were_left() -> None:
    details = {
        "node": "h1",
        "pid": 7,
        "command": "svcagent reload",
        "since": "2026-05-01T12:00:00+00:00",
        "step": "drain",
    }

    found = parse("s", encode(details).encode())

    assert json.loads(encode(details))["v"] == 1
    assert str(found) == "h1 (svcagent reload, pid 7, since 12:00:00 UTC, now at drain)"


@pytest.mark.parametrize("value", [b"", b"x", b"[]", b'"h1"', b"\xff", b'{"node": 3}', b'{"node":"h1","step":4}'])
def test_of_a_holder_without_readable_details_the_session_is_known(value: bytes) -> None:
    assert str(parse("s", value)) == "session s"


def test_details_of_the_wrong_kind_are_left_out() -> None:
    found = parse("s", b'{"node":"h1","command":"c","pid":"7","since":"yesterday"}')

    assert str(found) == "h1 (c)"


def test_queue_and_turn_are_shown_side_by_side() -> None:
    assert queue_of("web") == "svcagent/web/queue"
    assert turn_of("svcagent/web/queue") == "svcagent/web/turn"


DEEP = "[" * 50_000 + "]" * 50_000


@pytest.mark.parametrize(
    "value",
    [
        DEEP,
        f'{{"node":{DEEP}}}',
        f'{{"node":"h1","pid":{"9" * 4301}}}',
        '{"node":"\\ud800"}',
        '{"node":7}',
        '{"node":null}',
        '{"node":"\\u001b[2J"}',
        '{"node":"a\\nb"}',
        json.dumps({"node": "h" * 10_000}),
        "NaN",
        "\x00",
        "[]",
        "",
    ],
    ids=lambda value: value[:20],
)
def test_details_that_cannot_be_read_leave_the_session_alone(value: str) -> None:
    for raw in (value.encode(), b"\xff\xfe" + value.encode()):
        assert parse("s", raw) == Holder("s")
        assert str(parse("s", raw)) == "session s"


@pytest.mark.parametrize("pid", ["NaN", "true", "-1", "0", "1e3", '"7"', "9" * 400, "[]"])
def test_a_pid_that_is_none_is_left_out(pid: str) -> None:
    assert parse("s", f'{{"node":"h1","command":"c","pid":{pid}}}'.encode()) == Holder("s", node="h1", command="c")


@pytest.mark.parametrize(
    "since", ['"9999-12-31T23:59:59-23:59"', '"0001-01-01T00:00:00+23:59"', '"2024-01-01T00:00:00"', '"x"', "7", "NaN"]
)
def test_a_time_that_is_none_is_left_out(since: str) -> None:
    assert parse("s", f'{{"node":"h1","command":"c","since":{since}}}'.encode()).since is None


def test_entries_of_the_line_that_cannot_be_read_are_nobodys() -> None:
    values = [DEEP, '{"lock":"p"}', f'{{"lock":"p","pid":{"9" * 4301}}}', '{"lock":["p"]}', "\x00"]
    pairs = tuple(_pair(f"q/{at}", value, session=str(at)) for at, value in enumerate(values))

    class Keys:
        def kv_tree(self, _prefix: str, *, consistent: bool) -> tuple[int, tuple[KvPair, ...]]:
            assert consistent
            return 7, pairs

    queue = Queue(cast("Consul", Keys()), "q", "p")
    assert [entry.key for entry in queue.entries()] == ["q/1"]
