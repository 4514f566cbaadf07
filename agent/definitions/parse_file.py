"""Read one definition file, and return its definition or all its faults."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from agent.data import dataclass
from agent.definitions.document import Definition, DefinitionFile
from agent.definitions.faults import Finding, shown, untrusted
from agent.definitions.interpolate import interpolate
from agent.definitions.name_conflicts import NameUse, find_name_uses
from agent.definitions.validate import Pairs, validate
from agent.errors import BadDefinition, Fault
from agent.files import NotRegularFile, Untrusted, read_trusted
from agent.logs import log_bug
from agent.shapes import is_deeper_than

SIZE_LIMIT = 1024 * 1024
"""The limit of a file in bytes: a thousand services fit; a log file in the directory by mistake does not."""
DEEPEST = 32
"""The limit of nested objects and lists. A definition has fewer than ten levels."""


@dataclass(frozen=True)
class ParsedFile:
    """The definition or the faults of a file. ``name_uses`` are the names that it uses, whether faulty or not."""

    file: Path
    content: bytes
    definition: Definition | None
    faults: tuple[Fault, ...] = ()
    name_uses: tuple[NameUse, ...] = ()


def read(file: Path) -> bytes:
    """Return the content of a file, truncated somewhere beyond `SIZE_LIMIT`.

    :raises BadDefinition: it cannot be read, or is not a file; its one fault says why.
    """
    try:
        return _bytes(file)
    except _Unusable as unusable:
        raise BadDefinition([unusable.finding.at(file)]) from unusable


def parse_file(file: Path, content: bytes, values: Mapping[str, str]) -> ParsedFile:
    """Return what this content of a file defines. The file itself is not read. ``values`` as in `load`."""
    definition, names = None, tuple[NameUse, ...]()
    try:
        definition, found, tree = _defined(file, content, values)
        names = tuple(find_name_uses(file, tree, definition))
    except _Unusable as unusable:
        found = [unusable.finding]
    except Exception as error:  # noqa: BLE001  # a bug that one file triggers must not disable the other files
        log_bug(f"{file} cannot be examined", error)
        problem = f"internal error ({type(error).__name__}); this is a bug in svcagent"
        found = [Finding("", problem, "report it with the trace in the log")]
    faults = tuple(finding.at(file) for finding in found)
    return ParsedFile(file, content, None if faults else definition, faults, names)


def _defined(file: Path, content: bytes, values: Mapping[str, str]) -> tuple[Definition | None, list[Finding], object]:
    """Return the definition, if there are no findings, the findings, and the normalized tree."""
    text = _text(content)
    written, unset, used = _parsed(text), list[Finding](), frozenset[str]()
    if "$" in text or "\\u" in text:
        written, unset, used = interpolate(written, values)
    document, found, tree = validate(written, DefinitionFile)
    if unset:
        # Validation would report text with missing values a second time.
        places = {finding.path for finding in unset}
        found = unset + [finding for finding in found if finding.path not in places]
    return (document.definition(file, used) if document and not found else None), found, tree


class _Unusable(Exception):
    """The file does not contain a JSON object."""

    def __init__(self, problem: str, remedy: str, path: str = "") -> None:
        super().__init__(problem)
        self.finding = Finding(path, problem, remedy)


def _text(raw: bytes) -> str:
    if len(raw) > SIZE_LIMIT:
        raise _Unusable(f"larger than {SIZE_LIMIT // 1024} KiB", "move it elsewhere if it is not a definition")
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
        return read_trusted(file, SIZE_LIMIT + 1)[0]
    except (NotRegularFile, IsADirectoryError) as error:
        problem = str(error) if isinstance(error, NotRegularFile) else "a directory, not a file"
        raise _Unusable(problem, "move it elsewhere") from error
    except Untrusted as error:
        fault = untrusted(str(file), error)
        raise _Unusable(fault.problem, fault.remedy) from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) and file.is_symlink():
            problem = f"the symbolic link points to {shown(os.readlink(file))}, which does not exist"  # noqa: PTH115  # text
            raise _Unusable(problem, "repair it or remove it") from error
        raise _Unusable(f"the file cannot be read: {error.strerror}", "allow svcagent to read it") from error


def _parsed(text: str) -> object:
    def no_constant(name: str) -> None:
        # The parser does not say where. The first occurrence outside strings is the place.
        tokens = re.finditer(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)', text)
        position = next(token.start() for token in tokens if token[1])
        raise _Unusable(f"{name} is not JSON", "write a number, or leave the key out", _place(text, position))

    try:
        tree = json.loads(text, object_pairs_hook=Pairs, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        message = error.msg.removesuffix(" at")
        problem = f"not JSON: {message[:1].lower()}{message[1:]}"
        remedy = "JSON allows no comments, only double quotes, and no comma after the last item"
        raise _Unusable(problem, remedy, f"line {error.lineno} column {error.colno}") from error
    except ValueError as error:
        raise _Unusable("contains a number with thousands of digits", "shorten it") from error
    except RecursionError as error:
        raise _too_deep() from error
    if not isinstance(tree, dict):
        raise _Unusable("the file does not contain a JSON object", 'write {"service": {…}}')
    if is_deeper_than(DEEPEST, tree):
        raise _too_deep()
    return tree


def _too_deep() -> _Unusable:
    return _Unusable("nested too deeply", f"use at most {DEEPEST} levels")


def _place(text: str, position: int) -> str:
    return f"line {text.count(chr(10), 0, position) + 1} column {position - text.rfind(chr(10), 0, position)}"
