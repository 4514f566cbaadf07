"""The differences between a container and its successor, found before anything is stopped. Pure.

Both documents are flattened to leaves by path. A leaf that differs is a difference unless `MAY_DIFFER` names it, with
the reason, or the two images explain it: then the old value is the old image's, and the new value the new image's.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from agent.engine.model import Inspect, policy_text
from agent.engine.recreate import (
    COMPOSE_IMAGE_LABEL,
    EMPTY_MODES,
    clean_path,
    is_composes_own,
    is_for_platform,
    is_published,
    link_of,
    networks_of,
    own_aliases,
    platform_of,
    published_ports,
    short_id,
)

Path: TypeAlias = tuple[str, ...]

PLATFORM: Path = ("Image", "Platform")
"""The platform that the image was built for. It is not in the container's document."""

MAY_DIFFER: Mapping[str, str] = {
    # Paths with their parts separated by spaces; a pattern also covers everything below it.
    "Id": "each container has its own",
    "Created": "the time at which it was made",
    "Name": "the new one is renamed when the old one was stopped",
    "Image": "the purpose of a reload",
    "ImageManifestDescriptor": "likewise, for one platform",
    "State": "the new one has not run",
    "RestartCount": "likewise",
    "ExecIDs": "commands run in the old one by docker exec",
    "Path": "follows from Entrypoint and Cmd",
    "Args": "follows from Entrypoint and Cmd",
    "GraphDriver": "each container has its own writable layer",
    "Storage": "likewise, in newer Engines",
    "SizeRw": "likewise",
    "SizeRootFs": "the size of the image",
    "ResolvConfPath": "a file that Docker makes for each container",
    "HostnamePath": "likewise",
    "HostsPath": "likewise",
    "LogPath": "likewise",
    "MountLabel": "SELinux categories, chosen for each container; those asked for are in HostConfig.SecurityOpt",
    "ProcessLabel": "likewise",
    "AppArmorProfile": "set at the start; one asked for is in HostConfig.SecurityOpt",
    "Config Image": "the reference in the definition",
    "Config Labels svcagent.*": "written by svcagent",
    f"Config Labels {COMPOSE_IMAGE_LABEL}": "names the image for Docker Compose",
    "HostConfig Binds": "names the volumes that were anonymous; Mounts has what is mounted",
    "HostConfig Mounts * Source": "likewise",
    "HostConfig NetworkMode": "a name where an ID was, or another network where that one was disconnected; "
    "NetworkSettings.Networks has the networks",
    "Mounts * Source": "where Docker keeps the volume; a bind is compared in `_mounts`",
    "Mounts * Mode": "Docker's own note of the options; RW and Propagation have their effect",
    **dict.fromkeys(
        (
            f"NetworkSettings Networks * {name}"
            for name in (
                *("NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway"),
                *("GlobalIPv6Address", "GlobalIPv6PrefixLen", "MacAddress", "DNSNames"),
            )
        ),
        "set when the container is connected; an address that was asked for is in IPAMConfig and Config.MacAddress",
    ),
}
"""The leaves in which a successor may differ, each with its reason."""

MAY_BE_ADDED: Mapping[str, str] = {
    "HostConfig LogConfig Config": "options of daemon.json, which Docker adds to each container that it creates with "
    "the log driver of daemon.json",
    "HostConfig ShmSize": "the Engine's default, which the old one gets whenever it is started",
    "HostConfig MaskedPaths": "likewise",
    "HostConfig ReadonlyPaths": "likewise",
}
"""The leaves that a successor may have and the old container has not set, each with its reason."""

_UNSET: Mapping[str, Collection[Any]] = {
    "PidsLimit": (0, -1),
    "ShmSize": (0,),
    "OomKillDisable": (False,),
    "MemorySwappiness": (-1,),
}
"""Values of HostConfig that the Engine treats as not set. Its releases differ in the one that they write."""

_OF_THE_IMAGE = frozenset(
    {
        *("Env", "Labels", "Cmd", "Entrypoint", "Volumes", "ExposedPorts", "WorkingDir", "User", "StopSignal"),
        *("Healthcheck", "Shell", "OnBuild", "ArgsEscaped"),
    }
)
"""The keys of Config that an image may set."""

_KEYS = ("Destination", "Target", "PathInContainer", "Name")
"""The keys that identify an element of a list: of Mounts, HostConfig.Mounts, Devices and Ulimits."""

_SIZES = frozenset({"ShmSize", "Memory", "MemoryReservation", "MemorySwap", "KernelMemory", "KernelMemoryTCP"})


def differences(old: Inspect, new: Inspect, old_image: Inspect, new_image: Inspect) -> tuple[str, ...]:
    """Return how the new container differs from the old one, as ``HostConfig.ShmSize: 64 MiB, was 128 MiB``.

    The new container was created and connected to its networks, and has not run; the old one may run.
    """
    before, after = dict(_leaves(_normal(old))), dict(_leaves(_normal(new)))
    platforms = platform_of(old, old_image), platform_of(new, new_image)
    if not is_for_platform(platforms[1], platforms[0]):
        before[PLATFORM], after[PLATFORM] = platforms
    defaults, new_defaults = (dict(_leaves({"Config": _config(one.get("Config"))})) for one in (old_image, new_image))
    volumes = {clean_path(path) for path in (new_image.get("Config") or {}).get("Volumes") or {}}

    def is_explained(path: Path) -> bool:
        if path[:1] == ("Mounts",):  # a VOLUME that only the new image declares
            return path[1] in volumes and not any(known[:2] == path[:2] for known in before)
        if path[:2] == ("Config", "ExposedPorts") and path in before and is_published(old, path[2]):
            return False
        if path[:2] == ("Config", "Labels") and is_composes_own(path[2], old["Config"].get("Labels") or {}):
            return False
        return (
            len(path) > 1
            and path[0] == "Config"
            and path[1] in _OF_THE_IMAGE
            and before.get(path) in (None, defaults.get(path))
            and after.get(path) in (None, new_defaults.get(path))
        )

    return tuple(
        f"{'.'.join(path)}: {_shown(path, after.get(path))}, was {_shown(path, before.get(path))}"
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
        and not (path != PLATFORM and _is_any_of(path, MAY_DIFFER))
        and not (is_explained(path) or (path not in before and _is_any_of(path, MAY_BE_ADDED)))
    )


def _is_any_of(path: Path, patterns: Iterable[str]) -> bool:
    for pattern in patterns:
        parts = pattern.split(" ")
        if len(parts) <= len(path) and all(map(fnmatchcase, path, parts)):
            return True
    return False


def _normal(inspect: Inspect) -> dict[str, Any]:
    """Return the document with one spelling where Docker has several."""
    networks = {
        name: {**(endpoint or {}), "Aliases": sorted(own_aliases(inspect, name))}
        for name, endpoint in networks_of(inspect).items()
    }
    config = _config(inspect["Config"])
    if config.get("Hostname") == short_id(inspect):
        config["Hostname"] = ""
    return {
        **inspect,
        "Config": config,
        "HostConfig": _host(inspect),
        "Mounts": [_mount(one) for one in inspect.get("Mounts") or []],
        "NetworkSettings": {"Networks": {name: {"connected": True, **one} for name, one in networks.items()}},
    }


def _host(inspect: Inspect) -> dict[str, Any]:
    host = dict(inspect["HostConfig"])
    host["Links"] = sorted(link_of(link) for link in host.get("Links") or [])
    host["PortBindings"] = published_ports(inspect)
    host["RestartPolicy"] = policy_text(host.get("RestartPolicy") or {})
    host |= {key: mode for key, mode in EMPTY_MODES.items() if host.get(key) == ""}
    host |= {key: None for key, values in _UNSET.items() if host.get(key) in values}
    # An empty list was requested, for no path at all; null was not.
    host |= {key: "none" for key in ("MaskedPaths", "ReadonlyPaths") if host.get(key) == []}
    return host


def _config(config: Inspect | None) -> dict[str, Any]:
    """Return Config with sets and assignments as mappings, so that each member is a leaf."""
    found = dict(config or {})
    found["Env"] = {entry.partition("=")[0]: entry for entry in found.get("Env") or []}
    for key in ("Volumes", "ExposedPorts"):
        found[key] = dict.fromkeys(found.get(key) or {}, True)
    if found.get("Entrypoint") == [""]:  # the form of `--entrypoint ""`
        found["Entrypoint"] = None
    return found


def _mount(mount: Inspect) -> dict[str, Any]:
    """Return a mount with the source of a bind as ``Bound``. Docker chooses the source of a volume."""
    is_bind = mount.get("Type") == "bind"
    return {**mount, "Destination": clean_path(mount["Destination"]), "Bound": mount.get("Source") if is_bind else None}


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every leaf with its path. Empty ones are left out: Docker writes null, "" and [] for the same thing."""
    if value is None or value == "" or (isinstance(value, (Mapping, list)) and not value):
        return
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        value = {_key(one, at): one for at, one in enumerate(value)}
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _leaves(part, (*path, name))
    else:
        yield path, value


def _key(element: Inspect, at: int) -> str:
    found = next((element[key] for key in _KEYS if element.get(key)), at)
    return clean_path(found) if isinstance(found, str) and found.startswith("/") else str(found)


def _shown(path: Path, value: Any) -> str:
    if value in (None, ""):
        return "not set"
    if path[-1] in _SIZES and isinstance(value, int) and value > 0:
        return _size(value)
    if path[:2] == ("Config", "Env"):
        return "a value that is not shown"  # it may be a secret
    return ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _size(count: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count % factor == 0:
            return f"{count // factor} {unit}"
    return f"{count} bytes"
