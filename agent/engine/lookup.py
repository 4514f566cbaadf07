"""Finds containers by name, and what they depend on."""

import socket
import stat
from pathlib import Path

from agent.engine.connection import EngineConnection
from agent.engine.model import Inspect
from agent.engine.startable import (
    DIRECTORY,
    FILE,
    NOTHING,
    Surroundings,
    bound_paths,
    log_collector,
    named_containers,
    needed_paths,
)
from agent.errors import NotFound

COLLECTOR_SECONDS = 2.0
"""How long a log collector may take to accept a connection."""
_PORTS = {"fluentd": 24224, "syslog": 514}
"""The ports that log drivers use if the address names none."""


def inspect(docker: EngineConnection, name: str) -> Inspect | None:
    """Return the container of exactly that name, or None. Docker itself would also accept an ID's prefix."""
    found = find(docker, name)
    return found if found is not None and found["Name"] == f"/{name}" else None


def find(docker: EngineConnection, name_or_id: str) -> Inspect | None:
    with docker.query(f"inspect container {name_or_id}") as queries:
        return queries.find(name_or_id)


def existing(docker: EngineConnection, name: str) -> Inspect:
    found = inspect(docker, name)
    if found is None:
        raise NotFound(
            f"container {name} does not exist (Docker at {docker.address}). Start it once by hand "
            f"(docker run --name {name} …), or correct reload.container in the definition"
        )
    return found


def surroundings(docker: EngineConnection, proc: Path, container: Inspect) -> Surroundings:
    """Return what a container depends on. ``proc``: the process table of the Engine's PID namespace."""
    containers = {name: find(docker, name) for name in named_containers(container)}
    if not _is_of_this_host(container):
        return Surroundings(containers)
    return Surroundings(containers, host_paths(container), _mounted(proc, container), _is_collector_silent(container))


def host_paths(container: Inspect) -> dict[str, str]:
    """Return what is at the paths that a container needs on this host."""
    found = {path: _kind(path) for path in (*needed_paths(container), *bound_paths(container).values())}
    return {path: kind for path, kind in found.items() if kind is not None}


def _is_of_this_host(container: Inspect) -> bool:
    """True if svcagent can see the Engine's files of a container: not for a remote Engine, nor inside a container."""
    return _kind(container.get("HostsPath") or "") == FILE


def _kind(path: str) -> str | None:
    """Return what is at a path; None if this user may not look at it."""
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING
    except OSError:
        return None
    return DIRECTORY if stat.S_ISDIR(mode) else FILE


def _mounted(proc: Path, container: Inspect) -> dict[str, str]:
    """Return what a running container has at the paths where something of the host is mounted."""
    process = proc / str(container["State"]["Pid"])
    try:
        lines = (process / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # it does not run, or this user may not look
        return {}
    # A path through a symbolic link is not in this list, and would lead out of the container.
    mount_points = {line.split()[4] for line in lines}
    found = {path: _kind(f"{process}/root{path}") for path in bound_paths(container) if path in mount_points}
    return {path: kind for path, kind in found.items() if kind is not None}


def _is_collector_silent(container: Inspect) -> bool:
    """True if the log collector accepts no connection over TCP. Others are left to Docker."""
    address = log_collector(container)
    if address is None or not address.hostname:
        return False
    try:
        port = address.port or _PORTS[container["HostConfig"]["LogConfig"]["Type"]]
        socket.create_connection((address.hostname, port), COLLECTOR_SECONDS).close()
    except (ValueError, KeyError):  # an invalid port
        return False
    except OSError:
        return True
    return False
