"""The turn among several holders of one lock: a key that one of them holds at a time, with the session that it has."""

from agent.clock import Deadline
from agent.consul.client import Consul
from agent.consul.lock_form import Look
from agent.consul.lock_single import Single
from agent.consul.lock_telling import Telling
from agent.errors import LockBusy

WAIT_SECONDS = 15.0


class Turn:
    """Taken and given back by `Lock`."""

    def __init__(self, consul: Consul, key: str, telling: Telling) -> None:
        self._form = Single(consul, key)
        self._key = key
        self._telling = telling
        self.may_be_mine = False
        """From before it is asked for until it is known not to be."""

    def look(self, last: Look | None, deadline: Deadline) -> Look:
        """Who has it; after ``last`` waits for a change."""
        return self._form.look(last.index if last else None, min(WAIT_SECONDS, deadline.remaining))

    def take(self, session: str, value: str) -> bool:
        """Take it; False if somebody else has it, or had and died a moment ago."""
        self.may_be_mine = True
        self.may_be_mine = self._form.take(session, value, None)
        return self.may_be_mine

    def give_back(self, session: str) -> None:
        """Let the next have it; not having it is fine."""
        if self.may_be_mine:
            self._form.give_back(session)
            self.may_be_mine = False

    def busy(self, look: Look) -> LockBusy:
        """Why it was not had in time."""
        return LockBusy(
            f"the turn to go out of service ({self._key}) is held by {self._telling.holders(look)}. Try again later, "
            "or wait longer with --lock-timeout"
        )
