"""Documents as they are read: whole, damaged, from a newer svcagent. No Consul."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.consul import KvPair
from agent.errors import SvcagentError
from agent.fleet import HostStanding, Past, Pause, history, host_state, pause, quarantine, rollout
from agent.fleet.document import bounded

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
WHOLE: dict[str, Any] = {
    "v": 1,
    "digest": "sha256:1",
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
    json.dumps({name: value for name, value in WHOLE.items() if name != "since"}).encode(),
]


def _pair(key: str, value: bytes) -> KvPair:
    return KvPair(f"svcagent/web/{key}", value, 0, None, 7, 7)


@pytest.mark.parametrize("value", DAMAGED)
def test_what_cannot_be_read_counts_as_set_where_that_is_safe(value: bytes) -> None:
    """A quarantine and a pause hold, a state runs nothing, a pin has no digest; each says which document it is."""
    held = quarantine.parse(_pair("quarantine/sha256:1", value))
    assert held.digest == "sha256:1"
    assert "svcagent/web/quarantine/sha256:1 cannot be read" in held.why

    stopped = pause.counting(_pair("pause", value), NOW)
    assert stopped is not None
    assert "svcagent/web/pause cannot be read" in stopped.why
    assert not stopped.has_same_cause(stopped)

    state = host_state.parse(_pair("hosts/a", value))
    assert (state.digest, state.state) == ("", HostStanding.UNREADABLE)
    assert "svcagent/web/hosts/a cannot be read" in state.error

    pinned = rollout.parse(_pair("rollout", value))
    assert pinned.digest == ""
    assert "svcagent/web/rollout cannot be read" in pinned.problem


def test_a_newer_version_is_told_as_such() -> None:
    """Whoever reads it knows what to do."""
    assert (
        "its version is 2, and this svcagent knows 1; update svcagent" in rollout.parse(_pair("x", b'{"v":2}')).problem
    )


def test_fields_that_are_not_known_are_no_fault() -> None:
    """A document may grow within its version."""
    value = json.dumps(WHOLE | {"mood": "good"}).encode()

    assert quarantine.parse(_pair("quarantine/sha256:1", value)).node == "a"
    assert rollout.parse(_pair("rollout", value)).digest == "sha256:1"
    assert host_state.parse(_pair("hosts/a", value)).since == NOW
    assert pause.parse(_pair("pause", value)).by == "alice"


def test_a_pause_is_over_when_its_end_has_come() -> None:
    """Then it counts as not set; without an end it never is."""
    for until, counts in ((NOW, False), (NOW + timedelta(seconds=1), True), (None, True)):
        text = json.dumps(WHOLE | ({"until": until.isoformat()} if until else {})).encode()
        assert (pause.counting(_pair("pause", text), NOW) is not None) is counts
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
    first = _past(1, steps=(("check", 0.25), ("ready", 3.0)), before="sha256:0", after="sha256:1", error="né\nx")
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
    """It is a foreseen error, not a trace."""
    (tmp_path / "history-web.jsonl").mkdir()

    with pytest.raises(SvcagentError, match=r"history-web\.jsonl"):
        history.write_to_disk(tmp_path, "web", _past(1))
