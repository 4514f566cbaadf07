"""From a file's own spelling to field names, before validation.

Consul's files are written in snake_case, its API in CamelCase with spellings of its own (``TLSSkipVerify``,
``DockerContainerID``); both are the same once case and underscores are gone. What pydantic cannot see (a key given
twice, the key that was meant by an unknown one) is found here, with its place.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from agent.definitions.faults import Finding, joined, listed, shown
from agent.definitions.part import Part


class Pairs(dict[str, Any]):
    """A JSON object that remembers which keys it was given more than once; for ``object_pairs_hook``."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: tuple[str, ...] = ()
        if len(pairs) != len(self):
            self.repeated = tuple(sorted(key for key, times in Counter(key for key, _ in pairs).items() if times > 1))


def tidy(tree: object, model: type[Part]) -> tuple[object, list[Finding]]:
    """The tree with the model's field names for keys and tuples for lists, and what is wrong with it as a tree."""
    found: list[Finding] = []
    return _walk(tree, Shape(model, None), "", found), found


@dataclass(frozen=True)
class Shape:
    """What a tree is meant for: the part that it becomes, or the shape of what a list or mapping holds."""

    model: type[Part] | None
    inside: "Shape | None"

    @classmethod
    def of(cls, annotation: Any) -> "Shape":
        """Annotations are looked through once; a host may have thousands of files."""
        inside = shape_inside(annotation)
        return cls(model_of(annotation), None if inside is None else cls.of(inside))


NO_SHAPE = Shape(None, None)


@cache
def _known(model: type[Part]) -> Mapping[str, str]:
    """Fields by all that may be written for them, folded."""
    return {fold(name): name for name in model.model_fields} | dict(model.spellings)


@cache
def _shapes(model: type[Part]) -> Mapping[str, Shape]:
    return {name: Shape.of(field.annotation) for name, field in model.model_fields.items()}


def _walk(tree: object, shape: Shape | None, path: str, found: list[Finding]) -> object:
    shape = shape or NO_SHAPE
    match tree:
        case None:
            found.append(Finding(path, "null is not a value here", "leave it out"))
        case str() if not tree.isascii() and any("\ud800" <= character <= "\udfff" for character in tree):
            found.append(Finding(path, f"{shown(tree)} holds half of a character", "write the whole character"))
        case str() if "\0" in tree:
            # Named by its list: so do those validators that refuse one there, and each fault is reported once.
            place = re.sub(r"(\[\d+\])+$", "", path)
            found.append(Finding(place, f"{shown(tree)} holds a NUL character", "no program takes one: remove it"))
        case list():
            return tuple(_walk(item, shape.inside, joined(path, index), found) for index, item in enumerate(tree))
        case dict():
            found.extend(
                Finding(joined(path, key), "this key is given more than once", "keep one of them")
                for key in getattr(tree, "repeated", ())
            )
            if shape.model is not None:
                return _part(tree, shape.model, path, found)
            return {key: _walk(value, shape.inside, joined(path, key), found) for key, value in tree.items()}
    return tree


def _part(tree: dict[str, Any], model: type[Part], path: str, found: list[Finding]) -> dict[str, object]:
    known, shapes = _known(model), _shapes(model)
    given: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for key, value in tree.items():
        folded = fold(key)
        name = known.get(folded, folded)
        if name in spelled:
            problem = f"{shown(spelled[name])} and {shown(key)} are the same key"
            found.append(Finding(joined(path, key), problem, "keep one of them"))
        else:
            spelled[name] = key
            given[name] = value
    fields: dict[str, object] = {}
    for name, value in given.items():
        if name in shapes:
            tidied = _walk(value, shapes[name], joined(path, name), found)
            if tidied is not None:
                fields[name] = tidied
            continue
        key = spelled[name]
        if name in model.refused:
            refusal = model.refused[name](given)
            found.append(Finding(joined(path, key), refusal.problem, refusal.remedy))
        else:
            found.append(Finding(joined(path, key), f"unknown key {shown(key)}", meant(key, model.model_fields)))
    found.extend(
        Finding(joined(path, finding.path) if finding.path else path, finding.problem, finding.remedy)
        for finding in model.across({**given, **fields})
    )
    return fields


def fold(key: str) -> str:
    """What all spellings of one key have in common."""
    return key.replace("_", "").lower()


def meant(key: str, known: Iterable[str]) -> str:
    """A remedy for an unknown key: the nearest known one, or all of them."""
    import difflib  # only for those who mistyped

    folded = {fold(name): name for name in known}
    near = difflib.get_close_matches(fold(key), folded, n=1)
    if near:
        return f'write "{folded[near[0]]}" if that is what you mean'
    return f"known here: {listed(sorted(folded.values()))}"


def _bare(shape: Any) -> Any:
    """The annotation without what may be wrapped around it."""
    if get_origin(shape) is Annotated:
        return _bare(get_args(shape)[0])
    options = [option for option in get_args(shape) if option is not NoneType]
    if NoneType in get_args(shape) and len(options) == 1:
        return _bare(options[0])
    return shape


def model_of(shape: Any) -> type[Part] | None:
    """The part that an annotation names, if it names one."""
    bare = _bare(shape)
    return bare if isinstance(bare, type) and issubclass(bare, Part) else None


def shape_inside(shape: Any) -> Any:
    """The annotation of what a list or mapping of this shape holds."""
    bare = _bare(shape)
    arguments = get_args(bare)
    if get_origin(bare) is tuple:
        return arguments[0]
    return arguments[1] if get_origin(bare) is dict else None
