"""What a reload publishes of its host, with a Consul KV that is made up."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.clock import SystemClock
from agent.definitions import ReloadSection, Service
from agent.errors import SvcagentError
from agent.fleet import FleetView, HostState
from agent.outcomes import Outcome
from agent.reload import report as report_module
from agent.reload.dependencies import ReloadContext
from agent.reload.journal import Journal, JournalEntry, JournalRecord
from agent.reload.progress import Progress
from agent.reload.record import ReloadResult
from agent.reload.report import HostStateReport
from agent.reload.steps import State


class FakeKv:
    """Writes of host states, of which the named steps fail."""

    def __init__(self, failing: set[str]) -> None:
        self.failing = failing
        self.written: list[HostState] = []
        self.services: set[str] = set()

    def write(self, _consul: Any, service: str, _node: str, state: HostState) -> None:
        self.services.add(service)
        if state.step in self.failing:
            raise SvcagentError("no answer")
        self.written.append(state)


def report_of(deps: object, digest: str, note: Callable[[str], None] = lambda _text: None) -> HostStateReport:
    """The definition was changed since the reload began."""
    record = JournalRecord(
        "r", "web", "web", "web", "web", 1, "web:latest", "", digest=digest, digest_before="sha256:1"
    )
    context = SimpleNamespace(
        service=Service(name="web-frontend", id="web"),
        section=ReloadSection(image="web:v2", container="web"),
        deps=deps,
        progress=SimpleNamespace(note=note),
        entry=JournalEntry(cast("Journal", None), record, cast("Progress", None)),
    )
    return HostStateReport(cast("ReloadContext", context))


def test_an_outcome_is_published_also_where_an_earlier_write_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the version would be suspect for all other hosts, though the reload has ended."""
    kv = FakeKv({"ready"})
    monkeypatch.setattr(report_module, "write_host_state", kv.write)
    clock = SystemClock()
    deps = SimpleNamespace(consul=None, agent=SimpleNamespace(node="host1"), clock=clock)
    notes: list[str] = []
    report = report_of(deps, "sha256:2", notes.append)

    report.publish_step("drain", is_required=True)
    report.publish_step("ready", is_required=False)
    result = ReloadResult("web", "host1", "web:latest", outcome=Outcome.RELOADED)
    report.publish(result, State(is_settled=True), "sha256:2")

    assert [(state.state, state.tag) for state in kv.written] == [("reloading", "latest"), ("running", "latest")]
    assert kv.services == {"web"}
    assert len(notes) == 1


def test_an_earlier_verdict_survives_what_the_next_attempt_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own document is replaced as soon as it queues again."""
    kv = FakeKv(set())
    clock = SystemClock()
    deps = SimpleNamespace(consul=None, agent=SimpleNamespace(node="host1"), clock=clock)
    earlier = HostState(
        "sha256:1", "rolled back", clock.now(), service_id="web", wanted="sha256:2", verdict="environment"
    )
    monkeypatch.setattr(report_module, "write_host_state", kv.write)
    monkeypatch.setattr(
        report_module,
        "observe",
        lambda *_arguments: FleetView(hosts={("host1", "web"): kv.written[-1] if kv.written else earlier}),
    )

    for _attempt in range(2):
        report = report_of(deps, "sha256:2")
        report.publish_queueing()
        report.publish_step("drain", is_required=True)
        assert report.had_environment_verdict()
    assert not report_of(deps, "sha256:3").had_environment_verdict()
