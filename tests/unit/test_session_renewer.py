"""When a lock counts as lost, by what its keeper heard of Consul."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.clock import Deadline, SystemClock, poll
from agent.consul.lock.session_renewer import SESSION_TTL, SessionRenewer
from agent.errors import ConsulUnreachable, Denied, OutcomeUnknown, SvcagentError
from tests.support.clock import FakeClock


class _Consul:
    """Answers a renewal as it is told to, and says when it has been asked."""

    def __init__(self, answer: Callable[[], bool]) -> None:
        self._answer = answer
        self.asked = threading.Event()
        self.closed = threading.Event()

    def renew_session(self, _session: str) -> bool:
        try:
            return self._answer()
        finally:
            self.asked.set()

    def close(self) -> None:
        self.closed.set()


@contextmanager
def _kept(answer: Callable[[], bool]) -> Iterator[tuple[SessionRenewer, _Consul, FakeClock]]:
    clock, consul = FakeClock(), _Consul(answer)
    keeper = SessionRenewer(consul, "session", clock.seconds, clock)  # type: ignore[arg-type]  # all that it asks
    keeper.start()
    try:
        assert consul.asked.wait(5)
        yield keeper, consul, clock
    finally:
        keeper.stop()
        keeper.join(5)
        assert consul.closed.is_set()


def _failing(error: SvcagentError) -> Callable[[], bool]:
    def answer() -> bool:
        raise error

    return answer


def test_what_is_renewed_is_not_lost() -> None:
    """Held for one time to live after the renewal, not after the session was made."""
    with _kept(lambda: True) as (keeper, _consul, clock):
        keeper.join(0.05)  # the answer is counted after it was given
        assert not keeper.is_lost

        clock.seconds += SESSION_TTL
        assert keeper.is_lost
        assert not keeper.is_known_lost


def test_an_invalidated_session_loses_the_lock_immediately() -> None:
    with _kept(lambda: False) as (keeper, _consul, _clock):
        keeper.join(5)

        assert keeper.is_known_lost
        assert keeper.is_lost


def test_a_refused_or_unanswered_renewal_is_lost_when_the_session_can_have_ended() -> None:
    """The keeper may not die of it: the token may be replaced, and Consul may come back, just in time."""
    for error in (Denied("unknown token"), ConsulUnreachable("gone"), OutcomeUnknown("no answer")):
        with _kept(_failing(error)) as (keeper, _consul, clock):
            assert not keeper.is_lost
            assert keeper.is_alive()

            clock.seconds += SESSION_TTL
            assert keeper.is_lost
            assert keeper.is_alive()


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    """Its answer may come late, and the session's time began somewhere between."""
    clocks: list[FakeClock] = []

    def answer() -> bool:
        if clocks:
            clocks[0].seconds += 14
        return True

    clock, consul = FakeClock(), _Consul(answer)
    clocks.append(clock)
    keeper = SessionRenewer(consul, "session", clock.seconds, clock)  # type: ignore[arg-type]  # all that it asks
    keeper.start()
    assert consul.asked.wait(5)
    keeper.stop()
    keeper.join(5)

    assert not keeper.is_lost
    clock.seconds += 1
    assert keeper.is_lost


def test_a_session_that_lives_again_by_its_clock_is_held_again() -> None:
    """A stopped process that goes on counts it as lost, until Consul says that it still has the session."""
    with _kept(lambda: True) as (keeper, consul, clock):
        clock.seconds += 2 * SESSION_TTL
        assert keeper.is_lost

        consul.asked.clear()
        keeper.watch(lambda _consul: lambda _index, _wait: (None, not threading.Event().wait(0.01)))
        assert consul.asked.wait(5)
        assert poll(lambda: not keeper.is_lost, Deadline.after(SystemClock(), 5), 0.01)
