"""Replaces a container, and rolls that back. `recreate` and `swap` decide what to do."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.engine import recreate, swap
from agent.engine.compare import differences
from agent.engine.connection import EngineConnection
from agent.engine.failures import is_caused_by_image
from agent.engine.lookup import existing, find, host_paths, inspect, surroundings
from agent.engine.model import DEFAULT_STOP_TIMEOUT, Container, Inspect, Replacement, policy_text
from agent.engine.pull import tag
from agent.engine.reference import Reference, is_digest, parse
from agent.engine.startable import dependants, find_missing
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
from agent.text import short_digest

LONGEST_STOP_SECONDS = 600
"""The limit of a container's own stop timeout. Docker's -1 waits for ever, and would hold the fleet's lock for ever."""


class ContainerReplacer:
    """Replaces containers of one Engine. ``proc``: where the process table of the Engine's PID namespace is mounted."""

    def __init__(self, docker: EngineConnection, clock: Clock, proc: Path) -> None:
        self._docker = docker
        self._clock = clock
        self._proc = proc

    def check_recreatable(self, name: str) -> None:
        """Raise `Conflict`, with the remedy, if the container cannot be recreated as it is or be started again."""
        old = existing(self._docker, name)
        refused = recreate.refusal(old)
        if refused is not None:
            raise Conflict(
                f"container {name} cannot be replaced: it {refused[0]}. To correct this, {refused[1]}",
                kind="not-recreatable",
            )
        try:
            with self._docker.query(f"inspect the image of container {name}") as queries:
                old_image = queries.image(old["Image"])
        except NotFound as error:
            raise Conflict(
                f"container {name} cannot be replaced: Docker no longer has its image, so the image's "
                "settings cannot be "
                "distinguished from the container's. Pull the image again (docker pull REPOSITORY@DIGEST), or recreate "
                f"the container by hand (docker run --name {name} …)",
                kind="old-image-missing",
            ) from error
        self.check_startable(name)
        with self._docker.query(f"describe container {name}"):
            # Everything to request is computed here once, so that problems are found before the drain.
            recreate.payload(old, old_image, old["Config"]["Image"], {})
            recreate.further_networks(old)
            stop_seconds(None, old)
        with self._docker.query("list containers") as queries:
            listed = [str(entry["Id"]) for entry in queries.all_containers()]
        others = (find(self._docker, one) for one in listed)  # one that was just removed depends on nothing
        if cut_off := dependants(old, [one for one in others if one is not None]):
            raise Conflict(
                f"container {name} cannot be replaced, because other containers depend on it: "
                f"{', '.join(cut_off)}. Recreate them without that dependency (a separate network, "
                "no --pid, --ipc or --link)",
                kind="containers-depend-on-it",
            )

    def check_startable(self, name: str) -> None:
        """Raise `Conflict` if the host lacks something that the container and its successor need to start."""
        old = existing(self._docker, name)
        if missing := find_missing(old, surroundings(self._docker, self._proc, old)):
            raise Conflict(
                f"container {name} cannot be replaced, because neither it nor a new one could be started: "
                f"{'. '.join(missing)}",
                kind="not-startable",
            )

    def prepare(self, name: str, image: str, digest: str) -> float:
        """Create the container's successor from that digest, which must be on this host; return the seconds it took.

        The container itself does not change. After any exception, `discard` removes the successor. Raise `Conflict` if
        an earlier replacement must be rolled back first, or if the successor would differ from the container.
        """
        reference = parse(image)
        self.check_recreatable(name)
        self._carry_out(*swap.remove_leftovers(self._observe(name)))
        begun = self._clock.monotonic()
        old = existing(self._docker, name)  # with the restart policy that `swap.remove_leftovers` may have restored
        with self._docker.query("read the images' defaults") as queries:
            old_image, new_image = queries.image(old["Image"]), queries.image(reference.at(digest))
        new_id = self._create(old, old_image, str(new_image["Id"]), name, reference, digest)
        with self._docker.query(f"compare container {name} with its successor") as queries:
            found = differences(old, queries.inspect(new_id), old_image, new_image)
        if found:
            raise Conflict(
                f"container {name} cannot be recreated with the same settings. With {reference.local_name} it "
                "would differ in: "
                f"{'; '.join(found)}. Recreate it by hand with these settings (docker run --name {name} …)",
                kind="would-differ",
            )
        return self._clock.monotonic() - begun

    def discard(self, name: str) -> None:
        """Remove the successor that `prepare` created, unless a `replace` has begun to use it."""
        self._carry_out(*swap.discard(self._observe(name)))

    def replace(self, name: str, digest: str, stop_timeout: float | None) -> Replacement:
        """Stop the container and start its successor, which `prepare` created from that digest.

        The old container stays, stopped, as ``<name>.svcagent-old``. After any exception, `roll_back` restores it.
        ``stop_timeout``: seconds until the old container is killed; None: its own, else Docker's 10.

        :raises ChangedMeanwhile: the two are not as `prepare` left them.
        :raises NotReady: the image keeps the new container from starting.
        """
        old = inspect(self._docker, name)
        if old is None:
            raise swap.changed_by_others(name)
        paths = host_paths(old)
        limit = stop_seconds(stop_timeout, old)
        steps = swap.replace(self._observe(name), digest, limit)
        seconds = {}
        for step in steps:
            begun = self._clock.monotonic()
            try:
                self._carry_out(step)
            except Unreachable:
                raise
            except SvcagentError as error:
                # The status does not show whose fault it is: a missing program is 400, but a user that the image lacks
                # is 500, as are a port in use and a full disk. So Docker's message decides. It is the same if the host
                # has lost, meanwhile, what is mounted in the container.
                if step.verb == "start" and is_caused_by_image(str(error)) and host_paths(old) == paths:
                    raise NotReady(f"the container of {digest} does not start: {error}") from error
                raise
            seconds[step.verb] = self._clock.monotonic() - begun
        return Replacement(
            old_id=old["Id"],
            new_id=steps[-1].id,
            stop_seconds=seconds["stop"],
            start_seconds=seconds["start"],
            was_killed=seconds["stop"] >= limit and self._was_killed(name + OLD_SUFFIX),
        )

    def _was_killed(self, name: str) -> bool:
        """True if a container ended by SIGKILL. Only for a note, so a failed look does not undo the replacement."""
        try:
            return bool(existing(self._docker, name)["State"]["ExitCode"] == 128 + 9)
        except SvcagentError:
            return False

    def roll_back(self, name: str, restart_policy: str | None = None, *, finish_stop: bool = False) -> float | None:
        """Restore the old container under its name, with its restart policy, running, wherever a `replace` ended.

        Return the seconds it took; None if there is nothing to roll back. The new container is removed: read its
        `log_tail` first. ``restart_policy``: the old container's, from `Container.restart_policy` before `replace`; it
        is needed only if the new container, which otherwise holds it, was removed. ``finish_stop``: stop and start an
        old container that still runs, because `replace` may have requested its stop. Raise `Conflict` if a container in
        the way is not svcagent's, `NotFound` if the old one is gone.
        """
        begun = self._clock.monotonic()
        world = self._observe(name)
        steps = swap.roll_back(world, restart_policy, finish_stop=finish_stop)
        if not steps:
            return None
        self._carry_out(*steps)
        if not Container.of(existing(self._docker, name)).is_running:
            self.start(name)  # the Engine was restarted meanwhile, and the container's policy is "no"
        if world.old is not None and world.new is None and world.current is None and restart_policy is None:
            log(
                f"container {name} runs again, but its restart policy was not restored: it is now "
                f"{world.old.restart_policy!r}. "
                "Set it with docker update --restart",
                level=WARNING,
            )
        return self._clock.monotonic() - begun

    def replacement_status(self, name: str) -> ReplacementStatus:
        """Return how far the last replacement of that container got, and which container has its name now.

        A recovery decides on this alone, with or without a journal: a container in state NEW may still become ready,
        PREPARED must be discarded, and MIXED rolled back.
        """
        return swap.replacement_status(self._observe(name))

    def start(self, name: str) -> None:
        """Start a container that is stopped; one that runs stays as it is. Raise `NotFound`."""
        self._carry_out(SwapStep("start", existing(self._docker, name)["Id"]))

    def remove_old(self, name: str) -> None:
        """Remove the old container of a successful replacement; its volumes now belong to the new one, and stay."""
        old = inspect(self._docker, name + OLD_SUFFIX)
        if old is None:
            return
        if old["State"]["Running"]:
            raise Conflict(
                f"container {name}{OLD_SUFFIX} runs. Stop it, or roll {name} back", kind="old-container-runs"
            )
        try:
            with self._docker.call(f"remove container {name}{OLD_SUFFIX}", is_write=True) as client:
                client.remove_container(old["Id"])
        except NotFound:
            return

    def _observe(self, name: str) -> ReplacementContainers:
        return ReplacementContainers(
            name, *(observed_container(inspect(self._docker, name + suffix)) for suffix in ("", NEW_SUFFIX, OLD_SUFFIX))
        )

    def _carry_out(self, *steps: SwapStep) -> None:
        for step in steps:
            with self._docker.call(
                f"{step.verb} container {step.id[:12]} {step.argument}".rstrip(), is_write=True
            ) as client:
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

    def _create(
        self, old: Inspect, old_image: Inspect, wanted: str, name: str, reference: Reference, digest: str
    ) -> str:
        """Create ``<name>.svcagent-new`` from the image with the ID ``wanted``, in the old one's networks."""
        engine_host = ""
        if old["HostConfig"]["NetworkMode"] == "host":
            with self._docker.query("report the host's name") as queries:
                engine_host = queries.host_name()
        labels = {recreate.REPLACES_LABEL: old["Id"], recreate.DIGEST_LABEL: digest}
        volume_owners = [owner for other in recreate.volume_sources(old) if (owner := find(self._docker, other))]
        body = recreate.payload(old, old_image, reference.local_name, labels, engine_host, volume_owners)
        platform = self._foreign_platform(old, old_image)
        for _ in range(3):
            # The container is to show the name that it was given, not a digest, so the tag must refer to that digest.
            if reference.tag:
                tag(self._docker, reference, digest)
            with self._docker.call(f"create container {name}{NEW_SUFFIX}", is_write=True) as client:
                new_id = client.create(name + NEW_SUFFIX, body, platform)
            with self._docker.query(f"inspect container {name}{NEW_SUFFIX}") as queries:
                new = queries.inspect(new_id)
            noted = recreate.compose_labels(old, new)
            if new["Image"] == wanted and noted.items() <= body["Labels"].items():
                break
            body["Labels"] |= noted  # Compose's labels are known only when a container exists
            self._carry_out(SwapStep("remove", new_id))
        else:
            raise Conflict(
                f"{reference.local_name} was moved from {short_digest(digest)} on this host: "
                "another process pulls or tags it. Stop that process first",
                kind="tag-moved",
            )
        for network, endpoint in recreate.further_networks(old).items():
            self._connect(new_id, network, endpoint)
        if recreate.PROJECT_LABEL in (old["Config"].get("Labels") or {}):
            from agent.engine import compose_files  # it imports tarfile, which few need

            compose_files.copy(self._docker, old, new)
        return new_id

    def _chosen_platform(self, name: str) -> str:
        """Return the platform that was chosen for a container; empty if it is the Engine's own, or unknown."""
        old = inspect(self._docker, name)
        if old is None:
            return ""
        try:
            with self._docker.query(f"inspect the image of container {name}") as queries:
                image = queries.image(old["Image"])
        except NotFound:
            return ""
        return self._foreign_platform(old, image)

    def _foreign_platform(self, container: Inspect, image: Inspect) -> str:
        with self._docker.query("report its platform") as queries:
            own = queries.platform()
        found = recreate.platform_of(container, image)
        return "" if recreate.is_for_platform(found, own) else found

    def _connect(self, container_id: str, network: str, endpoint: Mapping[str, Any]) -> None:
        ipam = endpoint.get("IPAMConfig") or {}
        with self._docker.call(f"connect container {container_id[:12]} to network {network}", is_write=True) as client:
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


def stop_seconds(given: float | None, old: Inspect) -> int:
    """Return the seconds between the old container's stop signal and its kill."""
    if given is not None:
        return math.ceil(given)
    own = old["Config"].get("StopTimeout")
    seconds = DEFAULT_STOP_TIMEOUT if own is None else own
    return LONGEST_STOP_SECONDS if seconds < 0 else math.ceil(min(seconds, LONGEST_STOP_SECONDS))
