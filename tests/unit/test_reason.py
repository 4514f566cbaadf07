"""Maintenance reasons: written for people, read back without loss."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.maintenance import Maintenance, OwnerKind, by_operator, by_reload, parse, render

_moments = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # hypothesis adds the zone
_names = st.text(min_size=1, max_size=20)
NOON = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


@given(user=_names, host=_names, why=st.text(), since=_moments, hours=st.none() | st.integers(1, 99))
def test_an_operators_reason_is_read_back(user: str, host: str, why: str, since: datetime, hours: int | None) -> None:
    """Whatever a person types as name or reason, the catalog gives it back."""
    until = since + timedelta(hours=hours) if hours else None
    wanted = by_operator(user, host, why, since, until)

    assert parse(render(wanted)) == wanted


@given(host=_names, why=st.text(), since=_moments)
def test_a_reloads_reason_is_distinguished_from_an_operators(host: str, why: str, since: datetime) -> None:
    wanted = by_reload("1f3a9c21", host, why, since)

    read = parse(render(wanted))

    assert read == wanted
    assert read.kind is OwnerKind.RELOAD


@given(text=st.text())
def test_any_other_text_has_an_unknown_owner(text: str) -> None:
    """What ``consul maint`` or a hand wrote has no owner, and its text is kept."""
    assert parse(text) == Maintenance(OwnerKind.UNKNOWN, "", "", text)


def test_the_reason_reads_as_a_sentence() -> None:
    """Consul's own UI shows this text."""
    text = render(by_operator("alice", "host1", "disk swap", NOON, NOON + timedelta(hours=2)))

    assert text == "Taken out by alice on host1 since 2026-05-01T12:00:00Z until 2026-05-01T14:00:00Z: disk swap"


def test_an_impossible_date_is_not_ours() -> None:
    """A text that only looks like svcagent's is somebody's own."""
    text = "Taken out by alice on host1 since 2026-13-01T12:00:00Z: x"

    assert parse(text).kind is OwnerKind.UNKNOWN


def test_maintenance_past_its_end_has_expired() -> None:
    """Ends are inclusive; without an end it is never over."""
    assert by_operator("a", "h", "x", NOON, NOON).is_over(NOON)
    assert not by_operator("a", "h", "x", NOON, NOON + timedelta(seconds=1)).is_over(NOON)
    assert not by_operator("a", "h", "x", NOON).is_over(NOON)
