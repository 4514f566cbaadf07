"""Which instances are known within the last day: documents and the catalog in, keys out."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.consul import Instance
from agent.fleet import FleetView, HostState
from agent.reload.guard import known_instances

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HERE = Instance("a", "web", "10.0.0.1", 80, ())


def _state(since: timedelta, seen: timedelta | None = None) -> HostState:
    return HostState("sha256:1", "running", NOW - since, seen=None if seen is None else NOW - seen)


@pytest.mark.parametrize(
    ("key", "state", "is_known"),
    [
        (("b", "web"), _state(timedelta(days=90), timedelta(hours=6)), True),
        (("b", "web"), _state(timedelta(days=90), timedelta(hours=25)), False),
        (("b", "web"), _state(timedelta(hours=1)), True),
        (("b", "web"), _state(timedelta(hours=25)), False),
        # A clock that is ahead.
        (("b", "web"), _state(timedelta(hours=-1)), True),
        (("b", "web"), HostState("", "unreadable", None), False),
        # A second instance on a host that is in the catalog.
        (("a", "web-2"), _state(timedelta(hours=1)), True),
        # The document of an earlier release names no service ID: it counts where the catalog does not show the host.
        (("b", ""), _state(timedelta(hours=1)), True),
        (("a", ""), _state(timedelta(hours=1)), False),
    ],
)
def test_known_within_a_day(key: tuple[str, str], state: HostState, is_known: bool) -> None:
    """Each row: one document beside an instance in the catalog."""
    found = known_instances(FleetView(hosts={key: state}), (HERE,), NOW)

    assert ("a", "web") in found
    assert (key in found) is is_known
