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


@pytest.mark.parametrize(
    ("drain", "connections", "left", "seconds"),
    [
        # A client that has asked DNS just before may still connect: one glance without connections proves nothing.
        (Drain(min=0, max=30), 0, 0, QUIET_SECONDS),
        # What keeps its connection open is cut at drain.max, and counted.
        (Drain(min=0, max=2), 3, 3, 2),
        # drain.min is for clients that remember an address.
        (Drain(min=5, max=30), 0, 0, 5),
        # Nobody counts them.
        (Drain(min=1, max=30, connections=False), 7, 0, 1),
    ],
)
def test_the_end_of_connections_is_waited_for(drain: Drain, connections: int, left: int, seconds: float) -> None:
    clock = FakeClock()

    assert await_no_connections(lambda: connections, drain, clock, Deadline.after(clock, drain.max)) == left

    assert seconds <= clock.seconds <= seconds + 0.5


def test_a_late_connection_starts_the_stretch_again() -> None:
    clock = FakeClock()

    def late() -> int:
        return int(0.1 <= clock.seconds < 0.2)

    await_no_connections(late, Drain(min=0, max=30), clock, Deadline.after(clock, 30))

    assert clock.seconds >= 0.2 + QUIET_SECONDS


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
