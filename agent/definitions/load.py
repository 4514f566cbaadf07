"""A directory of definitions, read whole: either every file is good, or every fault of every file is told."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from agent.definitions.claims import Claim, clashes
from agent.definitions.document import Definition
from agent.definitions.examine import Examined, examine, read
from agent.definitions.faults import untrusted
from agent.errors import BadDefinition, Fault
from agent.files import Untrusted, check_directory

NO_VALUES: Mapping[str, str] = MappingProxyType({})


def load(directory: Path, values: Mapping[str, str] = NO_VALUES) -> tuple[Definition, ...]:
    """The definitions of ``*.json`` directly in the directory, in order of file name; hidden files are left alone.

    ``values``: what references like ``${HOSTNAME}`` stand for, by name. Raises `BadDefinition` with all faults of all
    files.
    """
    definitions: list[Definition] = []
    faults: list[Fault] = []
    claimed: list[Claim] = []
    for file in files_of(directory):
        found = _look_at(file, values)
        faults.extend(found.faults)
        claimed.extend(found.claims)
        if found.definition is not None:
            definitions.append(found.definition)
    faults.extend(clashes(claimed))
    if faults:
        raise BadDefinition(faults)
    return tuple(definitions)


def _look_at(file: Path, values: Mapping[str, str]) -> Examined:
    """A file, read and examined; one that cannot be read is faulty, and empty."""
    try:
        content = read(file)
    except BadDefinition as error:
        return Examined(file, b"", None, error.faults)
    return examine(file, content, values)


def files_of(directory: Path) -> list[Path]:
    """The files of a directory that hold definitions, in order of name.

    :raises BadDefinition: the directory cannot be read; its one fault says why.
    """
    try:
        # Through the real path: nobody can replace what was checked.
        names = os.listdir(check_directory(directory))  # noqa: PTH208  # names are filtered before they are joined
    except FileNotFoundError:
        problem, remedy = "no such directory", "create it or give --services-dir"
    except NotADirectoryError:
        problem, remedy = "not a directory", "give --services-dir the directory that holds the definitions"
    except Untrusted as error:
        raise BadDefinition([untrusted(str(directory), error)]) from error
    except OSError as error:
        problem, remedy = f"the directory cannot be read: {error.strerror}", "let svcagent read it"
    else:
        return [directory / name for name in sorted(names) if name.endswith(".json") and not name.startswith(".")]
    raise BadDefinition([Fault(str(directory), "", problem, remedy)])
