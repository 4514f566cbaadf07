"""What a container needs to start apart from its image: from its host and from other containers; and who depends on it.

Docker notices only at the start that something is missing. By then the old container is stopped and cannot be started
again either, so svcagent looks for it before. Containers that depend on one would be cut off if it were replaced. Pure.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from urllib.parse import SplitResult, urlsplit

from agent.data import dataclass
from agent.engine.model import Inspect, policy_text
from agent.engine.recreate import clean_path, volume_sources

NOTHING, FILE, DIRECTORY = "nothing", "a file", "a directory"
"""What may be at a path; everything but a directory counts as a file."""

_COLLECTORS = {
    "fluentd": ("fluentd-address", "localhost"),
    "gelf": ("gelf-address", ""),
    "syslog": ("syslog-address", ""),
}
"""Log drivers that may connect when the container starts: the option with the address, and its default."""

_ASYNC = ("fluentd-async", "fluentd-async-connect")
"""Options with which a log driver connects later."""


@dataclass(frozen=True)
class Surroundings:
    """What a container depends on, as far as svcagent could find out.

    :ivar containers: those that it names, by that name or ID; None for one that is gone
    :ivar paths: what is at the paths that it needs on its host
    :ivar mounted: what the running container has mounted, by the path inside it
    :ivar is_collector_silent: its log collector accepts no connection
    """

    containers: Mapping[str, Inspect | None] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    mounted: Mapping[str, str] = field(default_factory=dict)
    is_collector_silent: bool = False


def find_missing(container: Inspect, seen: Surroundings) -> tuple[str, ...]:
    """Return everything that keeps the container, and one created like it, from starting; each with the remedy."""
    return (*_containers(container, seen), *_paths(container, seen), *_collector(container, seen))


def named_containers(container: Inspect) -> frozenset[str]:
    """Return the other containers that it needs, as it names them."""
    return frozenset((*volume_sources(container), *namespace_owners(container), *linked_names(container)))


def bound_paths(container: Inspect) -> dict[str, str]:
    """Return the paths of the host that are mounted in it, by the path inside."""
    return {
        clean_path(mount["Destination"]): str(mount["Source"])
        for mount in container.get("Mounts") or []
        if mount.get("Type") == "bind" and mount.get("Source")
    }


def needed_paths(container: Inspect) -> dict[str, str]:
    """Return the paths of the host that it needs to start as it was, each with its kind."""
    host = container["HostConfig"]
    may_be_made = {
        clean_path(one["Target"])
        for one in host.get("Mounts") or []
        if (one.get("BindOptions") or {}).get("CreateMountpoint")
    }
    found = {path: "bind source" for target, path in bound_paths(container).items() if target not in may_be_made}
    for device in host.get("Devices") or []:
        # A privileged container has all devices of the host, with or without this one.
        if not host.get("Privileged") or device.get("PathInContainer") != device["PathOnHost"]:
            found[device["PathOnHost"]] = "device"
    address = log_collector(container)
    if address is not None and address.scheme.startswith("unix"):
        found[address.path] = "socket of the log collector"
    return found


def log_collector(container: Inspect) -> SplitResult | None:
    """Return the address that its log driver must connect to at the start; None if it need not."""
    log = container["HostConfig"].get("LogConfig") or {}
    options = log.get("Config") or {}
    option, default = _COLLECTORS.get(log.get("Type") or "", ("", ""))
    address = options.get(option) or default
    if not address or any(options.get(key, "").lower() in ("1", "t", "true") for key in _ASYNC):
        return None
    try:
        found = urlsplit(address if "://" in address else f"tcp://{address}")
    except ValueError:  # not an address; Docker would refuse the container
        return None
    return found if found.scheme.startswith(("tcp", "tls", "unix")) else None


def _containers(container: Inspect, seen: Surroundings) -> Iterator[str]:
    found = seen.containers
    for name in volume_sources(container):
        if found[name] is None:
            yield (
                f"it uses the volumes of container {name}, which does not exist; recreate it with the volumes by name "
                "(--volume)"
            )
    needs = {name: f"it uses the {what} of" for name, what in namespace_owners(container).items()}
    needs |= dict.fromkeys(linked_names(container), "it is linked (--link) to")
    for name, need in needs.items():
        other = found[name]
        if other is None or not other["State"]["Running"]:
            yield f"{need} container {name}, which does not run; start {name}, or recreate this container without it"


def _paths(container: Inspect, seen: Surroundings) -> Iterator[str]:
    for path, what in needed_paths(container).items():
        if seen.paths.get(path) == NOTHING:
            yield f"its {what} {path} does not exist; restore it, or recreate the container without it"
    for target, path in bound_paths(container).items():
        now, then = seen.paths.get(path, NOTHING), seen.mounted.get(target, NOTHING)
        if NOTHING not in (now, then) and now != then:
            yield f"its bind source {path} is {now}, but was {then} when the container started; restore it"


def _collector(container: Inspect, seen: Surroundings) -> Iterator[str]:
    address = log_collector(container)
    if seen.is_collector_silent and address is not None:
        yield (
            f"its log driver {container['HostConfig']['LogConfig']['Type']} cannot connect to {address.geturl()}; "
            "start the log collector, or recreate the container with another --log-driver or --log-opt"
        )


NAMESPACES = {"NetworkMode": "network", "PidMode": "PID namespace", "IpcMode": "IPC namespace"}
"""What a container may share with another one (``container:<name or ID>``), by its key in HostConfig."""


def namespace_owners(container: Inspect) -> dict[str, str]:
    """Return the containers whose PID or IPC namespace it shares, by ID or name, with the namespace."""
    modes = ((container["HostConfig"].get(key) or "", what) for key, what in NAMESPACES.items() if key != "NetworkMode")
    return {mode.partition(":")[2]: what for mode, what in modes if mode.startswith("container:")}


def linked_names(container: Inspect) -> tuple[str, ...]:
    """Return the containers to whose addresses it is linked, by name.

    Only the default network has such links. On others, links are names, which a new container gets as well.
    """
    host = container["HostConfig"]
    links = (host.get("Links") or ()) if host["NetworkMode"] in ("default", "bridge") else ()
    return tuple(link.partition(":")[0].removeprefix("/") for link in links)


def dependants(old: Inspect, others: Iterable[Inspect]) -> tuple[str, ...]:
    """Return how each container depends on ``old``, as ``sidecar lives in its network``.

    Not included are those that take volumes from it, because the volumes stay the same, and those that have ended and
    that Docker does not start again.
    """
    found = []
    for other in others:
        if other["Id"] == old["Id"] or _is_over(other):
            continue
        name, host = other["Name"].removeprefix("/"), other["HostConfig"]
        needs = [f"uses its {what}" for key, what in NAMESPACES.items() if _is_of(host.get(key) or "", old)]
        needs += ["is linked to it (--link)"] if old["Name"].removeprefix("/") in linked_names(other) else []
        stopped = "" if other["State"]["Running"] else f" (stopped; if it is not needed, docker rm {name})"
        found += [f"{name} {need}{stopped}" for need in needs]
    return tuple(sorted(found))


def _is_over(container: Inspect) -> bool:
    policy = container["HostConfig"].get("RestartPolicy") or {}
    return container["State"].get("Status") == "exited" and policy_text(policy) == "no"


def _is_of(mode: str, old: Inspect) -> bool:
    kind, _, named = mode.partition(":")
    is_short_id = len(named) >= 12 and old["Id"].startswith(named)
    return kind == "container" and (is_short_id or named == old["Name"].removeprefix("/"))
