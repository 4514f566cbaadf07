"""What is wrong with a value, in a person's words: from our own validators and from pydantic's errors alike."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.errors import Fault
from agent.files import Untrusted
from agent.text import clean, without_credentials

SHOWN_LENGTH = 60
"""Characters of a bad value that a message repeats: enough to find it by, short enough to read."""

_READ_LENGTH = 1000
"""Characters of a bad value that are looked at: long ones are cut before anything is made of them."""

SECRETS = frozenset({"token", "header", "key_secret", "urls"})
"""Keys below which a value is never repeated."""


class Wrong(ValueError):
    """Raised by validators: what is wrong with a value, and what would be right."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem + (f"; {remedy}" if remedy else ""))
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Finding:
    """A fault whose file is not known yet."""

    path: str
    problem: str
    remedy: str = ""

    def at(self, file: Path) -> Fault:
        """The fault of that file."""
        return Fault(str(file), self.path, self.problem, self.remedy)


def untrusted(file: str, error: Untrusted) -> Fault:
    """The fault of a file that another user may write, whether by its own mode or by a directory's above it."""
    where = "" if error.path == file else f"{error.path} is "
    return Fault(file, "", f"{where}{error.problem}", error.remedy)


# Consul makes its tokens in this form; one in the wrong setting must not be shown for it.
_TOKEN = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def shown(value: object) -> str:
    """The value as JSON, shortened, without what stands before the @ of a URL, or looks like an ACL token."""
    masked = _TOKEN.sub("…", without_credentials(value[:_READ_LENGTH])) if isinstance(value, str) else value
    try:
        text = json.dumps(masked, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):  # a number of thousands of digits, or one inside the other without end
        text = kind_of(value)
    text = clean(text, _READ_LENGTH)
    return text if len(text) <= SHOWN_LENGTH else f"{text[: SHOWN_LENGTH - 2]}…" + ('"' if text[0] == '"' else "")


def kind_of(value: object) -> str:
    """What JSON calls a value of this type."""
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case None:
            return "null"
        case _:
            return f"a {type(value).__name__}"


def joined(path: str, key: str | int) -> str:
    """The path of an item: ``checks`` and 0 make ``checks[0]``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    key = key if key.isprintable() and len(key) <= SHOWN_LENGTH else clean(key, SHOWN_LENGTH)
    return f"{path}.{key}" if path else key


def findings(error: ValidationError, describe: Callable[[tuple[int | str, ...]], str]) -> Iterator[Finding]:
    """Every error of a validation; ``describe`` says what the field at a place is for."""
    for line in error.errors(include_url=False):
        loc = line["loc"]
        path = ""
        for key in loc:
            # Pydantic marks a fault of a mapping's key, not of its value, with this pseudo-key.
            if key != "[key]":
                path = joined(path, key)
        cause = line.get("ctx", {}).get("error")
        if isinstance(cause, Wrong):
            yield Finding(path, cause.problem, cause.remedy)
        elif line["type"] == "missing":
            what = describe(loc)
            yield Finding(path, "missing", f"add {shown(loc[-1])}: {what[:1].lower()}{what[1:].rstrip('.')}")
        else:
            is_secret = not SECRETS.isdisjoint(str(key) for key in loc)
            subject = "the value" if is_secret else shown(line["input"])
            yield Finding(path, *_worded(line["type"], line.get("ctx", {}), subject, line["input"]))


def _worded(kind: str, context: Mapping[str, Any], subject: str, value: object) -> tuple[str, str]:
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"{subject} is out of range", f"write a number that is {words} {context[bound]}"
    if kind == "literal_error":
        return f"{subject} is not known here", f"write one of {context['expected']}".replace("'", '"')
    wanted, example = _TYPES.get(kind, ("what belongs here", ""))
    problem = f"{subject} is {kind_of(value)}, not {wanted}"
    if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        example = f'write "{subject}" in quotes' if subject != "the value" else "write it in quotes"
    if kind == "int_type" and isinstance(value, str) and value.isdecimal() and subject != "the value":
        example = f"write {value} without quotes"
    if kind == "tuple_type" and isinstance(value, str) and subject != "the value":
        example = f"write [{subject}]"
    return problem, example


_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}

_OBJECT = ("an object", "write {…}")
_TYPES = {
    "string_type": ("text", 'write it in quotes, like "…"'),
    "int_type": ("a whole number", "write it without quotes and without a decimal point"),
    "bool_type": ("true or false", "write true or false, without quotes"),
    "tuple_type": ("a list", "write […]"),
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
}


def listed(names: Iterable[str]) -> str:
    """Names for a sentence: ``"a", "b" or "c"``."""
    *rest, last = [f'"{name}"' for name in names]
    return f"{', '.join(rest)} or {last}" if rest else last
