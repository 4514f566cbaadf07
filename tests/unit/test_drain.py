"""Draining: how long is waited, on a clock that is told."""

from collections.abc import Callable

import pytest

from agent.clock import Deadline
from agent.consul import DnsAnswer
from agent.definitions import Drain
from agent.errors import LockLost, NotDrained
from agent.maintenance import await_absence_from_dns
from agent.reload.drain import QUIET_SECONDS, await_no_connections
from tests.support.clock import FakeClock

OWN = ("10.0.0.1", 8080)


def _until(clock: FakeClock, moment: float, count: int) -> Callable[[], int]:
    return lambda: count if clock.seconds < moment else 0


def test_quiet_is_a_stretch_without_connections_not_a_moment() -> None:
    """A client that has asked DNS just before may still connect: one glance without connections proves nothing."""
    clock = FakeClock()

    left = await_no_connections(lambda: 0, Drain(min=0, max=30), clock, Deadline.after(clock, 30))

    assert left == 0
    assert clock.seconds >= QUIET_SECONDS


def test_a_late_connection_starts_the_stretch_again() -> None:
    clock = FakeClock()

    def late() -> int:
        return int(0.1 <= clock.seconds < 0.2)

    await_no_connections(late, Drain(min=0, max=30), clock, Deadline.after(clock, 30))

    assert clock.seconds >= 0.2 + QUIET_SECONDS


def test_connections_are_waited_for_until_the_limit() -> None:
    """What keeps its connection open is cut at drain.max, and counted."""
    clock = FakeClock()

    left = await_no_connections(lambda: 3, Drain(min=0, max=2), clock, Deadline.after(clock, 2))

    assert left == 3
    assert clock.seconds == pytest.approx(2, abs=0.1)


def test_the_least_time_passes_even_when_all_is_quiet() -> None:
    """drain.min is for clients that remember an address."""
    clock = FakeClock()

    await_no_connections(lambda: 0, Drain(min=5, max=30), clock, Deadline.after(clock, 30))

    assert clock.seconds >= 5


def test_connections_may_be_left_out() -> None:
    """With drain.connections false nobody counts them."""
    clock = FakeClock()

    left = await_no_connections(lambda: 7, Drain(min=1, max=30, connections=False), clock, Deadline.after(clock, 30))

    assert left == 0
    assert clock.seconds == 1


def test_dns_answers_are_waited_for_and_then_their_ttl() -> None:
    """An answer given just before the change may be remembered for its TTL."""
    clock = FakeClock()
    named = _until(clock, 0.5, 1)

    await_absence_from_dns(
        {"a:53": lambda: DnsAnswer(frozenset({OWN}) if named() else frozenset(), 0)}, OWN, clock, remembered=7
    )

    assert 7.5 <= clock.seconds < 8


def test_a_dns_server_that_still_returns_the_instance_stops_the_drain() -> None:
    clock = FakeClock()

    with pytest.raises(NotDrained, match="a:53"):
        await_absence_from_dns({"a:53": lambda: DnsAnswer(frozenset({OWN}), 0)}, OWN, clock, remembered=0)


def _lost_at(clock: FakeClock, moment: float) -> Callable[[], None]:
    def still() -> None:
        if clock.seconds >= moment:
            raise LockLost("the lock was lost")

    return still


@pytest.mark.parametrize(
    "wait",
    [
        lambda clock, still: await_no_connections(
            lambda: 0, Drain(min=60, max=60, connections=False), clock, Deadline.after(clock, 60), still
        ),
        lambda clock, still: await_no_connections(
            lambda: 3, Drain(min=0, max=60), clock, Deadline.after(clock, 60), still
        ),
        lambda clock, still: await_absence_from_dns({}, OWN, clock, 60, still),
        lambda clock, still: await_absence_from_dns(
            {"a:53": lambda: DnsAnswer(frozenset({OWN}), 0)}, OWN, clock, 0, still
        ),
    ],
    ids=["drain.min", "connections", "the TTL of DNS answers", "DNS"],
)
def test_a_lost_lock_ends_every_wait_within_a_second(wait: Callable[[FakeClock, Callable[[], None]], object]) -> None:
    """Another host may hold it by then, and drain its own instance."""
    clock = FakeClock()

    with pytest.raises(LockLost):
        wait(clock, _lost_at(clock, 2))

    assert 2 <= clock.seconds < 3
