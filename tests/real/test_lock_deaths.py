"""What becomes of the lock and the line when their processes die or are stopped, and their sessions end by themselves.

A session takes up to twice its time to live to end. So all of them are begun together, and each test waits for its own.
"""

import itertools
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.consul.lock.session_renewer import SESSION_TTL
from tests.lab.ground import wait_until
from tests.real.conftest import ConsulHost
from tests.real.lock_fixture import CLOCK, Waiter, assert_nothing_left, line_of, pairs, sessions

LOCK_DELAY = 15
MARGIN = 10.0


class _Begun:
    """The lines, each with one process that was killed or stopped at the same moment."""

    def __init__(self, host: ConsulHost, stack: ExitStack) -> None:
        self.waiter_killed = stack.enter_context(line_of(host, "waiter", 5))
        self.holder_killed = stack.enter_context(line_of(host, "holder", 3))
        self.semaphore_killed = stack.enter_context(line_of(host, "semaphore", 3, limit=2))
        self.holder_stopped = stack.enter_context(line_of(host, "stopped", 2))
        self.waiter_stopped = stack.enter_context(line_of(host, "napping", 3))
        self.holders_sessions = sessions(host, "holder")
        self.waiter_killed[2].signal(signal.SIGKILL)
        self.holder_killed[0].signal(signal.SIGKILL)
        self.semaphore_killed[0].signal(signal.SIGKILL)
        self.holder_stopped[0].signal(signal.SIGSTOP)
        self.waiter_stopped[1].signal(signal.SIGSTOP)
        self.at = CLOCK.monotonic()

    def left(self, seconds: float) -> float:
        """Seconds until so long after the deaths, and a margin for a slow machine."""
        return max(0.0, self.at + seconds - CLOCK.monotonic()) + MARGIN


@pytest.fixture(scope="module")
def begun(host: ConsulHost) -> Iterator[_Begun]:
    with ExitStack() as stack:
        yield _Begun(host, stack)


def _go_through(host: ConsulHost, prefix: str, waiters: list[Waiter]) -> None:
    """The first holds the lock: all get it, in this order, and nothing is left."""
    for before, after in itertools.pairwise(waiters):
        before.report_event("release")
        after.hears("held")
    waiters[-1].report_event("release")
    waiters[-1].hears("released")
    assert_nothing_left(host, prefix)


def test_a_crashed_waiter_is_skipped_and_removed(host: ConsulHost, begun: _Begun) -> None:
    """kill -9 in the middle: nobody behind it is woken into the lock before its turn, and the order is kept."""
    first, second, _dead, fourth, fifth = begun.waiter_killed

    assert fourth.hears("place 2", begun.left(2 * SESSION_TTL)).startswith("place 2 host-0 ")
    wait_until(lambda: len(pairs(host, "svcagent/waiter/queue/")) == 3, 5, "the dead entry is gone")
    assert second.is_silent()
    assert fifth.is_silent()

    _go_through(host, "waiter", [first, second, fourth, fifth])


def test_a_crashed_holder_s_place_among_several_is_taken(host: ConsulHost, begun: _Begun) -> None:
    """The next in line goes on once its session has ended, with no lock-delay after it."""
    _dead, second, third = begun.semaphore_killed

    third.hears("held", begun.left(2 * SESSION_TTL))
    for waiter in (second, third):
        waiter.report_event("ask")
        assert waiter.hears("asked") == "asked held"
        waiter.report_event("release")
        waiter.hears("released")
    assert_nothing_left(host, "semaphore")


def test_a_stopped_holder_learns_that_it_has_lost_it(host: ConsulHost, begun: _Begun) -> None:
    """SIGSTOP for longer than the session lives: the next in line has the lock, and the one that goes on knows."""
    stopped, second = begun.holder_stopped
    second.hears("held", begun.left(2 * SESSION_TTL + LOCK_DELAY))

    # Both questions are there when it wakes: what its keeper learns later cannot help it.
    stopped.report_event("lost")
    stopped.report_event("ask")
    stopped.signal(signal.SIGCONT)

    assert stopped.hears("lost") == "lost True"
    assert stopped.hears("asked") == "asked lost"
    second.report_event("ask")
    assert second.hears("asked") == "asked held"
    stopped.report_event("release")
    stopped.hears("released")
    second.report_event("ask")
    assert second.hears("asked") == "asked held"
    _go_through(host, "stopped", [second])


def test_a_stopped_waiter_goes_to_the_end_of_the_line(host: ConsulHost, begun: _Begun) -> None:
    """Its entry died with its session, and those behind it have moved up; it gets the lock after them."""
    first, stopped, third = begun.waiter_stopped
    old = next(line for line in stopped.said if line.startswith("session"))
    third.hears("place 1", begun.left(2 * SESSION_TTL))

    stopped.signal(signal.SIGCONT)
    first.report_event("release")
    third.hears("held")
    assert stopped.hears("session") != old

    _go_through(host, "napping", [third, stopped])


def test_a_crashed_holder_keeps_the_lock_until_session_and_lock_delay_expire(host: ConsulHost, begun: _Begun) -> None:
    """Twice the time to live, then the 15 s that Consul adds for those who may still be at work."""
    _dead, second, third = begun.holder_killed

    second.hears("held", begun.left(2 * SESSION_TTL + LOCK_DELAY))
    # Those who waited for all that time have the sessions that they had: they are renewed in the line, too.
    assert set(sessions(host, "holder")) < set(begun.holders_sessions)
    assert len(sessions(host, "holder")) == 2
    assert third.hears("place 1").startswith("place 1 host-1 ")

    _go_through(host, "holder", [second, third])
