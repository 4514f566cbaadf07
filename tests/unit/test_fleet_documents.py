"""Documents as they are read: whole, damaged, from a newer svcagent. No Consul."""

import json
import re
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.consul import KvPair
from agent.engine.model import Fetched
from agent.errors import SvcagentError
from agent.fleet import (
    FleetView,
    HostState,
    HostStatus,
    Past,
    Pause,
    SeenDigests,
    VersionAction,
    decide,
    history,
    host_state,
    is_first,
    pause,
    quarantine,
    rollout,
    state_of,
    suspect,
    suspects,
)
from agent.fleet.document import LONGEST_DOCUMENT, bounded, key, quoted, readable_keys, unquoted
from agent.fleet.host_state import refreshed

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DIGEST, OTHER = (f"sha256:{digit * 64}" for digit in "12")
WHOLE: dict[str, Any] = {
    "v": 1,
    "digest": DIGEST,
    "node": "a",
    "image": "web:latest",
    "by": "alice",
    "host": "a",
    "why": "broken",
    "state": "running",
    "since": "2026-05-01T12:00:00+00:00",
}

DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"v": 2}',
    b"{}",
    json.dumps(WHOLE | {"since": "yesterday"}).encode(),
    json.dumps(WHOLE | {"since": "2026-05-01T12:00:00"}).encode(),
    json.dumps(WHOLE | {"since": "0001-01-01T00:00:00+14:00"}).encode(),
    json.dumps(WHOLE | {"since": 7}).encode(),
    b'{"v": true}',
    b'{"v": 1, "since": ' + b"9" * 5000 + b"}",
    b'{"v": ' + b"9" * 400 + b"}",
    b'{"v": 1, "since": ' + b'{"a":' * 200 + b"1" + b"}" * 201,
    b'{"v": 1, "steps": NaN}',
    b'{"v": 1, "why": "' + b"x" * 70_000 + b'"}',
    json.dumps(WHOLE | {"since": "9999-12-31T23:59:59+00:00"}).encode(),
    json.dumps(WHOLE | {"since": "1999-12-31T23:59:59+00:00"}).encode(),
    json.dumps({name: value for name, value in WHOLE.items() if name != "since"}).encode(),
]


def _pair(key: str, value: bytes) -> KvPair:
    return KvPair(f"svcagent/web/{key}", value, 0, None, 7, 7)


@pytest.mark.parametrize("value", DAMAGED)
def test_what_cannot_be_read_counts_as_set_where_that_is_safe(value: bytes) -> None:
    """A quarantine and a pause hold, a state runs nothing, a pin has no digest; each says which document it is."""
    held = quarantine.parse(_pair(f"quarantine/sha256-{'1' * 64}", value))
    assert held.digest == DIGEST
    assert f"svcagent/web/quarantine/sha256-{'1' * 64} cannot be read" in held.why

    stopped = pause.in_force([_pair("pause", value)], NOW)
    assert stopped is not None
    assert "svcagent/web/pause cannot be read" in stopped.why
    assert not stopped.has_same_cause(stopped)

    state = host_state.parse(_pair("hosts/a", value))
    assert (state.digest, state.state) == ("", HostStatus.UNREADABLE)
    assert "svcagent/web/hosts/a cannot be read" in state.error

    pinned = rollout.parse(_pair("rollout", value))
    assert pinned.digest == ""
    assert "svcagent/web/rollout cannot be read" in pinned.problem


def test_a_newer_version_is_reported_as_newer() -> None:
    assert (
        "its version is 2, but this svcagent reads only 1; upgrade svcagent"
        in rollout.parse(_pair("x", b'{"v":2}')).problem
    )


def test_fields_that_are_not_known_are_no_fault() -> None:
    value = json.dumps(WHOLE | {"mood": "good"}).encode()

    assert quarantine.parse(_pair(f"quarantine/{DIGEST}", value)).node == "a"
    assert rollout.parse(_pair("rollout", value)).digest == DIGEST
    assert host_state.parse(_pair("hosts/a", value)).since == NOW
    assert pause.parse(_pair("pause", value)).by == "alice"


def test_a_pause_expires_at_its_end() -> None:
    """Then it counts as not set; without an end it never is."""
    for until, counts in ((NOW, False), (NOW + timedelta(seconds=1), True), (None, True)):
        text = json.dumps(WHOLE | ({"until": until.isoformat()} if until else {})).encode()
        assert (pause.in_force([_pair("pause", text)], NOW) is not None) is counts
    assert "until" not in Pause("alice", "a", "w", NOW).describe()


def test_a_long_log_keeps_its_end_and_loses_what_moves_a_cursor() -> None:
    """Bytes count, not characters, and none is cut in two."""
    assert bounded("é" * 10, 5) == "éé"
    assert bounded("a\x1b[2Jb\r\n\tc\n", 100) == "a[2Jb\n\tc"


def _past(number: int, **more: Any) -> Past:
    return Past(f"id{number}", "a", NOW + timedelta(minutes=number), "reloaded", **more)


def test_history_on_disk_is_bounded_private_and_comes_back_newest_first(tmp_path: Path) -> None:
    """Beyond the limit the oldest go; what was written is what is read."""
    (tmp_path / "history-web.jsonl").write_text("\n".join(["x"] * (history.KEPT_ON_DISK - 1)) + "\n")
    first = _past(1, steps=(("check", 0.25), ("ready", 3.0)), before=f"sha256:{'0' * 64}", after=DIGEST, error="né\nx")
    history.write_to_disk(tmp_path, "web", first)
    history.write_to_disk(tmp_path, "web", _past(2))

    file = tmp_path / "history-web.jsonl"
    assert len(file.read_text().splitlines()) == history.KEPT_ON_DISK
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = history.read_from_disk(tmp_path, "web", 3)
    assert found[:2] == [_past(2), first]
    assert found[2].outcome == history.UNREADABLE
    assert first.seconds == 3.25
    assert history.read_from_disk(tmp_path, "other", 3) == []


def test_a_history_that_cannot_be_written_says_which_file(tmp_path: Path) -> None:
    (tmp_path / "history-web.jsonl").mkdir()

    with pytest.raises(SvcagentError, match=r"history-web\.jsonl"):
        history.write_to_disk(tmp_path, "web", _past(1))


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:1",
        "latest",
        '"$(id)"',
        f"sha256:{'1' * 63}\0",
        f"sha256:{'A' * 64}",
        f"sha256:{'1' * 65}",
        f"sha256:{'1' * 64}\n",
        f" sha256:{'1' * 64}",
        f"sha512:{'1' * 128}",
    ],
)
def test_a_pin_without_a_valid_digest_is_never_followed_and_says_who_wrote_it(digest: str) -> None:
    """It counts as no pin, so the newest replaces it; an empty one, too."""
    pinned = rollout.parse(_pair("rollout", json.dumps(WHOLE | {"digest": digest, "node": "mallory"}).encode()))

    assert (pinned.digest, pinned.node) == ("", "mallory")
    assert "svcagent/web/rollout cannot be read" in pinned.problem
    decision = decide(FleetView(pinned, 7), "web:latest", DIGEST, "", (), NOW)
    assert (decision.wanted, decision.action) == (DIGEST, VersionAction.REPLACE)
    assert "mallory" in decision.why


@pytest.mark.parametrize("field", ["node", "image"])
@pytest.mark.parametrize("value", ["x" * 256, "a\x1b[2Jb", "a\u202eb", "a\nb", "\ud800", 7, None, ["a"], ""])
def test_names_are_short_and_printable(field: str, value: object) -> None:
    assert rollout.parse(_pair("rollout", json.dumps(WHOLE | {field: value}).encode())).problem


@pytest.mark.parametrize(
    "steps",
    [
        [["ready", 10**400]],
        [["ready", -1]],
        [["ready", True]],
        [["ready", "1"]],
        [["ready"]],
        [[["ready"], 1]],
        ["ab"],
        {"ready": 1},
        [["x", 1]] * 101,
        1,
    ],
)
def test_steps_are_bounded(steps: object, tmp_path: Path) -> None:
    """A page of history with others is one row that says so."""
    fields = {"v": 1, "id": "x", "node": "a", "began": NOW.isoformat(), "outcome": "reloaded", "steps": steps}
    (tmp_path / "history-web.jsonl").write_text(f"{json.dumps(fields)}\n{json.dumps(fields | {'steps': []})}\n")

    whole, damaged = history.read_from_disk(tmp_path, "web", 5)
    assert (whole.outcome, damaged.outcome) == ("reloaded", history.UNREADABLE)


def test_an_infinite_number_is_not_a_number_of_seconds(tmp_path: Path) -> None:
    """JSON has no infinity, but a large exponent becomes one."""
    text = f'{{"v":1,"id":"x","node":"a","began":"{NOW.isoformat()}","outcome":"reloaded","steps":[["ready",1e999]]}}'
    (tmp_path / "history-web.jsonl").write_text(text)

    assert history.read_from_disk(tmp_path, "web", 5)[0].outcome == history.UNREADABLE


def test_one_document_that_cannot_be_read_does_not_affect_the_others() -> None:
    good = json.dumps(WHOLE).encode()
    for bad in DAMAGED:
        hosts = host_state.parse_all((_pair("hosts/a/web", bad), _pair("hosts/b/web", good)))
        assert hosts["a", "web"].state == HostStatus.UNREADABLE
        assert hosts["b", "web"].digest == DIGEST
        found = quarantine.parse_all((_pair("quarantine/x", bad), _pair(f"quarantine/{DIGEST}", good)))
        assert found[DIGEST].node == "a"


@pytest.mark.parametrize(
    "text", ["web", "web:8080", "a/b", "größer, 日本", "..", ".a", "a..b.", "=3A", "a=b&c?d", "a b", "%2F"]
)
def test_any_id_is_a_part_of_a_key_and_comes_back(text: str) -> None:
    """With characters that every Consul release takes, and never a dot after a dot."""
    part = quoted(text)

    assert re.fullmatch(r"[A-Za-z0-9,._=-]+", part)
    assert ".." not in part
    assert not part.startswith(".")
    assert unquoted(part) == text


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_different_ids_have_different_keys(text: str) -> None:
    """Quoting is reversible for everything that can be printed; the rest never reaches a terminal."""
    part = quoted(text)

    assert re.fullmatch(r"[A-Za-z0-9,._=-]+", part)
    assert unquoted(part) == text or not text.isprintable()
    assert unquoted(part).isprintable()


def test_a_key_written_by_hand_is_shown_without_what_moves_a_cursor() -> None:
    """Whatever is below hosts/ becomes a name that can be printed."""
    assert unquoted("=1B[2Ja") == "=1B[2Ja"
    assert unquoted("\x1b[2Ja") == "[2Ja"
    assert unquoted("=FF=FE") == "=FF=FE"
    assert host_state.parse(_pair("hosts/a/b/c", b"{}")).node == "a/b/c"


def test_services_that_differ_by_case_share_their_documents() -> None:
    """As Consul compares their names; what an earlier release wrote under capitals is still read."""
    assert key("Web", "pause") == key("web", "pause") == "svcagent/web/pause"
    assert readable_keys("web", "pause") == ("svcagent/web/pause",)
    assert readable_keys("Web", "pause") == ("svcagent/web/pause", "svcagent/Web/pause")


def test_a_document_of_an_earlier_release_counts_for_each_instance_of_its_node() -> None:
    old, new = HostState(DIGEST, "running", NOW), HostState("", "failed", NOW)
    hosts = {("a", ""): old, ("a", "web-2"): new}

    assert state_of(hosts, ("a", "web-1")) is old
    assert state_of(hosts, ("a", "web-2")) is new
    assert state_of(hosts, ("b", "web-1")) is None


@pytest.mark.parametrize(
    ("known", "is_written"),
    [
        (None, True),
        (HostState(DIGEST, "running", NOW, "latest", service_id="web"), False),
        (HostState(DIGEST, "running", NOW - timedelta(hours=7), "latest", service_id="web"), True),
        (HostState(DIGEST, "running", NOW - timedelta(days=9), "latest", service_id="web", seen=NOW), False),
        (HostState(DIGEST, "running", NOW, "latest", service_id="web", seen=NOW + timedelta(hours=7)), True),
        (HostState(DIGEST, "running", NOW, "latest"), True),
        (HostState(DIGEST, "running", NOW, "stable", service_id="web"), True),
        (HostState(DIGEST, "rolled back", NOW, "latest", service_id="web"), True),
        (HostState("", "unreadable", None, service_id="web"), True),
    ],
)
def test_a_host_that_looks_writes_only_what_is_new_or_old(known: HostState | None, is_written: bool) -> None:
    """Every six hours if nothing changes, so that a departed host can be distinguished from an idle one."""
    found = refreshed(known, "web", DIGEST, "latest", NOW)

    assert (found is not None) is is_written
    if found is not None:
        assert (found.digest, found.state, found.service_id, found.seen) == (DIGEST, "running", "web", NOW)


def test_what_is_known_of_the_running_version_outlasts_a_look() -> None:
    """That it settled, and that the last attempt at another one failed for the environment; not of another version."""
    known = HostState(
        DIGEST, "rolled back", NOW, "latest", service_id="web", wanted=OTHER, is_settled=True, verdict="environment"
    )
    found = refreshed(known, "web", DIGEST, "latest", NOW)
    assert found is not None
    assert (found.is_settled, found.wanted, found.verdict) == (True, OTHER, "environment")

    found = refreshed(known, "web", OTHER, "latest", NOW)
    assert found is not None
    assert (found.is_settled, found.wanted, found.verdict) == (False, "", "")


OWN = ("own", "web")
TAKING = HostState(OTHER, "reloading", NOW, step="ready", service_id="web", session="s1", wanted=DIGEST, node="a")


@pytest.mark.parametrize(
    ("state", "alive", "is_suspect"),
    [
        (TAKING, (), True),
        (TAKING, ("s2",), True),
        (TAKING, ("s1",), False),
        *((replace(TAKING, state=state), (), False) for state in ("queueing", "running", "rolled back", "failed")),
        (replace(TAKING, wanted=OTHER), (), False),
        (replace(TAKING, wanted=""), (), False),
        (replace(TAKING, session=""), ("s1",), True),
    ],
)
def test_a_disappeared_reload_is_suspect(state: HostState, alive: tuple[str, ...], is_suspect: bool) -> None:
    """Its host was taking the version, with a session that does not hold the lock."""
    view = FleetView(hosts={("a", "web"): state})

    assert bool(suspects(view, DIGEST, frozenset(alive), OWN)) is is_suspect
    assert suspects(view, "", frozenset(alive), OWN) == ()


def test_a_hosts_own_document_is_not_a_suspect_but_its_other_instances_is() -> None:
    hosts = {("own", "web"): TAKING, ("own", ""): TAKING, ("own", "web-2"): TAKING, ("a", "web"): TAKING}

    assert len(suspects(FleetView(hosts=hosts), DIGEST, frozenset(), OWN)) == 2


def test_a_suspect_is_reported_with_host_step_time_and_remedy() -> None:
    said = f"{suspect.what_happened(TAKING)}; {suspect.what_to_do('a b', TAKING)}"

    for words in ("reload on a ", "step ready", "2026-05-01T12:00:00Z", f"svcagent quarantine clear 'a b' {DIGEST}"):
        assert words in said
    assert "svcagent recover 'a b'" in said


@pytest.mark.parametrize(
    ("state", "is_first_host"),
    [
        (HostState(DIGEST, "running", NOW, is_settled=True), False),
        (HostState(DIGEST, "running", NOW), True),
        (HostState(OTHER, "running", NOW, is_settled=True), True),
        (HostState(DIGEST, "stranded", NOW, is_settled=True), True),
        (HostState(DIGEST, "unreadable", None), True),
    ],
)
def test_a_versions_first_host_is_the_one_before_any_other_has_settled(state: HostState, is_first_host: bool) -> None:
    """A host that was interrupted in settle runs it, and proves nothing."""
    assert is_first(FleetView(hosts={("a", "web"): state}), DIGEST, OWN) is is_first_host
    assert is_first(FleetView(hosts={OWN: state, ("own", ""): state}), DIGEST, OWN)


def test_digests_seen_are_kept_by_image_and_bounded(tmp_path: Path) -> None:
    """Private, in order, the newest fifty; what is no digest never gets in."""
    seen = SeenDigests(tmp_path, "Web")
    for number in range(60):
        seen.note("web:latest", [_digest(number), "latest", ""], NOW)
    seen.note("web:stable", [DIGEST], NOW)

    file = tmp_path / "seen-web.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert seen.of("web:latest") == {_digest(number) for number in range(10, 60)}
    assert seen.of("web:stable") == {DIGEST}
    assert seen.of("web:other") == frozenset()
    before = file.stat().st_ino
    seen.note("web:latest", [_digest(59)], NOW)
    assert file.stat().st_ino == before
    for number in range(20):
        seen.note(f"web:{number}", [DIGEST], NOW)
    assert len(file.read_bytes()) < LONGEST_DOCUMENT
    assert seen.of("web:latest") == frozenset()


@pytest.mark.parametrize("damaged", [*DAMAGED, b'{"v":1,"images":{"web:latest":["x"],"web:stable":{"latest":1}}}'])
def test_a_damaged_file_of_digests_means_that_nothing_was_seen(damaged: bytes, tmp_path: Path) -> None:
    """Less is trusted then, and the next check replaces it."""
    (tmp_path / "seen-web.json").write_bytes(damaged)
    seen = SeenDigests(tmp_path, "web")

    assert seen.of("web:latest") | seen.of("web:stable") == frozenset()
    seen.note("web:latest", [DIGEST], NOW)
    assert seen.of("web:latest") == {DIGEST}


def test_pulled_images_are_kept_with_the_digests_and_bounded(tmp_path: Path) -> None:
    """The last twenty, in order, each once; noting one thing loses nothing of the other."""
    seen = SeenDigests(tmp_path, "web")
    every = [Fetched(f"web:{number}", _digest(number), _digest(1000 + number)) for number in range(30)]
    seen.note("web:latest", [DIGEST], NOW)
    for one in every:
        seen.note_fetched(one)
    seen.note_fetched(every[-1])
    seen.note("web:latest", [_digest(7)], NOW)

    assert seen.fetched() == tuple(every[-20:])
    assert seen.of("web:latest") == {DIGEST, _digest(7)}
    assert stat.S_IMODE((tmp_path / "seen-web.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "damaged",
    [
        *DAMAGED,
        b'{"v":1,"fetched":{"image":"web:1"}}',
        b'{"v":1,"fetched":[1,null,{},{"image":"web:1","digest":"latest","image_id":7}]}',
    ],
)
def test_a_damaged_file_of_digests_means_that_nothing_was_fetched(damaged: bytes, tmp_path: Path) -> None:
    (tmp_path / "seen-web.json").write_bytes(damaged)

    assert SeenDigests(tmp_path, "web").fetched() == ()


def test_what_this_host_ran_is_known_from_its_history(tmp_path: Path) -> None:
    """Before and after a reload that succeeded, only before one that did not."""
    history.write_to_disk(tmp_path, "web", _past(1, before=_digest(1), after=_digest(2)))
    failed = replace(_past(2, before=_digest(3), after=_digest(4)), outcome="rolled back")
    history.write_to_disk(tmp_path, "web", failed)

    assert SeenDigests(tmp_path, "web").ran() == {_digest(1), _digest(2), _digest(3)}


def _digest(number: int) -> str:
    return f"sha256:{number:064x}"


@pytest.mark.parametrize("field", ["settled", "seen"])
def test_an_empty_text_is_no_flag(field: str) -> None:
    place = "svcagent/web/hosts/host1/web"
    tree = {"v": 1, "digest": DIGEST, "state": "running", "since": NOW.isoformat(), field: ""}

    found = host_state.parse(KvPair(place, json.dumps(tree).encode(), 0, None, 7, 7))

    assert bool(found.error) == (field == "settled")
