"""The files that Docker Compose copies into a container before its start. No setting of the container names them.

Compose 2 copies secrets from its environment, and configs whose content is in its own file. They are in the container's
writable layer, among what its programs have written there. The times in an archive have whole seconds, and Compose sets
them when it copies: after it creates the container, and before each time that it starts it.
"""

import io
import tarfile
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from agent.engine.connection import EngineConnection
from agent.engine.model import Inspect, moment
from agent.engine.recreate import clean_path
from agent.errors import NotFound
from agent.logs import WARNING, log
from agent.text import clean

SECRETS = "/run/secrets/"
LARGEST = 1 << 20
"""In bytes: content from an environment or a Compose file is smaller."""
MOST_PATHS = 1000
"""How many paths are examined; each takes the Engine some milliseconds."""

_NOT_REGULAR = 0x8F280000
"""The bits of a mode, as Go writes it, of directories, links, devices, sockets and the like."""
_ROUNDING = timedelta(seconds=1)
_CLOSE = timedelta(minutes=1)
"""The longest time from the creation of a container to a copy, or from a copy to the start that follows."""


def copy(docker: EngineConnection, old: Inspect, new: Inspect) -> None:
    """Copy the files of Compose from a container into its successor, which was created and has not run."""
    name = old["Name"].removeprefix("/")
    with docker.call(f"list the changed files of container {name}") as client:
        paths = candidates(old, client.changed_paths(old["Id"]))
    if len(paths) > MOST_PATHS:
        log(
            f"container {name} has {len(paths)} files in its own layer; svcagent looks for files of Docker "
            "Compose among only "
            f"{MOST_PATHS} of them",
            level=WARNING,
        )
    packed, copied = io.BytesIO(), 0
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in paths[:MOST_PATHS]:
            try:
                with docker.call(f"copy {clean(path)} of container {name}") as client:
                    if not is_of_compose(path, client.path_status(old["Id"], path), old):
                        continue
                    found = b"".join(client.get_archive(old["Id"], path)[0])
            except NotFound:  # a program has removed it meanwhile
                continue
            _add(archive, path, found, int(moment(new.get("Created")).timestamp()))
            copied += 1
    if copied:
        with docker.call(f"copy files of Docker Compose into the new container of {name}", is_write=True) as client:
            client.put_archive(new["Id"], "/", packed.getvalue())


def candidates(container: Inspect, changed: Iterable[str]) -> list[str]:
    """Return the paths of a container's own layer that may be files of Compose, the likeliest first."""
    mounts = {
        *(one["Destination"] for one in container.get("Mounts") or []),
        *(container["HostConfig"].get("Tmpfs") or {}),
    }
    hidden = tuple(f"{clean_path(path)}/" for path in mounts)
    paths = {path for path in changed if not f"{path}/".startswith(hidden)}
    directories = {path.rpartition("/")[0] for path in paths}
    return sorted(paths - directories, key=lambda path: (not path.startswith(SECRETS), path.count("/"), path))


def is_of_compose(path: str, status: Mapping[str, Any], container: Inspect) -> bool:
    """True if Compose copied this file into a container. ``status``: the Engine's description of the path."""
    if status["mode"] & _NOT_REGULAR or status["size"] > LARGEST:
        return False
    if path.startswith(SECRETS):
        return True
    state = container["State"]
    dated, created = moment(status["mtime"]), moment(container.get("Created"))
    started, finished = moment(state["StartedAt"]), moment(state.get("FinishedAt"))
    stopped = finished if finished <= started else created
    # Docker keeps the time of the last start only. A file of any other time was copied into the running container.
    is_close = dated - created <= _CLOSE or (started - dated <= _CLOSE and dated - stopped >= -_ROUNDING)
    return dated.microsecond == 0 and is_close and dated - created >= -_ROUNDING and started - dated >= -_ROUNDING


def _add(archive: tarfile.TarFile, path: str, found: bytes, date: int) -> None:
    """Add a file from an archive with that file alone. Its new time lets the next reload find it as well."""
    with tarfile.open(fileobj=io.BytesIO(found)) as single:
        for member in single:
            member.name, member.mtime, member.pax_headers = path.lstrip("/"), date, {}
            archive.addfile(member, single.extractfile(member))
