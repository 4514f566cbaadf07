"""The parts of the Engine's answers that svcagent relies on. An answer without them is refused before it is used."""

import re
from collections.abc import Mapping
from typing import Any, cast

from agent.engine.model import Inspect
from agent.shapes import Shape, require

_ANY = {"*?": object}
_CONFIG = {
    "Labels?": {"*": str},
    "Env?": [str],
    "Cmd?": [str],
    "Entrypoint?": [str],
    "Volumes?": _ANY,
    "ExposedPorts?": _ANY,
    "Healthcheck?": _ANY,
}
"""The part of Config that a container has from its image."""

CONTAINER: Shape = {
    "Id": str,
    "Name": str,
    "Image": str,
    "Created?": str,
    "RestartCount?": int,
    "State": {
        "Running": bool,
        "Restarting?": bool,
        "Status?": str,
        "ExitCode": int,
        "Pid": int,
        "StartedAt": str,
        "FinishedAt?": str,
        "Health?": {"Status?": str, "Log?": [{"Output?": str}]},
    },
    "Config": {
        "Image": str,
        "Hostname?": str,
        **_CONFIG,
        "StopSignal?": str,
        "StopTimeout?": int,
        "MacAddress?": str,
    },
    "HostConfig": {
        "NetworkMode": str,
        "AutoRemove?": bool,
        "UTSMode?": str,
        "PidMode?": str,
        "IpcMode?": str,
        "PortBindings?": {"*?": [{"HostIp?": str, "HostPort?": str}]},
        "RestartPolicy?": {"Name?": str, "MaximumRetryCount?": int},
        "Binds?": [str],
        "Mounts?": [{"Target": str, "Type?": str, "Source?": str, "BindOptions?": _ANY}],
        "Devices?": [{"PathOnHost": str, "PathInContainer?": str}],
        "LogConfig?": {"Type?": str, "Config?": {"*": str}},
        "Privileged?": bool,
        "Tmpfs?": _ANY,
        "Links?": [str],
        "VolumesFrom?": [str],
    },
    "NetworkSettings?": {
        "Networks?": {
            "*?": {
                "NetworkID?": str,
                "Aliases?": [str],
                "Links?": [str],
                "DriverOpts?": _ANY,
                "IPAMConfig?": {"IPv4Address?": str, "IPv6Address?": str, "LinkLocalIPs?": [str]},
            }
        },
        "Ports?": {"*?": [{"HostIp?": str, "HostPort?": str}]},
    },
    "Mounts?": [{"Type?": str, "Name?": str, "Source?": str, "Driver?": str, "Destination": str, "RW?": bool}],
    "HostsPath?": str,
    "ImageManifestDescriptor?": {
        "digest?": str,
        "platform?": {"os?": str, "architecture?": str, "variant?": str},
    },
}
"""The answer to ``GET /containers/<id>/json``."""

IMAGE: Shape = {
    "Id": str,
    "RepoTags?": [str],
    "RepoDigests?": [str],
    "Created?": str,
    "Os?": str,
    "Architecture?": str,
    "Variant?": str,
    "Metadata?": {"LastTagTime?": str},
    "Config?": _CONFIG,
}
"""The answer to ``GET /images/<name>/json``."""

LISTED_CONTAINERS: Shape = [
    {"Id": str, "ImageID?": str, "Names?": [str], "HostConfig?": {"NetworkMode?": str}},
]
"""The answer to ``GET /containers/json``. A container that is being removed has no names."""

LISTED_IMAGES: Shape = [{"Id": str, "RepoTags?": [str], "RepoDigests?": [str]}]
"""The answer to ``GET /images/json``."""

CHANGES: Shape = [{"Path": str, "Kind": int}]
"""The answer to ``GET /containers/<id>/changes``."""

DELETED = 2
"""The ``Kind`` of a change that removed a path."""

OFFER: Shape = {"ApiVersion": str, "MinAPIVersion?": str, "Version?": str}
"""The answer to ``GET /version``."""

EVENT: Shape = {
    "id?": str,
    "status?": str,
    "progressDetail?": {"current?": int, "total?": int, "units?": str},
    "error?": str,
    "errorDetail?": {"message?": str},
}
"""One line of the answer to ``POST /images/create``, a pull."""

SIGNALLED: Shape = {"Actor": {"Attributes": {"signal": str}}}
"""An event ``kill``."""


def inspected(document: object, shape: Shape) -> Inspect:
    """Return the document. Raise `WrongShape` with the container or image, and the place, if it has another shape."""
    name = document.get("Name") or document.get("Id") if isinstance(document, dict) else None
    require(document, shape, str(name).removeprefix("/")[:80] if name else "")
    return cast("Inspect", document)


def with_volume_names(container: Inspect) -> Inspect:
    """Return the answer about a container with the names of its local volumes.

    Docker Engine 28.5 leaves out the name of an anonymous volume of a bind without a source. The driver ``local``
    keeps each volume in ``<data root>/volumes/<name>/_data``.
    """
    mounts = [
        {**one, "Name": match[1]} if (match := _nameless_volume(one)) else one for one in container.get("Mounts") or []
    ]
    return {**container, "Mounts": mounts} if mounts else container


def _nameless_volume(mount: Mapping[str, Any]) -> re.Match[str] | None:
    if mount.get("Type") != "volume" or mount.get("Name") or mount.get("Driver") != "local":
        return None
    return re.fullmatch(r"/.*/volumes/([^/]+)/_data", mount.get("Source") or "")
