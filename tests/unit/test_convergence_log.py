"""What a convergence tells: each thing when it begins and when it is over, whatever happens between."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from agent import logs
from agent.consul import CheckState
from agent.daemon.convergence_log import ConvergenceLog, ConvergenceResult
from agent.errors import ConsulUnreachable, Denied, Fault, LockBusy, OutcomeUnknown, Rejected, SvcagentError
from agent.maintenance import ExpiredMaintenance, MaintenanceTarget, by_operator
from agent.registration import Change, ChangeAction
from tests.support.clock import NOON, FakeClock


class Told:
    """What was told, with W for a warning and i for information."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        self._log = log
        self.clock = FakeClock()
        self._messages = ConvergenceLog(self.clock)

    def of(self, found: ConvergenceResult) -> list[str]:
        self._log.clear()
        self._messages.log(found)
        return [f"{one.levelname[0].replace('I', 'i')} {one.getMessage()}" for one in self._log.records]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Told]:
    logs.set_up(logs.Format.TEXT, is_verbose=True)
    yield Told(caplog)
    logs.set_up(logs.Format.TEXT, is_verbose=False)


def test_an_outage_is_one_line_and_its_end_another(told: Told) -> None:
    """Ten minutes of every sort of silence, tried every five seconds."""
    silences = [
        ConsulUnreachable("cannot reach the Consul agent: Connection refused"),
        ConsulUnreachable("did not answer in time"),
        OutcomeUnknown("did not answer"),
        ConsulUnreachable("answered with 500: No cluster leader"),
    ]
    lines = []
    for number in range(120):
        lines += told.of(ConvergenceResult(trouble=silences[number % 4]))
        told.clock.sleep(5)
    lines += told.of(ConvergenceResult())
    lines += told.of(ConvergenceResult())

    assert len(lines) == 2
    assert lines[0].startswith(
        "W cannot reach the Consul agent: Connection refused. Registered services are not changed"
    )
    assert lines[1] == "i Consul answers again after 10m"


def test_each_other_trouble_is_a_line(told: Told) -> None:
    """A change of state, not of words about the same state; the end is counted from the beginning of it all."""
    sequence: list[tuple[SvcagentError | None, int]] = [
        (ConsulUnreachable("refused"), 1),
        (Denied("the token is unknown"), 1),
        (Denied("the token is unknown"), 0),
        (Denied("the token lacks service:write"), 1),
        (ConsulUnreachable("refused"), 1),
        (LockBusy("another svcagent registers"), 1),
        (None, 1),
        (None, 0),
    ]
    for trouble, lines in sequence:
        found = told.of(ConvergenceResult(trouble=trouble))
        assert len(found) == lines, (trouble, found)
        if trouble is None and lines:
            assert found == ["i registration succeeds again after 6s"]
        told.clock.sleep(1)


def test_a_fault_is_reported_when_it_appears_and_when_it_is_repaired(told: Told) -> None:
    one, two, other = Fault("a", "x", "bad"), Fault("a", "y", "bad"), Fault("b", "", "bad")
    away = ConvergenceResult(trouble=ConsulUnreachable("refused"))
    told.of(away)

    assert told.of(replace(away, faults=(one, two))) == ["W a: x: bad", "W a: y: bad"]
    assert told.of(replace(away, faults=(one, two))) == []
    assert told.of(replace(away, faults=(two, other))) == ["W b: bad"]
    assert told.of(replace(away, faults=(other,))) == ["i a: no faults any more"]
    assert told.of(ConvergenceResult(faults=(other,))) == ["i Consul answers again after 0s"]


def test_an_obstacle_is_reported_until_it_is_gone(told: Told) -> None:
    """What was not seen in an outage is not over for that."""
    refused = Change(ChangeAction.REFUSE, "web", "somebody else's")
    found = ConvergenceResult(refused=(refused,), failed=(("api", Rejected("no")),), kept=("old",))

    assert told.of(found) == [
        "W web: not changed: somebody else's",
        "W api: not registered as defined: no",
        "W old: stays registered: no valid file defines it, but a file with faults may",
    ]
    assert told.of(found) == []
    assert len(told.of(replace(found, failed=(), trouble=ConsulUnreachable("refused")))) == 1
    assert told.of(found) == ["i Consul answers again after 0s"]
    assert told.of(replace(found, failed=(("api", Denied("no rights")),))) == [
        "W api: not registered as defined: no rights"
    ]
    assert len(told.of(ConvergenceResult())) == 3


def test_every_change_is_reported(told: Told) -> None:
    actions = (ChangeAction.CREATE, ChangeAction.UPDATE, ChangeAction.REMOVE)
    changes = tuple(Change(action, "web", "for a reason") for action in actions)

    assert told.of(ConvergenceResult(changes=changes)) == [
        "i web: registered: for a reason",
        "i web: updated: for a reason",
        "i web: deregistered: for a reason",
    ]


def test_the_end_of_maintenance_and_what_delays_it_are_reported_once(told: Told) -> None:
    over = by_operator("alice", "web1", "disk", NOON - timedelta(hours=1), NOON)
    failing = CheckState("service:api", "up", "critical", "", "api")
    lifted = ExpiredMaintenance(MaintenanceTarget("web1", "web", "web"), over, ())
    kept = ExpiredMaintenance(MaintenanceTarget("web1", "api", "api"), over, (failing,))

    assert told.of(ConvergenceResult(ended=(kept, lifted))) == [
        "i web: maintenance expired and was disabled; it was enabled by alice on web1 since 2026-05-01T11:00:00Z "
        "until 2026-05-01T12:00:00Z (disk)",
        "W api: stays in maintenance, although it has expired, because its checks do not pass: "
        "check service:api is critical",
    ]
    assert told.of(ConvergenceResult(ended=(kept,))) == []
    assert told.of(ConvergenceResult()) == ["i api: expired maintenance is no longer kept because of failing checks"]
