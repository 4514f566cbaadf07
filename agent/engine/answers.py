"""What svcagent relies on in the Engine's answers. An answer without it is refused as a whole, before it is used."""

from typing import cast

from agent.engine.model import Inspect
from agent.shapes import Shape, require

_ANY = {"*?": object}

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
        "Labels?": {"*": str},
        "Env?": [str],
        "Cmd?": [str],
        "Entrypoint?": [str],
        "Volumes?": _ANY,
        "ExposedPorts?": _ANY,
        "Healthcheck?": _ANY,
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
    "Mounts?": [{"Type?": str, "Name?": str, "Source?": str, "Destination": str, "RW?": bool}],
    "HostsPath?": str,
    "ImageManifestDescriptor?": {
        "digest?": str,
        "platform?": {"os?": str, "architecture?": str, "variant?": str},
    },
}
"""Of ``GET /containers/<id>/json``."""

IMAGE: Shape = {
    "Id": str,
    "RepoTags?": [str],
    "RepoDigests?": [str],
    "Created?": str,
    "Os?": str,
    "Architecture?": str,
    "Variant?": str,
    "Metadata?": {"LastTagTime?": str},
    "Config?": {
        "Labels?": {"*": str},
        "Env?": [str],
        "Cmd?": [str],
        "Entrypoint?": [str],
        "Volumes?": _ANY,
        "ExposedPorts?": _ANY,
        "Healthcheck?": _ANY,
    },
}
"""Of ``GET /images/<name>/json``."""

LISTED_CONTAINERS: Shape = [
    {"Id": str, "ImageID?": str, "Names?": [str], "HostConfig?": {"NetworkMode?": str}},
]
"""Of ``GET /containers/json``. A container that is being removed has no names."""

LISTED_IMAGES: Shape = [{"Id": str, "RepoTags?": [str], "RepoDigests?": [str]}]
"""Of ``GET /images/json``."""

CHANGES: Shape = [{"Path": str, "Kind": int}]
"""Of ``GET /containers/<id>/changes``."""

DELETED = 2
"""The kind of a change that removed a path."""

OFFER: Shape = {"ApiVersion": str, "MinAPIVersion?": str, "Version?": str}
"""Of ``GET /version``."""

EVENT: Shape = {
    "id?": str,
    "status?": str,
    "progressDetail?": {"current?": int, "total?": int, "units?": str},
    "error?": str,
    "errorDetail?": {"message?": str},
}
"""Of one line of a pull, ``POST /images/create``."""


def inspected(document: object, shape: Shape) -> Inspect:
    """The document, which has that shape.

    :raises WrongShape: it has not; the message names the container or image, and the place.
    """
    name = document.get("Name") or document.get("Id") if isinstance(document, dict) else None
    require(document, shape, str(name).removeprefix("/")[:80] if name else "")
    return cast("Inspect", document)
