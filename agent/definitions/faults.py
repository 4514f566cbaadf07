"""Describe what is wrong with a value, for people."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from agent.data import dataclass
from agent.errors import Fault
from agent.files import Untrusted
from agent.text import clean, without_credentials

SHOWN_LENGTH = 60
"""The limit of a bad value in a message, in characters: enough to find it by, short enough to read."""

_READ_LENGTH = 1000
"""The limit of a bad value that is processed, in characters: longer ones are truncated first."""

_SECRETS = frozenset({"token", "header", "keysecret", "urls"})
"""Messages never repeat a value below these keys, which are folded."""


class InvalidValue(ValueError):
    """Raised by validators: what is wrong with a value, and what would be right."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem + (f"; {remedy}" if remedy else ""))
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Finding:
    """A fault without its file. ``meant``: the path of the known key that an unknown one probably means."""

    path: str
    problem: str
    remedy: str = ""
    meant: str = ""

    def at(self, file: Path) -> Fault:
        return Fault(str(file), self.path, self.problem, self.remedy)


def untrusted(file: str, error: Untrusted) -> Fault:
    """Return the fault of a file that another user may write, by its own mode or by that of a directory above it."""
    where = "" if error.path == file else f"{error.path} is "
    return Fault(file, "", f"{where}{error.problem}", error.remedy)


# The format of Consul's tokens. A token in the wrong setting must not be shown in the message about it.
_TOKEN = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def shown(value: object) -> str:
    """Return the value as JSON, shortened, without user information of URLs and without apparent ACL tokens."""
    masked = _TOKEN.sub("…", without_credentials(value[:_READ_LENGTH])) if isinstance(value, str) else value
    try:
        text = json.dumps(masked, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):  # a number of thousands of digits, or endless nesting
        text = kind_of(value)
    text = clean(text, _READ_LENGTH)
    return text if len(text) <= SHOWN_LENGTH else f"{text[: SHOWN_LENGTH - 2]}…" + ('"' if text[0] == '"' else "")


def shown_at(path: str, value: object) -> str:
    """Return the same for the value at this path, or "the value" if it may be a secret."""
    return "the value" if is_secret(path) else shown(value)


def is_secret(path: str) -> bool:
    """True if messages must not repeat what is at this path."""
    return not _SECRETS.isdisjoint(map(fold, re.split(r"[.\[\]]", path)))


def fold(key: str) -> str:
    """Return what all spellings of one key have in common."""
    return key.replace("_", "").lower()


def kind_of(value: object) -> str:
    """Return JSON's name for the type of the value."""
    match value:
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "an array"
        case dict():
            return "an object"
        case None:
            return "null"
        case _:
            return f"a {type(value).__name__}"


def joined(path: str, key: str | int) -> str:
    """Return the path of an item: ``checks`` and 0 make ``checks[0]``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    key = key if key.isprintable() and len(key) <= SHOWN_LENGTH else clean(key, SHOWN_LENGTH)
    return f"{path}.{key}" if path else key


def listed(names: Iterable[str]) -> str:
    """Return the names as part of a sentence: ``"a", "b" or "c"``."""
    *rest, last = [f'"{name}"' for name in names]
    return f"{', '.join(rest)} or {last}" if rest else last
