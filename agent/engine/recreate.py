"""Computes the request that creates a container again with another image. Pure.

Docker merges an image's defaults into a container's configuration at its creation and keeps no record of which is
which. So a value that equals the **old** image's default is left to the new image; the rest is kept. A value that was
given explicitly and equals the old image's default cannot be distinguished from it.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.engine.model import Inspect

REPLACES_LABEL = "svcagent.replaces"
DIGEST_LABEL = "svcagent.digest"

COMPOSE_LABELS = "com.docker.compose."
PROJECT_LABEL = f"{COMPOSE_LABELS}project"
COMPOSE_IMAGE_LABEL = f"{COMPOSE_LABELS}image"
"""Where Docker Compose 2 stores the image's ID: if it differs at the next ``up``, Compose recreates the container."""

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Names that some builders write, with the Engine's names."""
_ONLY_VARIANTS = {"amd64": "v1", "arm64": "v8"}
"""Variants that not every builder writes, because the machine's name alone implies them."""

EMPTY_MODES = {"CgroupnsMode": "host", "IpcMode": "shareable"}
"""What an empty mode means in the configuration of a container that an older Engine created. In a request for a new
container it means the Engine's default, which may be another one."""

_BUILTIN_NETWORKS = {"default", "bridge", "host", "none"}
_DICTS = ("Volumes", "ExposedPorts")
_SCALARS = ("WorkingDir", "User", "StopSignal", "Shell", "ArgsEscaped")


def refusal(inspect: Inspect) -> tuple[str, str] | None:
    """Return why this container cannot be recreated, and the remedy; None if it can."""
    config, host = inspect["Config"], inspect["HostConfig"]
    named, image_id = config["Image"], inspect["Image"]
    if host.get("AutoRemove"):
        return "was started with --rm, so Docker deletes it when it stops", "start it without --rm"
    if _is_bare_id(named, image_id):
        return f"was started from a bare image ID ({named})", "start it from repository:tag"
    if host["NetworkMode"].startswith("container:"):
        return (
            f"uses another container's network ({host['NetworkMode']})",
            "give it its own network, or host networking",
        )
    if not networks_of(inspect):
        return (
            "is not connected to any network, so its network cannot be recreated",
            "connect it (docker network connect), or recreate it with --network none",
        )
    if "com.docker.swarm.task.id" in (config.get("Labels") or {}):
        return "belongs to a Swarm service, which replaces it itself", "use docker service update"
    if nameless := _nameless_volume(inspect):
        return (
            f"has a volume at {nameless} whose name Docker does not return, so its data would be lost",
            "recreate the container with a named volume there",
        )
    return None


def _nameless_volume(inspect: Inspect) -> str | None:
    """Return where an anonymous volume is mounted that has no name in Docker's answer; None if there is none."""
    host = inspect["HostConfig"]
    given = {target for source, target in map(_bind_ends, host.get("Binds") or []) if source}
    given |= {clean_path(mount["Target"]) for mount in host.get("Mounts") or [] if mount.get("Source")}
    given |= {clean_path(target) for target in host.get("Tmpfs") or {}}
    found = (
        mount["Destination"]
        for mount in inspect.get("Mounts") or []
        if mount.get("Type") == "volume" and not mount.get("Name") and clean_path(mount["Destination"]) not in given
    )
    return next(found, None)


def payload(
    old: Inspect,
    old_image: Inspect,
    image: str,
    labels: Mapping[str, str],
    engine_host: str = "",
    volume_owners: Sequence[Inspect] = (),
) -> dict[str, Any]:
    """Return the body of ``POST /containers/create``. `further_networks` are connected afterwards.

    ``labels`` are added; ``engine_host`` is the host name of the Engine's machine, which containers in host networking
    have unless they were given another one; ``volume_owners`` are the containers named by ``--volumes-from``.
    """
    defaults: Mapping[str, Any] = old_image.get("Config") or {}
    config = {**old["Config"], "Image": image}
    config.pop("OnBuild", None)
    for key in _SCALARS:
        if config.get(key) == defaults.get(key):
            config.pop(key, None)
    for key in _DICTS:
        config[key] = {
            name: value
            for name, value in (config.get(key) or {}).items()
            if name not in (defaults.get(key) or {}) or (key == "ExposedPorts" and is_published(old, name))
        }
    config["Env"] = [entry for entry in config.get("Env") or [] if entry not in (defaults.get("Env") or [])]
    config["Labels"] = {**_own_labels(config.get("Labels"), defaults.get("Labels")), **labels}
    config["Healthcheck"] = _healthcheck(config.get("Healthcheck"), defaults.get("Healthcheck"))
    config["Entrypoint"], config["Cmd"] = _command(config, defaults)
    if not _is_own_hostname(old, engine_host):
        config["Hostname"] = ""
    primary = _primary_network(old)
    host = _host_config(old, volume_owners)
    endpoints = {}
    host["NetworkMode"] = primary  # a name even for an ID: from API 1.44 on, both places must agree
    if primary not in _BUILTIN_NETWORKS:
        endpoints[primary] = _endpoint(old, primary)
        if config.get("MacAddress"):
            endpoints[primary]["MacAddress"] = config["MacAddress"]
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints}}


def compose_labels(old: Inspect, new: Inspect) -> dict[str, str]:
    """Return the labels that make Docker Compose consider the new container up to date.

    ``new``: inspect of a container of the new image. Compose stores the image's ID and, from 5.5 on, the digest of the
    manifest of the container's platform, which differs from the ID in the containerd image store.
    """
    noted = (old["Config"].get("Labels") or {}).get(COMPOSE_IMAGE_LABEL)
    if not noted:
        return {}
    if noted == old["Image"]:
        return {COMPOSE_IMAGE_LABEL: str(new["Image"])}
    return {COMPOSE_IMAGE_LABEL: _manifest(new) or str(new["Image"])} if noted == _manifest(old) else {}


def _manifest(container: Inspect) -> str:
    """Return the digest of the manifest that a container was created from; empty if Docker does not report it."""
    return str((container.get("ImageManifestDescriptor") or {}).get("digest") or "")


def platform_of(container: Inspect, image: Inspect) -> str:
    """Return the platform that a container's image was built for, as ``linux/arm/v7``; empty if the image has none."""
    said = (container.get("ImageManifestDescriptor") or {}).get("platform")
    found = said or {"os": image.get("Os"), "architecture": image.get("Architecture"), "variant": image.get("Variant")}
    system, machine, variant = (found.get(key) or "" for key in ("os", "architecture", "variant"))
    machine = _MACHINES.get(machine, machine)
    parts = (system or "linux", machine, "" if variant == _ONLY_VARIANTS.get(machine) else variant)
    return "/".join(part for part in parts if part) if machine else ""


def is_for_platform(platform: str, wanted: str) -> bool:
    """True if ``platform`` is the wanted one or a variant of it, or if no platform is wanted."""
    return not wanted or platform == wanted or platform.startswith(f"{wanted}/")


def volume_sources(old: Inspect) -> tuple[str, ...]:
    """Return the containers that it takes volumes from (``--volumes-from``), by ID or name."""
    return tuple(entry.partition(":")[0] for entry in old["HostConfig"].get("VolumesFrom") or ())


def further_networks(old: Inspect) -> dict[str, dict[str, Any]]:
    """Return the networks to connect after the create, with their endpoint: before API 1.44 a create takes only one."""
    primary = _builtin_name(_primary_network(old))
    return {name: _endpoint(old, name) for name in sorted(networks_of(old)) if name != primary}


def _own_labels(labels: Mapping[str, str] | None, defaults: Mapping[str, str] | None) -> dict[str, str]:
    ours = {REPLACES_LABEL, DIGEST_LABEL}
    own, known = labels or {}, defaults or {}
    return {
        key: value
        for key, value in own.items()
        if key not in ours and (known.get(key) != value or is_composes_own(key, own))
    }


def is_composes_own(label: str, labels: Mapping[str, str]) -> bool:
    """True if Docker Compose gave this label to a container with these labels. Images that it builds have it too."""
    return PROJECT_LABEL in labels and label.startswith(COMPOSE_LABELS)


def _healthcheck(check: Mapping[str, Any] | None, default: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Subtract the image's field by field, as Docker merges (``--health-interval`` alone keeps the image's test)."""
    own = {key: value for key, value in (check or {}).items() if (default or {}).get(key) != value}
    return own or None


def _command(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[list[str] | None, list[str] | None]:
    """Compare both: an entrypoint given to a container drops the image's Cmd (moby, daemon/commit.go, merge)."""
    entrypoint, cmd = config.get("Entrypoint") or [], config.get("Cmd") or []
    from_image, cmd_from_image = defaults.get("Entrypoint") or [], defaults.get("Cmd") or []
    if entrypoint != from_image:
        return entrypoint or [""], cmd or None  # [""] is the form of `--entrypoint ""`
    if cmd == cmd_from_image:
        return None, None
    if not cmd:  # the image's Cmd was dropped: the image's own entrypoint was given explicitly
        return entrypoint, None
    return None, cmd


def _is_own_hostname(old: Inspect, engine_host: str) -> bool:
    """True if the host name was given to the container; False if Docker made it up."""
    hostname, host = old["Config"].get("Hostname") or "", old["HostConfig"]
    mode = host["NetworkMode"]
    if mode.startswith("container:") or host.get("UTSMode") == "host":
        return False
    if mode == "host" and hostname == engine_host:
        return False
    return bool(hostname) and hostname != short_id(old)


def _host_config(old: Inspect, volume_owners: Sequence[Inspect]) -> dict[str, Any]:
    host = dict(old["HostConfig"])
    host |= {key: mode for key, mode in EMPTY_MODES.items() if host.get(key) == ""}
    # The volumes of other containers come again with VolumesFrom. Binds would hide those of a recreated one.
    borrowed = {mount.get("Name") for owner in volume_owners for mount in owner.get("Mounts") or []}
    host["PortBindings"] = published_ports(old) or host.get("PortBindings")
    host["Links"] = [link_of(link) for link in host.get("Links") or []] or None
    anonymous = {
        clean_path(mount["Destination"]): mount
        for mount in old.get("Mounts") or []
        if mount.get("Type") == "volume" and mount.get("Name") and mount["Name"] not in borrowed
    }
    binds = []
    for bind in host.get("Binds") or []:
        source, target = _bind_ends(bind)
        if source:
            anonymous.pop(target, None)
        # A bind without a source asks for a new anonymous volume; the volume that it got is named below instead.
        if source or target not in anonymous:
            binds.append(bind)
    for target in host.get("Tmpfs") or {}:
        anonymous.pop(clean_path(target), None)  # a VOLUME of the image, hidden by the tmpfs
    mounts = []
    for mount in host.get("Mounts") or []:
        actual = anonymous.pop(clean_path(mount["Target"]), None)
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
    """Return the source of a bind and its path inside: ``source:target[:options]``, or ``target`` alone (moby, volume).

    A path alone asks for an anonymous volume; docker-py writes such binds.
    """
    first, *rest = bind.split(":")
    return (first, clean_path(rest[0])) if rest else ("", clean_path(first))


def is_published(container: Inspect, port: str) -> bool:
    """True if an exposed port is to be published. Docker publishes only exposed ports, even if others are requested."""
    host = container["HostConfig"]
    return bool(host.get("PublishAllPorts")) or port in (host.get("PortBindings") or {})


def published_ports(container: Inspect) -> dict[str, list[dict[str, str]]]:
    """Return PortBindings, with the host port that Docker chose if it was left to Docker.

    Otherwise the new container would get another one. It is free: the old container stops before the new one starts.
    """
    host = container["HostConfig"]
    actual = (container.get("NetworkSettings") or {}).get("Ports") or {}
    asked = {port: list(bindings or []) for port, bindings in (host.get("PortBindings") or {}).items()}
    if host.get("PublishAllPorts"):
        asked |= {port: [{}] for port, chosen in actual.items() if chosen and not asked.get(port)}
    return {port: _chosen(bindings, list(actual.get(port) or [])) for port, bindings in asked.items()}


def _chosen(asked: Sequence[Mapping[str, str]], actual: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return one port's bindings. Those that leave the host port to Docker, or give a range, get the present one."""
    fixed = {one.get("HostPort") for one in asked}
    free = [_binding(one) for one in actual if one.get("HostPort") not in fixed]
    result = []
    for binding in asked:
        address, port = binding.get("HostIp") or "", binding.get("HostPort") or ""
        own = [one for one in free if address in ("", one["HostIp"])][:1]
        if not own or (port.isdigit() and port != "0"):
            result.append(dict(binding))
            continue
        if not address:  # Docker publishes on IPv4 and on IPv6, and may choose a port for each
            own += [one for one in free if _is_ipv6(one) != _is_ipv6(own[0])][:1]
        free = [one for one in free if one not in own]
        if len({one["HostPort"] for one in own}) == 1:
            result.append({"HostIp": address, "HostPort": own[0]["HostPort"]})
        else:
            result += own
    return result


def _binding(found: Mapping[str, str]) -> dict[str, str]:
    return {"HostIp": found.get("HostIp") or "", "HostPort": found.get("HostPort") or ""}


def _is_ipv6(binding: Mapping[str, str]) -> bool:
    return ":" in binding["HostIp"]


def clean_path(path: str) -> str:
    """Return a path as the Engine compares it: without a trailing slash and doubled ones."""
    return posixpath.normpath(path)


def link_of(link: str) -> str:
    """Convert ``/target:/name/alias``, as inspect has it, to ``target:alias``, as a create needs it."""
    target, _, alias = link.partition(":")
    return f"{target.removeprefix('/')}:{alias.rpartition('/')[2]}"


def networks_of(old: Inspect) -> Mapping[str, Any]:
    """Return the networks that a container is connected to now, by name, with their endpoints."""
    networks: Mapping[str, Any] = (old.get("NetworkSettings") or {}).get("Networks") or {}
    return networks


def _builtin_name(mode: str) -> str:
    return "bridge" if mode == "default" else mode


def _primary_network(old: Inspect) -> str:
    """Return the network mode to create the container with: the name of a network that it is connected to now.

    It is the one that it was created in, unless it was disconnected from that since.
    """
    mode = str(old["HostConfig"]["NetworkMode"])
    networks = networks_of(old)
    if mode.startswith("container:") or _builtin_name(mode) in networks or not networks:
        return mode
    by_id = (name for name, one in networks.items() if one and (one.get("NetworkID") or "").startswith(mode))
    return next(by_id, min(networks))


def _endpoint(old: Inspect, name: str) -> dict[str, Any]:
    """Return the endpoint as it was requested, without what Docker filled in: only IPAMConfig has a requested address.

    Docker shows whether a MAC address was requested only for the first network, in Config.MacAddress.
    """
    endpoint = networks_of(old).get(name) or {}
    aliases = own_aliases(old, name)
    kept = {key: endpoint[key] for key in ("IPAMConfig", "Links", "DriverOpts", "GwPriority") if endpoint.get(key)}
    return {**kept, "Aliases": aliases} if aliases else kept


def own_aliases(container: Inspect, network: str) -> list[str]:
    """Return the requested names in a network. Docker adds the container's short ID to them."""
    endpoint = networks_of(container).get(network) or {}
    return [alias for alias in endpoint.get("Aliases") or [] if alias != short_id(container)]


def short_id(container: Inspect) -> str:
    """Return the ID in the length that Docker uses for host names and aliases."""
    return str(container["Id"])[:12]


def _is_bare_id(named: str, image_id: str) -> bool:
    if named.startswith("sha256:"):
        return True
    return bool(re.fullmatch(r"[0-9a-f]{6,64}", named)) and image_id.removeprefix("sha256:").startswith(named)
