"""What the two forms of a lock have in common, so that `Lock` need not know which it has."""

from typing import Protocol

from agent.consul.lock_holder import Holder
from agent.data import dataclass


@dataclass(frozen=True)
class Look:
    """Who holds a lock at one moment. ``index``: to wait for the next."""

    index: int
    holders: tuple[Holder, ...]
    is_free: bool

    def is_held_by(self, session: str | None) -> bool:
        """Is that session one of the holders?"""
        return any(holder.session == session for holder in self.holders)


class Form(Protocol):
    """One form on one connection; see `lock_single` for what each call promises."""

    @property
    def behaviour(self) -> str:
        """What becomes of its keys when the holder's session ends: ``release`` or ``delete``."""

    def look(self, index: int | None = None, wait: float = 0.0) -> Look:
        """Who holds it."""

    def take(self, session: str, value: str, spent: str | None) -> bool:
        """Hold it and delete the key ``spent``, or neither."""

    def is_held(self, session: str) -> bool:
        """Asked of the leader."""

    def watch(self, session: str, index: int | None, wait: float) -> tuple[int | None, bool]:
        """Is it held by that session, now or when it changes?"""

    def rewrite(self, session: str, value: str) -> bool:
        """Change the holder's details."""

    def give_back(self, session: str) -> None:
        """Free what that session holds."""

    def clear(self) -> None:
        """Delete the key if nobody holds it."""
