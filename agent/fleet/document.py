"""The form that all documents have: a key below ``svcagent/<service>/``, small JSON with a version. No I/O.

A document may have been written by a newer svcagent, or by hand, or be damaged. That is never a traceback: `Fields`
raises `Unreadable`, and each document's own module says what an unreadable one counts as.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agent.consul import KvPair
from agent.definitions.reload import OWN_PREFIX

VERSION = 1

ERROR_BYTES = 1024
LOG_BYTES = 4096


class Unreadable(ValueError):
    """A document that this svcagent cannot read; says why."""


def key(service: str, *parts: str) -> str:
    """Where a document of a service stands; with ``""`` as the last part, the prefix of several."""
    return "/".join((OWN_PREFIX, service, *parts))


def encode(**fields: Any) -> str:
    """The document's text. Moments are written to the second, with their zone; what is None or empty is left out."""
    document: dict[str, Any] = {"v": VERSION}
    for name, value in fields.items():
        if value or value == 0:
            document[name] = value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
    return json.dumps(document, separators=(",", ":"))


class Fields:
    """The fields of one document, each asked for with the type that it must have."""

    def __init__(self, text: bytes | str) -> None:
        """:raises Unreadable: not JSON, no object, or of a version that is not this one."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Unreadable("it is not JSON") from error
        if not isinstance(document, dict):
            raise Unreadable("it is not a JSON object")
        if document.get("v") != VERSION:
            raise Unreadable(
                f"its version is {document.get('v')!r}, and this svcagent knows {VERSION}; update svcagent"
            )
        self._document: Mapping[str, Any] = document

    @classmethod
    def of(cls, pair: KvPair) -> "Fields":
        """The fields of a key's value."""
        return cls(pair.value)

    def text(self, name: str) -> str:
        """A text that must be there and not be empty."""
        if not (found := self.text_or_empty(name)):
            raise Unreadable(f"it has no {name}")
        return found

    def text_or_empty(self, name: str) -> str:
        """A text, empty if it is not there."""
        found = self._document.get(name, "")
        if not isinstance(found, str):
            raise Unreadable(f"its {name} is not a text")
        return found

    def moment(self, name: str) -> datetime:
        """A moment that must be there, in UTC."""
        if (found := self.moment_or_none(name)) is None:
            raise Unreadable(f"it has no {name}")
        return found

    def moment_or_none(self, name: str) -> datetime | None:
        """A moment in UTC, if it is there."""
        text = self.text_or_empty(name)
        if not text:
            return None
        try:
            found = datetime.fromisoformat(text)
            if found.tzinfo is not None:
                return found.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise Unreadable(f"its {name} is not a time") from error
        raise Unreadable(f"its {name} has no time zone")

    def texts(self, name: str) -> frozenset[str]:
        """A list of texts without an order, empty if it is not there."""
        found = self._document.get(name, [])
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise Unreadable(f"its {name} is not a list of texts")
        return frozenset(found)

    def steps(self, name: str) -> tuple[tuple[str, float], ...]:
        """Steps with their seconds, none if it is not there."""
        found = self._document.get(name, [])
        try:
            return tuple((str(step), float(seconds)) for step, seconds in found)
        except (TypeError, ValueError) as error:
            raise Unreadable(f"its {name} is not a list of steps with seconds") from error


def bounded(text: str, limit: int) -> str:
    """The end of a text, in so many bytes of UTF-8 at most, and nothing in it that moves a terminal's cursor."""
    clean = "".join(c if c.isprintable() or c in "\n\t" else "" for c in text.strip())
    return clean.encode()[-limit:].decode(errors="ignore")
