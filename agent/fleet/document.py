"""The common format of the documents: a key below ``svcagent/<service>/``, and small JSON with a version. No I/O.

A document may be damaged or written by a newer svcagent, by hand, or by an attacker. Each field is
checked. Each document's module decides how an unreadable one counts; it never affects another document.
"""

import json
import math
import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from agent.data import dataclass
from agent.definitions.reload import OWN_PREFIX
from agent.errors import SvcagentError
from agent.files import read_regular
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


def read_local(file: Path) -> bytes:
    """Return the content of a file in the state directory; empty if there is none. Raise `SvcagentError` otherwise."""
    try:
        return read_regular(file)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SvcagentError(
            f"cannot read {file}: {error.strerror}. Run as the owner of the state directory", kind="cannot-read"
        ) from error


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


def fields_of(text: bytes | str) -> Mapping[str, Any]:
    """Return the fields of a document. Raise `Unreadable` if it is not a JSON object or has another version."""
    document = decode(text)
    version = document.get("v")
    if type(version) is not int or version != VERSION:
        shown = version if version is None or (type(version) is int and abs(version) < 10**6) else "not a number"
        raise Unreadable(f"its version is {shown}, but this svcagent reads only {VERSION}; upgrade svcagent")
    return document


class Document:
    """A document as a frozen dataclass. A field whose metadata is a kind (`NAME`, `MOMENT`, …) is in the JSON."""

    def encode(self, **further: Any) -> str:
        return encode(**further, **{key: kind.write(getattr(self, name)) for name, key, kind in _layout(type(self))})

    @classmethod
    def decode(cls, text: bytes | str, **further: Any) -> Self:
        """Return the document; ``further`` are the fields that are not in the JSON. Raise `Unreadable`."""
        document = fields_of(text)
        return cls(**further, **{name: kind.find(document, key) for name, key, kind in _layout(cls)})


_REQUIRED = object()


@dataclass(frozen=True)
class FieldKind:
    """How a field is checked and written, and what a missing one counts as. None and "" are not written."""

    check: Callable[[Any, str], Any]
    """Takes the value and the key. Returns the value, or raises `Unreadable`."""
    missing: Any = ""
    write: Callable[[Any], Any] = lambda value: value

    def find(self, document: Mapping[str, Any], key: str) -> Any:
        """Return the field's value in a document, or raise `Unreadable`."""
        is_text = self.missing in ("", None, _REQUIRED)  # then an empty one is missing
        if key in document and not (is_text and document[key] == ""):
            found = self.check(document[key], key)
            if found != "":
                return found
        if self.missing is _REQUIRED:
            raise Unreadable(f"it has no {key}")
        return self.missing


def _layout(document: Any) -> Iterator[tuple[str, str, FieldKind]]:
    for one in fields(document):
        if "kind" in one.metadata:
            yield one.name, one.metadata.get("key", one.name), one.metadata["kind"]


def stored_as(key: str, kind: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the kind of a field that has another name in the JSON."""
    return {**kind, "key": key}


def _text(found: Any, key: str) -> str:
    if not isinstance(found, str):
        raise Unreadable(f"its {key} is not a string")
    return found


def _name(found: Any, key: str) -> str:
    if not is_name(_text(found, key)):
        raise Unreadable(f"its {key} is not a printable string of at most {LONGEST_NAME} characters")
    return str(found)


def _digest(found: Any, key: str) -> str:
    if not is_digest(_text(found, key)):
        raise Unreadable(f"its {key} is not sha256: and 64 hexadecimal digits")
    return str(found)


def _flag(found: Any, key: str) -> bool:
    if not isinstance(found, bool):
        raise Unreadable(f"its {key} is neither true nor false")
    return found


def _moment(found: Any, key: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_name(found, key))
        is_local = moment.tzinfo is None
        moment = moment.replace(tzinfo=UTC) if is_local else moment.astimezone(UTC)
    except Unreadable:
        raise
    except (ValueError, OverflowError) as error:
        raise Unreadable(f"its {key} is not a time") from error
    if is_local:
        raise Unreadable(f"its {key} has no time zone")
    if not EARLIEST <= moment < LATEST:
        raise Unreadable(f"its {key} is not between the years {EARLIEST.year} and {LATEST.year}")
    return moment


def _texts(found: Any, key: str) -> frozenset[str]:
    if not isinstance(found, list) or not all(isinstance(one, str) and is_name(one) for one in found):
        raise Unreadable(f"its {key} is not an array of short strings")
    return frozenset(found)


def _steps(found: Any, key: str) -> tuple[tuple[str, float], ...]:
    if not isinstance(found, list) or len(found) > MOST_STEPS or not all(map(_is_step, found)):
        raise Unreadable(f"its {key} is not an array of steps with seconds")
    return tuple((step, float(seconds)) for step, seconds in found)


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


def _prose(limit: int, missing: Any = "") -> Mapping[str, FieldKind]:
    def check(found: Any, key: str) -> str:
        return bounded(_text(found, key), limit)

    return {"kind": FieldKind(check, missing, lambda text: bounded(text, limit))}


# The kinds of fields, as metadata of dataclass fields.
NAME, OPTIONAL_NAME = {"kind": FieldKind(_name, _REQUIRED)}, {"kind": FieldKind(_name)}
DIGEST, OPTIONAL_DIGEST = {"kind": FieldKind(_digest, _REQUIRED)}, {"kind": FieldKind(_digest)}
MOMENT, OPTIONAL_MOMENT = {"kind": FieldKind(_moment, _REQUIRED)}, {"kind": FieldKind(_moment, None)}
PROSE, REQUIRED_PROSE, LOG = _prose(ERROR_BYTES), _prose(ERROR_BYTES, _REQUIRED), _prose(LOG_BYTES)
FLAG = {"kind": FieldKind(_flag, missing=False, write=lambda flag: flag or None)}
TEXTS = {"kind": FieldKind(_texts, frozenset(), sorted)}
STEPS = {"kind": FieldKind(_steps, (), lambda steps: [[step, round(seconds, 3)] for step, seconds in steps])}
