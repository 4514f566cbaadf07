"""The common format of the documents: a key below ``svcagent/<service>/``, and small JSON with a version. No I/O.

A document may be damaged or written by a newer svcagent, by hand, or by an attacker. `Fields` checks each field and
raises `Unreadable`. Each document's module decides how an unreadable one counts; it never affects another document.
"""

import json
import math
import re
import string
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Self
from urllib.parse import quote

from agent.consul import KvPair
from agent.data import dataclass
from agent.definitions.reload import OWN_PREFIX
from agent.shapes import is_deeper_than

VERSION = 1

ERROR_BYTES = 1024
LOG_BYTES = 4096

LONGEST_DOCUMENT = 65_536
"""Bytes. svcagent's own documents are smaller than 12 KB."""
LONGEST_NAME = 255
"""Characters of a node, an image reference, a step, a user."""
DEEPEST = 8
MOST_STEPS = 100
LONGEST_STEP_SECONDS = 1e9
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PLAIN = frozenset(string.ascii_letters + string.digits + ",_-")


class Unreadable(ValueError):
    """A document that this svcagent cannot read. The message is the reason."""


def key(service: str, *parts: str) -> str:
    """Return the key of a service's document; with ``""`` as the last part, a prefix.

    The service's name is in lower case because Consul ignores its case: ``Web`` and ``web`` share documents.
    """
    return "/".join((OWN_PREFIX, service.lower(), *parts))


def readable_keys(service: str, *parts: str) -> tuple[str, ...]:
    """Return `key`, and for a name with capitals also the key that earlier releases wrote."""
    now, before = key(service, *parts), "/".join((OWN_PREFIX, service, *parts))
    return (now,) if before == now else (now, before)


def quoted(text: str) -> str:
    """Encode any text as one part of a key. `unquoted` reverses it.

    Some Consul releases refuse keys with ``..`` or characters outside ``A-Za-z0-9,._-/=&?``. All other characters are
    encoded as ``=`` and two hexadecimal digits per byte of UTF-8. So are ``=``, ``&`` and ``?``, which are special in a
    URL, and a dot at the beginning or after another dot.
    """
    signs = []
    previous = "."
    for sign in text:
        is_plain = sign in _PLAIN or (sign == "." and previous != ".")
        signs.append(sign if is_plain else "".join(f"={byte:02X}" for byte in sign.encode(errors="surrogatepass")))
        previous = sign
    return "".join(signs)


def unquoted(part: str) -> str:
    """Reverse `quoted`. For a part that `quoted` did not create, return its printable characters."""
    try:
        text = re.sub(r"(?:=[0-9A-F]{2})+", lambda found: bytes.fromhex(found[0].replace("=", "")).decode(), part)
    except UnicodeDecodeError:
        text = ""
    return text if is_name(text) else "".join(filter(str.isprintable, part))[:LONGEST_NAME]


def is_digest(text: str) -> bool:
    """True for ``sha256:`` and 64 hexadecimal digits in lower case."""
    return _DIGEST.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """True if a text is printable, not empty and at most `LONGEST_NAME` characters long."""
    return 0 < len(text) <= LONGEST_NAME and text.isprintable()


def file_part(service: str) -> str:
    """Return a service's name as a part of a file name."""
    return quote(service, safe="")


def bounded(text: str, limit: int) -> str:
    """Return the last ``limit`` bytes of a text in UTF-8, without characters that move a terminal's cursor."""
    clean = "".join(c if c.isprintable() or c in "\n\t" else "" for c in text.strip())
    return clean.encode()[-limit:].decode(errors="ignore")


def encode(**fields: Any) -> str:
    """Return a document's text. Times have seconds and a time zone; None and "" are left out."""
    document: dict[str, Any] = {"v": VERSION}
    for name, value in fields.items():
        if value or value == 0:
            document[name] = value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
    return json.dumps(document, separators=(",", ":"))


def decode(text: bytes | str) -> Mapping[str, Any]:
    """Parse a JSON object of bounded size and depth. Raise `Unreadable`, and nothing else, if it is not one."""
    if len(text) > LONGEST_DOCUMENT:
        raise Unreadable(f"it is longer than {LONGEST_DOCUMENT} bytes")
    try:
        # The parser raises MemoryError or RecursionError for deep nesting, and ValueError also for huge integers.
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, MemoryError) as error:
        raise Unreadable("it is not JSON") from error
    if not isinstance(document, dict):
        raise Unreadable("it is not a JSON object")
    if is_deeper_than(DEEPEST, document):
        raise Unreadable("it is nested too deeply")
    return document


class Fields:
    """The fields of one document. Each method checks a field's type and bounds, or raises `Unreadable`."""

    def __init__(self, text: bytes | str) -> None:
        """Raise `Unreadable` if the text is not JSON, not an object, or has another version."""
        self._document = decode(text)
        version = self._document.get("v")
        if type(version) is not int or version != VERSION:
            shown = version if version is None or (type(version) is int and abs(version) < 10**6) else "not a number"
            raise Unreadable(f"its version is {shown}, and this svcagent knows {VERSION}; update svcagent")

    @classmethod
    def of(cls, pair: KvPair) -> "Fields":
        return cls(pair.value)

    def name(self, field: str) -> str:
        """Return a required short printable text."""
        return self._required(field, self.name_or_empty(field))

    def name_or_empty(self, field: str) -> str:
        """Return a short printable text; empty if it is missing."""
        found = self._text(field)
        if found and not is_name(found):
            raise Unreadable(f"its {field} is not a printable text of at most {LONGEST_NAME} characters")
        return found

    def digest(self, field: str) -> str:
        """Return a required digest."""
        return self._required(field, self.digest_or_empty(field))

    def digest_or_empty(self, field: str) -> str:
        """Return a digest; empty if it is missing."""
        found = self._text(field)
        if found and not is_digest(found):
            raise Unreadable(f"its {field} is not sha256: and 64 hexadecimal digits")
        return found

    def prose(self, field: str, limit: int = ERROR_BYTES) -> str:
        """Return the bounded end of any text, without control characters; empty if it is missing."""
        return bounded(self._text(field), limit)

    def flag(self, field: str) -> bool:
        """Return a boolean; False if it is missing."""
        found = self._document.get(field, False)
        if not isinstance(found, bool):
            raise Unreadable(f"its {field} is neither true nor false")
        return found

    def moment(self, field: str) -> datetime:
        """Return a required time in UTC."""
        found = self.moment_or_none(field)
        if found is None:
            raise Unreadable(f"it has no {field}")
        return found

    def moment_or_none(self, field: str) -> datetime | None:
        """Return a time in UTC; None if it is missing."""
        text = self.name_or_empty(field)
        if not text:
            return None
        try:
            found = datetime.fromisoformat(text)
            if found.tzinfo is None:
                raise Unreadable(f"its {field} has no time zone")
            found = found.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            if isinstance(error, Unreadable):
                raise
            raise Unreadable(f"its {field} is not a time") from error
        if not EARLIEST <= found < LATEST:
            raise Unreadable(f"its {field} is not between the years {EARLIEST.year} and {LATEST.year}")
        return found

    def texts(self, field: str) -> frozenset[str]:
        """Return a list of short printable texts as a set; empty if it is missing."""
        found = self._document.get(field, [])
        if not isinstance(found, list) or not all(isinstance(one, str) and is_name(one) for one in found):
            raise Unreadable(f"its {field} is not a list of short texts")
        return frozenset(found)

    def steps(self, field: str) -> tuple[tuple[str, float], ...]:
        """Return steps with their seconds; none if they are missing."""
        found = self._document.get(field, [])
        if not isinstance(found, list) or len(found) > MOST_STEPS or not all(map(_is_step, found)):
            raise Unreadable(f"its {field} is not a list of steps with seconds")
        return tuple((step, float(seconds)) for step, seconds in found)

    def _text(self, field: str) -> str:
        found = self._document.get(field, "")
        if not isinstance(found, str):
            raise Unreadable(f"its {field} is not a text")
        return found

    def _required(self, field: str, found: str) -> str:
        if not found:
            raise Unreadable(f"it has no {field}")
        return found


@dataclass(frozen=True)
class DocumentField:
    """How one field is read, and how it is written (None and "" are left out). ``name`` is its own by default."""

    read: Callable[[Fields, str], Any]
    write: Callable[[Any], Any] = lambda value: value
    name: str = ""


class FieldKind:
    """The kinds of fields."""

    NAME, NAME_OR_EMPTY = DocumentField(Fields.name), DocumentField(Fields.name_or_empty)
    DIGEST, DIGEST_OR_EMPTY = DocumentField(Fields.digest), DocumentField(Fields.digest_or_empty)
    MOMENT, MOMENT_OR_NONE = DocumentField(Fields.moment), DocumentField(Fields.moment_or_none)
    FLAG = DocumentField(Fields.flag, lambda flag: flag or None)
    STEPS = DocumentField(Fields.steps, lambda steps: [[step, round(seconds, 3)] for step, seconds in steps])
    PROSE = DocumentField(Fields.prose, lambda text: bounded(text, ERROR_BYTES))
    LOG = DocumentField(lambda fields, name: fields.prose(name, LOG_BYTES), lambda text: bounded(text, LOG_BYTES))


class Document:
    """A document as a frozen dataclass; ``layout`` has those of its fields that are in the JSON."""

    layout: ClassVar[Mapping[str, DocumentField]]

    def encode(self, **further: Any) -> str:
        found = {one.name or name: one.write(getattr(self, name)) for name, one in self.layout.items()}
        return encode(**further, **found)

    @classmethod
    def decode(cls, text: bytes | str, **further: Any) -> Self:
        """Return the document; ``further`` are the fields that are not in the JSON. Raise `Unreadable`."""
        fields = Fields(text)
        return cls(**further, **{name: one.read(fields, one.name or name) for name, one in cls.layout.items()})


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_step(entry: Any) -> bool:
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    step, seconds = entry
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    # Compare before converting: an integer of 400 digits overflows a float.
    is_bounded = is_number and 0 <= seconds <= LONGEST_STEP_SECONDS
    return is_bounded and math.isfinite(seconds) and isinstance(step, str) and is_name(step)
