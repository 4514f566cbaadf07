"""A directory of definitions, read whole: either every file is good, or every fault of every file is told."""

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from agent.definitions.claims import Claim, claims, clashes
from agent.definitions.document import Definition, Document
from agent.definitions.faults import Finding, shown
from agent.definitions.interpolate import interpolate
from agent.definitions.tidy import Pairs
from agent.definitions.validate import validate
from agent.errors import BadDefinition, Fault

SIZE_LIMIT = 1024 * 1024
"""Bytes of a file: a thousand services fit, and a log that strayed into the directory does not."""


NO_VALUES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Judgement:
    """What files come to: the definitions of those without faults, in the order in which they were given."""

    definitions: tuple[Definition, ...]
    faults: tuple[Fault, ...]


def load(directory: Path, values: Mapping[str, str] = NO_VALUES) -> tuple[Definition, ...]:
    """The definitions of ``*.json`` directly in the directory, in order of file name; hidden files are left alone.

    ``values``: what references like ``${HOSTNAME}`` stand for, by name. Raises `BadDefinition` with all faults of all
    files.
    """
    contents, unreadable = read(directory)
    found = judge(contents, values)
    if unreadable or found.faults:
        raise BadDefinition([*unreadable, *found.faults])
    return found.definitions


def read(directory: Path) -> tuple[dict[Path, bytes], list[Fault]]:
    """What stands in the directory's definitions, in order of file name, and those that cannot be read.

    :raises BadDefinition: the directory cannot be read.
    """
    contents: dict[Path, bytes] = {}
    faults = []
    for file in _files(directory):
        try:
            contents[file] = _bytes(file)
        except _Unusable as unusable:
            faults.append(unusable.finding.at(file))
    return contents, faults


def judge(contents: Mapping[Path, bytes], values: Mapping[str, str] = NO_VALUES) -> Judgement:
    """What these files come to together. Of two that claim one name, the fault is the later one's. ``values``: as
    for `load`."""
    definitions: list[Definition] = []
    faults: list[Fault] = []
    claimed: list[Claim] = []
    for file, raw in contents.items():
        tree: object = {}
        definition = None
        try:
            definition, found, tree = _defined(file, raw, values)
        except _Unusable as unusable:
            found = [unusable.finding]
        except RecursionError:
            found = [Finding("", "nested too deeply", "write it flat")]
        faults.extend(finding.at(file) for finding in found)
        claimed.extend(claims(file, tree, definition))
        if definition is not None:
            definitions.append(definition)
    faults.extend(clashes(claimed))
    return Judgement(tuple(definitions), tuple(faults))


def _defined(file: Path, raw: bytes, values: Mapping[str, str]) -> tuple[Definition | None, list[Finding], object]:
    """The definition, unless there are findings; and the tidied tree."""
    text = _text(raw)
    written, unset, used = _parsed(text), list[Finding](), frozenset[str]()
    if "$" in text or "\\u" in text:
        written, unset, used = interpolate(written, values)
    document, found, tree = validate(written, Document)
    if unset:
        # What validation says of text that could not be put together would only repeat this.
        places = {finding.path for finding in unset}
        found = unset + [finding for finding in found if finding.path not in places]
    return (document.definition(file, used) if document and not found else None), found, tree


class _Unusable(Exception):
    """A file that does not even hold a JSON object."""

    def __init__(self, problem: str, remedy: str, path: str = "") -> None:
        super().__init__(problem)
        self.finding = Finding(path, problem, remedy)


def _files(directory: Path) -> list[Path]:
    try:
        names = os.listdir(directory)  # noqa: PTH208  # names are filtered before they are joined
    except FileNotFoundError:
        problem, remedy = "no such directory", "create it or give --services-dir"
    except NotADirectoryError:
        problem, remedy = "not a directory", "give --services-dir the directory that holds the definitions"
    except OSError as error:
        problem, remedy = f"the directory cannot be read: {error.strerror}", "let svcagent read it"
    else:
        return [directory / name for name in sorted(names) if name.endswith(".json") and not name.startswith(".")]
    raise BadDefinition([Fault(str(directory), "", problem, remedy)])


def _text(raw: bytes) -> str:
    if len(raw) > SIZE_LIMIT:
        raise _Unusable(f"larger than {SIZE_LIMIT // 1024} KiB", "a definition is much smaller: is this one?")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise _Unusable("begins with a byte order mark", "save it as UTF-8 without one")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        raise _Unusable("not UTF-8", "save the file as UTF-8", _place(before, len(before))) from error
    if not text.strip():
        raise _Unusable("the file is empty", "write a definition, or remove the file")
    return text


def _bytes(file: Path) -> bytes:
    try:
        found = os.stat(file)  # noqa: PTH116  # a third of pathlib's time, for thousands of files
        if not stat.S_ISREG(found.st_mode):
            # Opening a FIFO that somebody left here would wait for its writer for ever.
            raise _Unusable(
                "a directory, not a file" if stat.S_ISDIR(found.st_mode) else "not a file", "move it elsewhere"
            )
        with open(file, "rb", buffering=0) as stream:  # noqa: PTH123  # likewise
            # Python makes room for as much as is asked for.
            return stream.read(min(found.st_size, SIZE_LIMIT) + 1) or b""
    except OSError as error:
        if isinstance(error, FileNotFoundError) and file.is_symlink():
            problem = f"the link leads to {shown(str(file.readlink()))}, which is not there"
            raise _Unusable(problem, "mend it or remove it") from error
        raise _Unusable(f"the file cannot be read: {error.strerror}", "let svcagent read it") from error


def _parsed(text: str) -> object:
    def no_constant(name: str) -> None:
        # The parser does not say where; outside strings the first one is it.
        tokens = re.finditer(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)', text)
        position = next(token.start() for token in tokens if token[1])
        raise _Unusable(f"{name} is not JSON", "write a number, or leave the key out", _place(text, position))

    try:
        tree = json.loads(text, object_pairs_hook=Pairs, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        said = error.msg.removesuffix(" at")
        problem = f"not JSON: {said[:1].lower()}{said[1:]}"
        remedy = "JSON has no comments, double quotes only, and no comma after the last item"
        raise _Unusable(problem, remedy, f"line {error.lineno} column {error.colno}") from error
    except ValueError as error:
        raise _Unusable("holds a number of thousands of digits", "write it shorter") from error
    if not isinstance(tree, dict):
        raise _Unusable("the file does not hold an object", 'write {"service": {…}}')
    return tree


def _place(text: str, position: int) -> str:
    return f"line {text.count(chr(10), 0, position) + 1} column {position - text.rfind(chr(10), 0, position)}"
