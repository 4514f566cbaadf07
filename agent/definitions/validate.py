"""Validate a parsed tree, after the spelling of its keys is normalized to field names.

Consul's files are written in snake_case, its API in CamelCase with exceptions (``TLSSkipVerify``,
``DockerContainerID``). Both are the same without case and underscores. This module also finds, with their places, the
faults that `StrictModel.read` cannot see: repeated keys, and unknown keys with the key that was probably meant.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

from agent.definitions.faults import Finding, fold, joined, listed, shown, shown_at
from agent.definitions.strict_model import BAD, ListOf, MapOf, ObjectOf, StrictModel, ValueType

P = TypeVar("P", bound=StrictModel)


class Pairs(dict[str, Any]):
    """A JSON object that remembers repeated keys; for ``object_pairs_hook``."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: tuple[str, ...] = ()
        if len(pairs) != len(self):
            self.repeated = tuple(sorted(key for key, times in Counter(key for key, _ in pairs).items() if times > 1))


def validate(tree: object, model: type[P]) -> tuple[P | None, list[Finding], object]:
    """Return the model if there are no findings, the findings, and the normalized tree, which may be faulty."""
    found: list[Finding] = []
    normalized = _walk(tree, ObjectOf(model), "", found)
    taken = {finding.path for finding in found} | ({finding.meant for finding in found} - {""})
    more: list[Finding] = []
    built = ObjectOf(model).read(normalized, (), more)
    found.extend(finding for finding in more if finding.path not in taken)
    return (None if found or built is BAD else built), found, normalized


def _walk(tree: object, kind: ValueType | None, path: str, found: list[Finding]) -> object:
    inside = kind.item if isinstance(kind, ListOf | MapOf) else None
    match tree:
        case None:
            found.append(Finding(path, "null is not allowed", "leave the key out"))
        case str() if not tree.isascii() and any("\ud800" <= character <= "\udfff" for character in tree):
            found.append(
                Finding(
                    path, f"{shown_at(path, tree)} contains half of a surrogate pair", "write the complete character"
                )
            )
        case str() if "\0" in tree:
            # Use the list's path, as the validators do that refuse NUL there, so that each fault is reported once.
            place = re.sub(r"(\[\d+\])+$", "", path)
            found.append(Finding(place, f"{shown_at(path, tree)} contains a NUL character", "remove it"))
        case list():
            return tuple(_walk(item, inside, joined(path, index), found) for index, item in enumerate(tree))
        case dict():
            found.extend(
                Finding(joined(path, key), "the key occurs more than once", "keep one of them")
                for key in getattr(tree, "repeated", ())
            )
            if isinstance(kind, ObjectOf):
                return _part(tree, kind.model, path, found)
            return {key: _walk(value, inside, joined(path, key), found) for key, value in tree.items()}
    return tree


def _part(tree: dict[str, Any], model: type[StrictModel], path: str, found: list[Finding]) -> dict[str, object]:
    given: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for key, value in tree.items():
        folded = fold(key)
        name = model.names.get(folded, folded)
        if name in spelled:
            problem = f"{shown(spelled[name])} and {shown(key)} are the same key"
            found.append(Finding(joined(path, key), problem, "keep one of them"))
        else:
            spelled[name] = key
            given[name] = value
    fields: dict[str, object] = {}
    for name, value in given.items():
        if name in model.keys:
            normalized = _walk(value, model.keys[name].kind, joined(path, name), found)
            if normalized is not None:
                fields[name] = normalized
            continue
        key = spelled[name]
        if name in model.refused:
            refusal = model.refused[name](given)
            found.append(Finding(joined(path, key), refusal.problem, refusal.remedy))
        else:
            meant = nearest(key, model.keys)
            remedy = suggestion(key, model.keys)
            meant_path = joined(path, meant) if meant else ""
            found.append(Finding(joined(path, key), f"unknown key {shown(key)}", remedy, meant_path))
    meant_keys = {finding.meant for finding in found} - {""}
    for finding in model.across({**given, **fields}):
        place = joined(path, finding.path) if finding.path else path
        if place not in meant_keys:
            found.append(Finding(place, finding.problem, finding.remedy))
    return fields


def suggestion(key: str, known: Iterable[str]) -> str:
    """Return the remedy for an unknown key: the nearest known key, or all of them."""
    near = nearest(key, known)
    return f'write "{near}" if that is what you mean' if near else f"use {listed(sorted(known))}"


def nearest(key: str, known: Iterable[str]) -> str | None:
    """Return the known key that differs little from this one and has its first letter: not ``after`` for ``before``."""
    import difflib  # only needed after a typing error

    folded = {fold(name): name for name in known if name[:1] == fold(key)[:1]}
    near = difflib.get_close_matches(fold(key), folded, n=1, cutoff=0.7)
    return folded[near[0]] if near else None
