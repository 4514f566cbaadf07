"""Check that a JSON document of a server has the shape that svcagent relies on, before any of it is used.

A shape is written like the document: a type, a list with the shape of its items, or a mapping from keys to shapes. A
key that ends in ``?`` may be missing or null. The key ``*`` matches all keys that are not named; ``*?`` also permits
null. Keys that the shape does not name are ignored.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

Shape: TypeAlias = Any


class WrongShape(ValueError):
    """A document differs from what its server documents. The message names the place."""


def require(document: object, shape: Shape, place: str = "") -> None:
    """Check a document against a shape.

    :raises WrongShape: it differs; the message names the first place, for example ``HostConfig.Binds[0]``.
    """
    if isinstance(shape, dict):
        if not isinstance(document, dict):
            raise _wrong(place, "an object", document)
        _require_keys(document, shape, place)
    elif isinstance(shape, list):
        if not isinstance(document, list):
            raise _wrong(place, "a list", document)
        for position, item in enumerate(document):
            require(item, shape[0], f"{place}[{position}]")
    elif shape is not object and (not isinstance(document, shape) or (shape is int and isinstance(document, bool))):
        raise _wrong(place, _NAMES[shape], document)


def is_deeper_than(levels: int, document: dict[str, Any] | list[Any]) -> bool:
    """True if objects and lists are nested in more than ``levels`` levels.

    From Python 3.14 on, the parser reads a document of almost any depth, and code that walks through it fails.
    """
    level: list[dict[str, Any] | list[Any]] = [document]
    for _ in range(levels):
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
        if not level:
            return False
    return True


_NAMES: Mapping[type, str] = {str: "a text", int: "a whole number", bool: "true or false"}


def _require_keys(document: Mapping[str, object], shape: Mapping[str, Shape], place: str) -> None:
    for marked, inner in shape.items():
        key = marked.removesuffix("?")
        found = document if key == "*" else {key: document.get(key)}
        for name, value in found.items():
            if value is not None or marked == key:
                require(value, inner, f"{place}.{name}" if place else name)


def _wrong(place: str, expected: str, found: object) -> WrongShape:
    what = "missing or null" if found is None else f"a {type(found).__name__}"
    return WrongShape(f"{place or 'the document'} is {what}, not {expected}")
