"""Files: faults of definitions, who can write what svcagent reads, and who can read its secrets."""

import os
import shlex
from collections.abc import Collection, Iterator
from pathlib import Path

from agent.doctor.diagnosis import Diagnosis, error, ok, unknown, warning
from agent.doctor.examined import ExaminedHost
from agent.errors import Fault
from agent.files import NotRegularFile, Untrusted, check_directory, is_exposed, read_trusted_path
from agent.registration import unmet_requirements
from agent.text import counted


def examine(examined: ExaminedHost) -> Iterator[Diagnosis]:
    """Report files and directories that others can write, and secrets that others can read.

    Definition files are judged with their other faults.
    """
    settings = examined.settings
    yield _directory("the state directory", settings.state_dir)
    secrets = (
        ("the Consul token file", settings.consul.token_file),
        ("the key of svcagent's certificate", settings.consul.client_key),
        ("the DNS key file", settings.dns.key_file),
    )
    for what, file in secrets:
        if file is not None:
            yield _secret(what, file)


def _directory(what: str, directory: Path) -> Diagnosis:
    try:
        real = check_directory(directory)
    except Untrusted as found:
        return error(f"{what}: {found.path} is {found.problem}", found.remedy)
    except FileNotFoundError:
        return error(f"{what} {directory} does not exist", "create it, or let svcagent write its parent directory")
    except OSError as found:
        return unknown(f"cannot read {what} {directory}: {found.strerror}", "run as root")
    if not os.access(real, os.W_OK | os.X_OK):
        return unknown(f"this user may not write {what} {directory}", "run as the user that svcagent runs as")
    return ok(f"only svcagent can write {what} {directory}")


def _secret(what: str, file: Path) -> Diagnosis:
    try:
        _content, found = read_trusted_path(file, 1)
    except Untrusted as untrusted:
        return error(f"{what}: {untrusted.path} is {untrusted.problem}", untrusted.remedy)
    except FileNotFoundError:
        return error(f"{what} {file} does not exist", "create it, or change the setting")
    except (OSError, NotRegularFile) as unread:
        said = getattr(unread, "strerror", None) or str(unread)
        return unknown(f"{what} {file} cannot be read: {said}", "run as the user that svcagent runs as")
    if is_exposed(file, found):
        return warning(f"{what} {file} is world-readable", shlex.join(["chmod", "o-rwx", str(file)]))
    return ok(f"only owner and group can read {what} {file}")


def judge_faults(faults: Collection[Fault], without: str) -> Iterator[Diagnosis]:
    """Judge faults of definitions. ``without`` is the message if there are none."""
    for fault in faults:
        where = f"{fault.file}: {fault.path}" if fault.path else fault.file
        yield error(f"{where}: {fault.problem}", fault.remedy)
    if not faults:
        yield ok(without)


def find_faults(examined: ExaminedHost) -> Iterator[Diagnosis]:
    return judge_faults(examined.faults, f"{counted(len(examined.definitions), 'definition')} without faults")


def find_unmet(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.consul() as consul:
        faults = unmet_requirements(examined.definitions, consul.agent_self())
    yield from judge_faults(faults, "the local agent has everything that the definitions require")
