"""The turn among several holders of one lock: a key that one of them holds at a time, with the lock's session."""

from agent.clock import Deadline
from agent.consul.client import Consul
from agent.consul.lock.form import Look
from agent.consul.lock.messages import QueueMessages
from agent.consul.lock.single import Single
from agent.errors import LockBusy

WAIT_SECONDS = 15.0


class Turn:
    def __init__(self, consul: Consul, key: str, messages: QueueMessages) -> None:
        self._form = Single(consul, key)
        self._key = key
        self._messages = messages
        self.may_be_mine = False
        """True from before it is requested until it is known not to be held."""

    def look(self, last: Look | None, deadline: Deadline) -> Look:
        """Return the holder; after ``last``, wait for a change."""
        return self._form.look(last.index if last else None, min(WAIT_SECONDS, deadline.remaining))

    def take(self, session: str, value: str) -> bool:
        """Acquire the turn. False if another session holds it, or held it and died a moment ago."""
        self.may_be_mine = True
        self.may_be_mine = self._form.take(session, value, None)
        return self.may_be_mine

    def give_back(self, session: str) -> None:
        """Release the turn. Not holding it is no error."""
        if self.may_be_mine:
            self._form.give_back(session)
            self.may_be_mine = False

    def busy(self, look: Look) -> LockBusy:
        return LockBusy(
            f"the turn to go out of service ({self._key}) is held by {self._messages.holders(look)}. Try again later, "
            "or wait longer with --lock-timeout",
            kind="turn-busy",
        )
