"""The interface that both forms of a lock implement."""

from typing import Protocol

from agent.consul.lock_holder import Holder
from agent.data import dataclass


@dataclass(frozen=True)
class Look:
    """The holders of a lock at one moment. ``index`` is for waiting for the next change."""

    index: int
    holders: tuple[Holder, ...]
    is_free: bool

    def is_held_by(self, session: str | None) -> bool:
        return any(holder.session == session for holder in self.holders)


class Form(Protocol):
    """One form of lock on one connection."""

    @property
    def behaviour(self) -> str:
        """What happens to its keys when the holder's session ends: ``release`` or ``delete``."""

    def look(self, index: int | None = None, wait: float = 0.0) -> Look:
        """Return the holders. With ``index`` (of an earlier look), wait up to ``wait`` seconds for a change.

        :raises Conflict: the key has another form or limit, or is foreign.
        """

    def take(self, session: str, value: str, spent: str | None) -> bool:
        """Acquire the lock and delete the key ``spent`` in one write. False if it is held or in lock-delay."""

    def is_held(self, session: str) -> bool:
        """True if the session holds the lock. The leader answers, confirmed by its peers."""

    def watch(self, session: str, index: int | None, wait: float) -> tuple[int | None, bool]:
        """Return the index and whether it is held. With ``index``, wait for a change. Read as in `is_held`."""

    def rewrite(self, session: str, value: str) -> bool:
        """Change the holder's details. False if the session no longer holds the lock."""

    def give_back(self, session: str) -> None:
        """Release the session's hold in one write, without the lock-delay of a session's end. No hold is no error."""

    def clear(self) -> None:
        """Delete the key if nobody holds it."""
