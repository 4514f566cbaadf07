"""What `svcagent fleet` shows of one host."""

from datetime import UTC, datetime

import pytest

from agent.cli.fleet_output import ShownFleet, document, rows
from agent.fleet import FleetView, HostState, HostStatus

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
UNDER_WAY = (HostStatus.QUEUEING, HostStatus.RELOADING)


@pytest.mark.parametrize("status", HostStatus)
def test_a_step_is_shown_only_while_a_reload_runs(status: HostStatus) -> None:
    state = HostState("sha256:1", status, NOW, step="release")
    fleet = ShownFleet("web", FleetView(hosts={("host1", "web"): state}), (), ())

    [row] = rows(fleet)
    [host] = document(fleet)["hosts"]

    assert row[3] == (f"{status} (release)" if status in UNDER_WAY else status)
    assert host["step"] == ("release" if status in UNDER_WAY else None)
