"""From an old container and its image to the request that makes the same container with another image. Pure.

Docker merges an image's defaults into a container's configuration when it is created and keeps no record of which is
which. So what equals the **old** image's default is taken for that default and left to the new image; the rest is kept.
A value that was given explicitly and equals the old image's default cannot be told from it.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.engine.model import Inspect

REPLACES_LABEL = "svcagent.replaces"
DIGEST_LABEL = "svcagent.digest"

COMPOSE_IMAGE_LABEL = "com.docker.compose.image"
"""Where Docker Compose 2 writes down the ID of the image: on the next ``up`` another one makes the container anew."""

_BUILTIN_NETWORKS = {"default", "bridge", "host", "none"}
_DICTS = ("Volumes", "ExposedPorts")
_SCALARS = ("WorkingDir", "User", "StopSignal", "Shell", "ArgsEscaped")


def refusal(inspect: Inspect) -> tuple[str, str] | None:
    """Why this container cannot be made anew, and the way out; None when it can."""
    config, host = inspect["Config"], inspect["HostConfig"]
    named, image_id = config["Image"], inspect["Image"]
    if host.get("AutoRemove"):
        return "was started with --rm: Docker deletes it the moment it stops", "start it without --rm"
    if _is_bare_id(named, image_id):
        return f"was started from a bare image ID ({named})", "start it from repository:tag"
    if host["NetworkMode"].startswith("container:"):
        return (
            f"lives in another container's network ({host['NetworkMode']})",
            "give it a network of its own, or host networking",
        )
    if "com.docker.swarm.task.id" in (config.get("Labels") or {}):
        return "belongs to a Swarm service, which replaces it by itself", "use docker service update"
    return None


def payload(
    old: Inspect,
    old_image: Inspect,
    image: str,
    labels: Mapping[str, str],
    engine_host: str = "",
    lenders: Sequence[Inspect] = (),
) -> dict[str, Any]:
    """The body of ``POST /containers/create``.

    ``labels`` are added; ``engine_host`` is the host name of the machine the Engine runs on, which containers in host
    networking carry unless they were given another one; ``lenders`` are the containers named by ``--volumes-from``.
    Further networks: `further_networks`, after the create.
    """
    defaults: Mapping[str, Any] = old_image.get("Config") or {}
    config = {**old["Config"], "Image": image}
    config.pop("OnBuild", None)
    for key in _SCALARS:
        if config.get(key) == defaults.get(key):
            config.pop(key, None)
    for key in _DICTS:
        config[key] = {
            name: value for name, value in (config.get(key) or {}).items() if name not in (defaults.get(key) or {})
        }
    config["Env"] = [entry for entry in config.get("Env") or [] if entry not in (defaults.get("Env") or [])]
    config["Labels"] = {**_own_labels(config.get("Labels"), defaults.get("Labels")), **labels}
    config["Healthcheck"] = _healthcheck(config.get("Healthcheck"), defaults.get("Healthcheck"))
    config["Entrypoint"], config["Cmd"] = _command(config, defaults)
    if not _is_own_hostname(old, engine_host):
        config["Hostname"] = ""
    primary = _primary_network(old)
    host = _host_config(old, lenders)
    endpoints = {}
    if primary is not None:
        host["NetworkMode"] = primary  # a name, also where an ID stood: both places must agree from API 1.44 on
        endpoints[primary] = _endpoint(old, primary)
        if config.get("MacAddress"):
            endpoints[primary]["MacAddress"] = config["MacAddress"]
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints}}


def compose_labels(old: Inspect, image_id: str) -> dict[str, str]:
    """What Docker Compose shall find on the new container, so that it takes it for up to date."""
    noted = (old["Config"].get("Labels") or {}).get(COMPOSE_IMAGE_LABEL)
    return {COMPOSE_IMAGE_LABEL: image_id} if noted == old["Image"] else {}


def lender_names(old: Inspect) -> tuple[str, ...]:
    """The containers that it takes volumes from (``--volumes-from``), by ID or name."""
    return tuple(entry.partition(":")[0] for entry in old["HostConfig"].get("VolumesFrom") or ())


def further_networks(old: Inspect) -> dict[str, dict[str, Any]]:
    """The networks to connect after the create, with their endpoint: before API 1.44 a create takes only one."""
    primary = _primary_network(old) or _builtin_name(old["HostConfig"]["NetworkMode"])
    return {name: _endpoint(old, name) for name in sorted(_networks(old)) if name != primary}


def _own_labels(labels: Mapping[str, str] | None, defaults: Mapping[str, str] | None) -> dict[str, str]:
    ours = {REPLACES_LABEL, DIGEST_LABEL}
    known = defaults or {}
    return {key: value for key, value in (labels or {}).items() if key not in ours and known.get(key) != value}


def _healthcheck(check: Mapping[str, Any] | None, default: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Docker merges field by field (``--health-interval`` alone keeps the image's test), so does the subtraction."""
    own = {key: value for key, value in (check or {}).items() if (default or {}).get(key) != value}
    return own or None


def _command(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[list[str] | None, list[str] | None]:
    """Both together: an entrypoint given to a container drops the image's Cmd (moby, daemon/commit.go, merge)."""
    entrypoint, cmd = config.get("Entrypoint") or [], config.get("Cmd") or []
    from_image, cmd_from_image = defaults.get("Entrypoint") or [], defaults.get("Cmd") or []
    if entrypoint != from_image:
        return entrypoint or [""], cmd or None  # [""] is how `--entrypoint ""` is asked for
    if cmd == cmd_from_image:
        return None, None
    if not cmd:  # the image's Cmd was dropped: the image's own entrypoint was given explicitly
        return entrypoint, None
    return None, cmd


def _is_own_hostname(old: Inspect, engine_host: str) -> bool:
    """Was the host name given to the container, rather than made up by Docker?"""
    hostname, host = old["Config"].get("Hostname") or "", old["HostConfig"]
    mode = host["NetworkMode"]
    if mode.startswith("container:") or host.get("UTSMode") == "host":
        return False
    if mode == "host" and hostname == engine_host:
        return False
    return bool(hostname) and not old["Id"].startswith(hostname)


def _host_config(old: Inspect, lenders: Sequence[Inspect]) -> dict[str, Any]:
    host = dict(old["HostConfig"])
    # Theirs come by VolumesFrom again, and would hide the ones that they get when they are made anew.
    borrowed = {mount.get("Name") for lender in lenders for mount in lender.get("Mounts") or []}
    host["Links"] = [_link(link) for link in host.get("Links") or []] or None
    anonymous = {
        _clean(mount["Destination"]): mount
        for mount in old.get("Mounts") or []
        if mount.get("Type") == "volume" and mount.get("Name") and mount["Name"] not in borrowed
    }
    binds = []
    for bind in host.get("Binds") or []:
        source, target = _bind_ends(bind)
        if source:
            anonymous.pop(target, None)
        # A bind without a source asks for a new anonymous volume; the one that it got is named below instead.
        if source or target not in anonymous:
            binds.append(bind)
    for target in host.get("Tmpfs") or {}:
        anonymous.pop(_clean(target), None)  # shown as a volume where the image declares one, and hidden by the tmpfs
    mounts = []
    for mount in host.get("Mounts") or []:
        actual = anonymous.pop(_clean(mount["Target"]), None)
        is_unnamed = actual is not None and not mount.get("Source") and mount.get("Type") in (None, "volume")
        mounts.append({**mount, "Source": actual["Name"]} if actual is not None and is_unnamed else mount)
    if mounts:
        host["Mounts"] = mounts
    binds += [_named_bind(anonymous[target]) for target in sorted(anonymous)]
    if binds or host.get("Binds"):
        host["Binds"] = binds
    return host


def _named_bind(mount: Mapping[str, Any]) -> str:
    bind = f"{mount['Name']}:{mount['Destination']}"
    return bind if mount.get("RW", True) else f"{bind}:ro"


def _bind_ends(bind: str) -> tuple[str, str]:
    """The source and the path inside the container: ``source:target[:options]``, or ``target`` alone (moby, volume).

    A path alone asks for an anonymous volume; docker-py writes such binds.
    """
    first, *rest = bind.split(":")
    return (first, _clean(rest[0])) if rest else ("", _clean(first))


def _clean(path: str) -> str:
    """A path as the Engine compares it: without a trailing slash and doubled ones."""
    return posixpath.normpath(path)


def _link(link: str) -> str:
    """Inspect says ``/target:/name/alias``, a create wants ``target:alias``."""
    target, _, alias = link.partition(":")
    return f"{target.removeprefix('/')}:{alias.rpartition('/')[2]}"


def _networks(old: Inspect) -> Mapping[str, Any]:
    networks: Mapping[str, Any] = (old.get("NetworkSettings") or {}).get("Networks") or {}
    return networks


def _builtin_name(mode: str) -> str:
    return "bridge" if mode == "default" else mode


def _primary_network(old: Inspect) -> str | None:
    """The name of the user-defined network the container was created in, if it was one."""
    mode = old["HostConfig"]["NetworkMode"]
    if mode in _BUILTIN_NETWORKS or mode.startswith("container:"):
        return None
    networks = _networks(old)
    if mode in networks:
        return str(mode)
    by_id = (name for name, one in networks.items() if one and (one.get("NetworkID") or "").startswith(mode))
    return next(by_id, str(mode))


def _endpoint(old: Inspect, name: str) -> dict[str, Any]:
    """What was asked for, without what Docker filled in: only IPAMConfig holds an address that was asked for."""
    endpoint = _networks(old).get(name) or {}
    aliases = [alias for alias in endpoint.get("Aliases") or [] if alias != old["Id"][:12]]
    kept = {key: endpoint[key] for key in ("IPAMConfig", "Links", "DriverOpts", "GwPriority") if endpoint.get(key)}
    return {**kept, "Aliases": aliases} if aliases else kept


def _is_bare_id(named: str, image_id: str) -> bool:
    if named.startswith("sha256:"):
        return True
    return bool(re.fullmatch(r"[0-9a-f]{6,64}", named)) and image_id.removeprefix("sha256:").startswith(named)
