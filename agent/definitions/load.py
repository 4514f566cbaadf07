"""Load a directory of definitions: those of its good files, and every fault of the others."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from agent.data import dataclass
from agent.definitions.document import Definition
from agent.definitions.faults import untrusted
from agent.definitions.name_conflicts import SERVICE_ID, SERVICE_NAME, find_name_conflicts
from agent.definitions.parse_file import ParsedFile, parse_file, read
from agent.errors import BadDefinition, Fault
from agent.files import Untrusted, check_directory

NO_VALUES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Loaded:
    """``definitions``: those of the good files. ``skipped``: the other files, which have or share the ``faults``."""

    definitions: tuple[Definition, ...]
    faults: tuple[Fault, ...] = ()
    skipped: tuple[ParsedFile, ...] = ()

    def faults_of(self, name: str) -> tuple[Fault, ...]:
        """Return the faults that keep a service, by name or ID, from being known; none if no file was to define it.

        A file whose service cannot be read may define any service.
        """
        own = [one for one in self.skipped if name in _services(one)]
        names = {use.key for one in own for use in one.name_uses}
        related = {str(one.file) for one in self.skipped if names & {use.key for use in one.name_uses}}
        others = {str(one.file) for one in self.skipped if _services(one)}
        return tuple(one for one in self.faults if (one.file in related if own else one.file not in others))

    def files_in_doubt(self, *names: str) -> tuple[str, ...]:
        """Return the faulty files that may define a service of these names, which no good file defines."""
        files = {fault.file for name in names for fault in self.faults_of(name)}
        return tuple(sorted(files & {str(one.file) for one in self.skipped}))


def load(directory: Path, values: Mapping[str, str] = NO_VALUES) -> tuple[Definition, ...]:
    """Return the definitions of ``*.json`` in the directory, ordered by file name, without hidden files.

    ``values`` are the values of references like ``${HOSTNAME}``, by name.

    :raises BadDefinition: any file has a fault; the error has all faults of all files.
    """
    found = load_valid(directory, values)
    if found.faults:
        raise BadDefinition(list(found.faults))
    return found.definitions


def load_valid(directory: Path, values: Mapping[str, str] = NO_VALUES) -> Loaded:
    """Do the same, but leave out files with a fault, and files that use a name which another file also uses."""
    try:
        parsed = [_read_and_parse(file, values) for file in definition_files(directory)]
    except BadDefinition as error:
        return Loaded((), error.faults)
    faults = [fault for one in parsed for fault in one.faults]
    faults += find_name_conflicts(use for one in parsed for use in one.name_uses)
    faulty = {fault.file for fault in faults}
    # It is unknown which of two files owns a name, so neither is used.
    conflicting = {
        use.key
        for one in parsed
        if str(one.file) in faulty
        for use in one.name_uses
        if use.what != SERVICE_NAME  # services may share it
    }
    good: list[Definition] = []
    skipped: list[ParsedFile] = []
    for one in parsed:
        if one.definition is None or str(one.file) in faulty or any(use.key in conflicting for use in one.name_uses):
            skipped.append(one)
        else:
            good.append(one.definition)
    return Loaded(tuple(good), tuple(sorted(faults)), tuple(skipped))


def _services(parsed: ParsedFile) -> set[str]:
    return {use.name for use in parsed.name_uses if use.what in (SERVICE_ID, SERVICE_NAME)}


def _read_and_parse(file: Path, values: Mapping[str, str]) -> ParsedFile:
    """Read and parse a file. A file that cannot be read is faulty and empty."""
    try:
        content = read(file)
    except BadDefinition as error:
        return ParsedFile(file, b"", None, error.faults)
    return parse_file(file, content, values)


def definition_files(directory: Path) -> list[Path]:
    """Return the definition files of a directory, ordered by name.

    :raises BadDefinition: the directory cannot be read; its one fault says why.
    """
    try:
        # The real path, so that no user can replace the directory after the check.
        names = os.listdir(check_directory(directory))  # noqa: PTH208  # names are filtered before they are joined
    except FileNotFoundError:
        problem, remedy = "no such directory", "create it, or name another with --services-dir"
    except NotADirectoryError:
        problem, remedy = "not a directory", "name a directory with --services-dir"
    except Untrusted as error:
        raise BadDefinition([untrusted(str(directory), error)]) from error
    except OSError as error:
        problem, remedy = f"the directory cannot be read: {error.strerror}", "allow svcagent to read it"
    else:
        return [directory / name for name in sorted(names) if name.endswith(".json") and not name.startswith(".")]
    raise BadDefinition([Fault(str(directory), "", problem, remedy)])
