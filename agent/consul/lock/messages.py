"""Describe to a waiter whom it waits for, when that changes."""

from collections.abc import Callable

from agent.consul.client import Consul
from agent.consul.lock.form import Look
from agent.consul.lock.holder import Holder
from agent.consul.lock.names import named
from agent.errors import LockBusy


class QueueMessages:
    """Reports on one lock. Sessions without details are looked up once."""

    def __init__(self, consul: Consul, prefix: str, report_place: Callable[[int, str], None] | None) -> None:
        self._consul = consul
        self._prefix = prefix
        self._report_place = report_place
        self._told: tuple[int, str] | None = None
        self._known: dict[str, Holder] = {}

    def place(self, number: int, look: Look) -> None:
        """Report the queue position and the holders if either changed since the last report."""
        if self._report_place is None:
            return
        told = (number, self.holders(look))
        if told != self._told:
            self._told = told
            self._report_place(*told)

    def holders(self, look: Look) -> str:
        return ", ".join(self._in_words(holder) for holder in look.holders) or "nobody"

    def busy(self, look: Look, number: int) -> LockBusy:
        """Return the error for a waiter at that position whose deadline passed."""
        if look.holders:
            why = f"is held by {self.holders(look)}"
        elif number > 1:
            why = "is free, but others came before"
        else:
            why = "is free, but Consul refuses it for up to 15 s after its holder died"
        return LockBusy(
            f"the lock {self._prefix} {why}; this is place {number} in the line for it. Try again later, or wait "
            "longer with --lock-timeout"
        )

    def _in_words(self, holder: Holder) -> str:
        if holder.is_described:
            return str(holder)
        if holder.session not in self._known:
            self._known[holder.session] = named(self._consul, holder)
        return str(self._known[holder.session])
