"""Containers that depend on another one: they would be cut off if it were replaced. Pure."""

from collections.abc import Iterable

from agent.engine.model import Inspect, policy_text

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
        needs = [f"lives in its {what}" for key, what in NAMESPACES.items() if _is_of(host.get(key) or "", old)]
        needs += ["is linked to it (--link)"] if old["Name"].removeprefix("/") in linked_names(other) else []
        stopped = "" if other["State"]["Running"] else f" (stopped; if nobody needs it, docker rm {name})"
        found += [f"{name} {need}{stopped}" for need in needs]
    return tuple(sorted(found))


def _is_over(container: Inspect) -> bool:
    policy = container["HostConfig"].get("RestartPolicy") or {}
    return container["State"].get("Status") == "exited" and policy_text(policy) == "no"


def _is_of(mode: str, old: Inspect) -> bool:
    kind, _, named = mode.partition(":")
    is_short_id = len(named) >= 12 and old["Id"].startswith(named)
    return kind == "container" and (is_short_id or named == old["Name"].removeprefix("/"))
