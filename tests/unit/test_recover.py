"""What a recovery takes a prepared container for: nothing is stopped unless its replacement may have begun."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from agent.consul import LocalService
from agent.definitions import ReloadSection, Service
from agent.engine.swap import ReplacementState, ReplacementStatus
from agent.reload.dependencies import Dependencies
from agent.reload.journal import JournalRecord
from agent.reload.recover import find_leftover, restore_container

SERVICE = Service(name="web", port=80)
RELOAD = ReloadSection(image="registry.example.com/web:latest", container="web")
RECORD = JournalRecord.of(SERVICE, RELOAD, "0a1b2c3d", "2026-01-01T00:00:00Z")
REPLACING = replace(RECORD, is_replacing=True, restart_policy="always")


class FakeEngine:
    def __init__(self, state: ReplacementState, *, is_running: bool) -> None:
        self.found = ReplacementStatus(state, "old", is_running)
        self.done: list[str] = []

    def replacement_status(self, _name: str) -> ReplacementStatus:
        return self.found

    def discard(self, _name: str) -> None:
        self.done.append("discard")

    def roll_back(self, _name: str, _policy: str | None) -> None:
        self.done.append("roll back")


@pytest.mark.parametrize(
    ("state", "record", "is_running", "expected"),
    [
        (ReplacementState.PREPARED, RECORD, True, ["discard"]),
        (ReplacementState.PREPARED, RECORD, False, ["discard"]),
        (ReplacementState.PREPARED, REPLACING, True, []),
        (ReplacementState.PREPARED, REPLACING, False, ["roll back"]),
        (ReplacementState.MIXED, REPLACING, False, ["roll back"]),
        (ReplacementState.MIXED, REPLACING, True, []),
        (ReplacementState.OLD, RECORD, True, []),
    ],
)
def test_without_consul_only_what_a_replacement_stopped_is_started(
    state: ReplacementState, record: JournalRecord, *, is_running: bool, expected: list[str]
) -> None:
    """A container that an operator stopped while its successor was prepared stays stopped."""
    engine = FakeEngine(state, is_running=is_running)

    restore_container(cast("Any", engine), record)

    assert engine.done == expected


class FakeEdges:
    def __init__(self, record: JournalRecord | None, engine: FakeEngine, *, is_held: bool) -> None:
        self.engine, self.consul, self.journal, self.agent = engine, self, self, self
        self.environ: dict[str, str] = {}
        self.state_dir = Path("nowhere")
        self.clock = self
        self.node = "host1"
        self._record = record
        self._is_held = is_held

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def read(self) -> JournalRecord | None:
        return self._record

    def services(self) -> dict[str, LocalService]:
        held = type("Held", (), {"notes": "an operator's"})() if self._is_held else None
        return {"web": cast("LocalService", type("Local", (), {"maintenance": held})())}


@pytest.mark.parametrize(
    ("record", "is_running", "is_held", "expected"),
    [
        (RECORD, True, False, False),
        (RECORD, True, True, False),
        (RECORD, False, False, False),
        (REPLACING, True, True, True),
        # The journal is lost. In service, it was not asked to stop.
        (None, True, False, False),
        (None, True, True, True),
        (None, False, False, True),
    ],
)
def test_a_prepared_container_may_have_been_asked_to_stop_only_where_its_replacement_may_have_begun(
    record: JournalRecord | None, *, is_running: bool, is_held: bool, expected: bool
) -> None:
    engine = FakeEngine(ReplacementState.PREPARED, is_running=is_running)
    deps = cast("Dependencies", FakeEdges(record, engine, is_held=is_held))

    leftover = find_leftover(SERVICE, RELOAD, deps, lambda _text: None)

    assert leftover is not None
    assert leftover.record.is_replacing is expected
