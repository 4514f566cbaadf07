"""Replaces a container, and rolls that back. `recreate` and `swap` decide what to do."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.engine import recreate, swap
from agent.engine.compare import differences
from agent.engine.connection import EngineConnection
from agent.engine.dependants import dependants
from agent.engine.failures import is_caused_by_image
from agent.engine.lookup import existing, find, host_paths, inspect, surroundings
from agent.engine.model import DEFAULT_STOP_TIMEOUT, Container, Inspect, Replacement, policy_text
from agent.engine.pull import tag
from agent.engine.reference import Reference, is_digest
from agent.engine.startable import find_missing
from agent.engine.swap import (
    NEW_SUFFIX,
    OLD_SUFFIX,
    ObservedContainer,
    ReplacementContainers,
    ReplacementStatus,
    SwapStep,
)
from agent.errors import Conflict, NotFound, NotReady, SvcagentError, Unreachable
from agent.logs import WARNING, log

LONGEST_STOP_SECONDS = 600
"""Docker's -1 waits for ever, and would hold the fleet's lock for ever."""


def check_recreatable(docker: EngineConnection, proc: Path, name: str, old: Inspect) -> None:
    """Raise `Conflict` if a new container could not be what the old one was, or could not be started."""
    refused = recreate.refusal(old)
    if refused is not None:
        raise Conflict(f"container {name} cannot be replaced: it {refused[0]}; {refused[1]}", kind="not-recreatable")
    try:
        with docker.query(f"inspect the image of container {name}") as queries:
            old_image = queries.image(old["Image"])
    except NotFound as error:
        raise Conflict(
            f"container {name} cannot be replaced: Docker no longer has its image, so what the image set cannot be "
            f"told from what the container was given; bring the image back (docker pull REPOSITORY@DIGEST), or make "
            f"the container anew by hand (docker run --name {name} …)",
            kind="old-image-missing",
        ) from error
    check_startable(docker, proc, name, old)
    with docker.query(f"describe container {name}"):
        # Everything to request is computed here once, so that problems are found before the drain.
        recreate.payload(old, old_image, old["Config"]["Image"], {})
        recreate.further_networks(old)
        stop_seconds(None, old)
    with docker.query("list containers") as queries:
        listed = [str(entry["Id"]) for entry in queries.all_containers()]
    others = (find(docker, one) for one in listed)  # one that was just removed depends on nothing
    if cut_off := dependants(old, [one for one in others if one is not None]):
        raise Conflict(
            f"container {name} cannot be replaced, because other containers would be cut off: {', '.join(cut_off)}; "
            "give them what they have from it in another way (a network of their own, no --pid, --ipc or --link)",
            kind="containers-depend-on-it",
        )


def check_startable(docker: EngineConnection, proc: Path, name: str, old: Inspect) -> None:
    if missing := find_missing(old, surroundings(docker, proc, old)):
        raise Conflict(
            f"container {name} cannot be replaced, because neither it nor a new one could be started: "
            f"{'. '.join(missing)}",
            kind="not-startable",
        )


def prepare(docker: EngineConnection, proc: Path, clock: Clock, name: str, reference: Reference, digest: str) -> float:
    check_recreatable(docker, proc, name, existing(docker, name))
    _carry_out(docker, *swap.tidy(_observe(docker, name)))
    begun = clock.monotonic()
    old = existing(docker, name)  # with the restart policy that `swap.tidy` may have restored
    with docker.query("read the images' defaults") as queries:
        old_image, new_image = queries.image(old["Image"]), queries.image(reference.at(digest))
    new_id = _create(docker, old, old_image, str(new_image["Id"]), name, reference, digest)
    with docker.query(f"compare container {name} with its successor") as queries:
        found = differences(old, queries.inspect(new_id), old_image, new_image)
    if found:
        raise Conflict(
            f"container {name} cannot be made again as it is; with {reference.local_name} it would differ in: "
            f"{'; '.join(found)}. Make it anew by hand with these settings (docker run --name {name} …)",
            kind="would-differ",
        )
    return clock.monotonic() - begun


def discard(docker: EngineConnection, name: str) -> None:
    _carry_out(docker, *swap.discard(_observe(docker, name)))


def replace(docker: EngineConnection, clock: Clock, name: str, digest: str, stop_timeout: float | None) -> Replacement:
    """Carry out `swap.replace` on what `prepare` created."""
    old = inspect(docker, name)
    if old is None:
        raise swap.changed_by_others(name)
    paths = host_paths(old)
    limit = stop_seconds(stop_timeout, old)
    steps = swap.replace(_observe(docker, name), digest, limit)
    seconds = {}
    for step in steps:
        begun = clock.monotonic()
        try:
            _carry_out(docker, step)
        except Unreachable:
            raise
        except SvcagentError as error:
            # The status does not show whose fault it is: a missing program is 400, but a user that the image lacks is
            # 500, as are a port in use and a full disk. So Docker's words are looked at. They are the same if the host
            # has lost, meanwhile, what is mounted in the container.
            if step.verb == "start" and is_caused_by_image(str(error)) and host_paths(old) == paths:
                raise NotReady(f"the container of {digest} does not start: {error}") from error
            raise
        seconds[step.verb] = clock.monotonic() - begun
    return Replacement(
        old_id=old["Id"],
        new_id=steps[-1].id,
        stop_seconds=seconds["stop"],
        start_seconds=seconds["start"],
        was_killed=seconds["stop"] >= limit and _was_killed(docker, name + OLD_SUFFIX),
    )


def _was_killed(docker: EngineConnection, name: str) -> bool:
    """True if a container ended by SIGKILL. Only for a note, so a failed look does not undo the replacement."""
    try:
        return bool(existing(docker, name)["State"]["ExitCode"] == 128 + 9)
    except SvcagentError:
        return False


def roll_back(
    docker: EngineConnection, clock: Clock, name: str, remembered_policy: str | None, *, finish_stop: bool = False
) -> float | None:
    """Carry out `swap.roll_back` on what exists; return None if there is nothing to do."""
    begun = clock.monotonic()
    world = _observe(docker, name)
    steps = swap.roll_back(world, remembered_policy, finish_stop=finish_stop)
    if not steps:
        return None
    _carry_out(docker, *steps)
    if not Container.of(existing(docker, name)).is_running:
        start(docker, name)  # the Engine was restarted meanwhile, and the container's policy is "no"
    if world.old is not None and world.new is None and world.current is None and remembered_policy is None:
        log(
            f"container {name} runs again, but its restart policy is lost: it is now {world.old.restart_policy!r}; "
            "set it by docker update --restart",
            level=WARNING,
        )
    return clock.monotonic() - begun


def replacement_status(docker: EngineConnection, name: str) -> ReplacementStatus:
    return swap.replacement_status(_observe(docker, name))


def start(docker: EngineConnection, name: str) -> None:
    _carry_out(docker, SwapStep("start", existing(docker, name)["Id"]))


def remove_old(docker: EngineConnection, name: str) -> None:
    """Remove the old container of a successful replacement; its volumes now belong to the new one, and stay."""
    old = inspect(docker, name + OLD_SUFFIX)
    if old is None:
        return
    if old["State"]["Running"]:
        raise Conflict(f"container {name}{OLD_SUFFIX} runs; stop it, or roll {name} back", kind="old-container-runs")
    try:
        with docker.call(f"remove container {name}{OLD_SUFFIX}", is_write=True) as client:
            client.remove_container(old["Id"])
    except NotFound:
        return


def _observe(docker: EngineConnection, name: str) -> ReplacementContainers:
    return ReplacementContainers(
        name, *(observed_container(inspect(docker, name + suffix)) for suffix in ("", NEW_SUFFIX, OLD_SUFFIX))
    )


def observed_container(found: Inspect | None) -> ObservedContainer | None:
    if found is None:
        return None
    labels = found["Config"].get("Labels") or {}
    return ObservedContainer(
        id=found["Id"],
        is_running=Container.of(found).is_running,
        restart_policy=policy_text(found["HostConfig"].get("RestartPolicy") or {}),
        replaces=labels.get(recreate.REPLACES_LABEL, ""),
        digest=found_digest if is_digest(found_digest := labels.get(recreate.DIGEST_LABEL, "")) else "",
    )


def _carry_out(docker: EngineConnection, *steps: SwapStep) -> None:
    for step in steps:
        with docker.call(f"{step.verb} container {step.id[:12]} {step.argument}".rstrip(), is_write=True) as client:
            match step.verb:
                case "stop":
                    client.stop(step.id, timeout=step.seconds)  # the SDK waits READ_SECONDS longer than that
                case "rename":
                    client.rename(step.id, step.argument)
                case "start":
                    client.start(step.id)
                case "policy":
                    client.set_restart_policy(step.id, step.argument)
                case "remove":
                    # Removes volumes that only this container had; named ones, so also the old container's, stay.
                    client.remove_container(step.id, v=True, force=True)


def stop_seconds(given: float | None, old: Inspect) -> int:
    """Return the seconds between the old container's stop signal and its kill."""
    own = old["Config"].get("StopTimeout")
    seconds = given if given is not None else DEFAULT_STOP_TIMEOUT if own is None else own
    return LONGEST_STOP_SECONDS if seconds < 0 else math.ceil(seconds)


def _create(
    docker: EngineConnection,
    old: Inspect,
    old_image: Inspect,
    wanted: str,
    name: str,
    reference: Reference,
    digest: str,
) -> str:
    """Create ``<name>.svcagent-new`` from the image ``wanted`` (its ID), in the old one's networks; return its ID."""
    engine_host = ""
    if old["HostConfig"]["NetworkMode"] == "host":
        with docker.query("ask for the host's name") as queries:
            engine_host = queries.host_name()
    labels = {recreate.REPLACES_LABEL: old["Id"], recreate.DIGEST_LABEL: digest}
    volume_owners = [owner for other in recreate.volume_sources(old) if (owner := find(docker, other)) is not None]
    body = recreate.payload(old, old_image, reference.local_name, labels, engine_host, volume_owners)
    platform = _foreign_platform(docker, old, old_image)
    for _ in range(3):
        # The container is to show the name that it was given, not a bare digest, so the tag must refer to that digest.
        if reference.tag:
            tag(docker, reference, digest)
        new = _create_once(docker, name, body, platform)
        new_id, noted = str(new["Id"]), recreate.compose_labels(old, new)
        if new["Image"] == wanted and noted.items() <= body["Labels"].items():
            break
        body["Labels"] |= noted  # Compose's labels are known only when a container exists
        _carry_out(docker, SwapStep("remove", new_id))
    else:
        raise Conflict(
            f"{reference.local_name} does not stay at {digest} on this host: "
            "something else pulls or tags it; stop that first",
            kind="tag-moved",
        )
    for network, endpoint in recreate.further_networks(old).items():
        _connect(docker, new_id, network, endpoint)
    if recreate.PROJECT_LABEL in (old["Config"].get("Labels") or {}):
        from agent.engine import compose_files  # it imports tarfile, which few need

        compose_files.copy(docker, old, new)
    return new_id


def _create_once(docker: EngineConnection, name: str, body: dict[str, Any], platform: str) -> Inspect:
    with docker.call(f"create container {name}{NEW_SUFFIX}", is_write=True) as client:
        new_id = client.create(name + NEW_SUFFIX, body, platform)
    with docker.query(f"inspect container {name}{NEW_SUFFIX}") as queries:
        return queries.inspect(new_id)


def chosen_platform(docker: EngineConnection, name: str) -> str:
    """Return the platform that was chosen for a container; empty if it is the Engine's own, or unknown."""
    old = inspect(docker, name)
    if old is None:
        return ""
    try:
        with docker.query(f"inspect the image of container {name}") as queries:
            image = queries.image(old["Image"])
    except NotFound:
        return ""
    return _foreign_platform(docker, old, image)


def _foreign_platform(docker: EngineConnection, container: Inspect, image: Inspect) -> str:
    """Return the platform of a container's image if it is not the Engine's own (``--platform``); empty otherwise."""
    with docker.query("ask for its platform") as queries:
        own = queries.platform()
    found = recreate.platform_of(container, image)
    return "" if recreate.is_for_platform(found, own) else found


def _connect(docker: EngineConnection, container_id: str, network: str, endpoint: Mapping[str, Any]) -> None:
    ipam = endpoint.get("IPAMConfig") or {}
    with docker.call(f"connect container {container_id[:12]} to network {network}", is_write=True) as client:
        client.connect_container_to_network(
            container_id,
            network,
            ipv4_address=ipam.get("IPv4Address"),
            ipv6_address=ipam.get("IPv6Address"),
            link_local_ips=ipam.get("LinkLocalIPs"),
            aliases=endpoint.get("Aliases"),
            links=[link.partition(":")[::2] for link in endpoint.get("Links") or []] or None,
            driver_opt=endpoint.get("DriverOpts"),
        )
