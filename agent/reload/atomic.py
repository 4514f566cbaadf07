"""Where `write_atomically` was; to go when nobody imports it from here any more."""

from agent.files import write_atomically

__all__ = ["write_atomically"]
