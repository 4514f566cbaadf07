"""The strategies for restarting a service: one class for each that a definition can name, and their table.

The steps of a reload are the same for all; this module has what differs. A class must keep what `Restarter` says about
each method, also when it is called again after a crash in the middle of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import datetime
from pathlib import Path
from typing import Protocol, assert_never

from agent.clock import Clock
from agent.data import dataclass
from agent.definitions import CommandRestart, ContainerRestart, Service, Strategy
from agent.engine import (
    NEW_SUFFIX,
    Engine,
    Fetched,
    PullProgress,
    Stand,
    Standing,
    StoppedContainer,
    find_stopped,
    host_connections,
)
from agent.errors import Denied, NotFound
from agent.files import write_atomically
from agent.fleet import SeenDigests
from agent.reload.command import Command, carry_out, without_secrets


@dataclass(frozen=True)
class Restarted:
    """A finished restart: seconds of its parts by name, and a note for people."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


class Restarter(Protocol):
    """One service's instance on this host, as its strategy restarts it.

    Digests are ``sha256:…``; where a strategy knows no image they are empty. Everything may raise what the Engine or
    the command raises.
    """

    def newest(self) -> str:
        """Return the digest in the registry."""

    def running(self) -> str:
        """Return the digest that runs; empty if it is unknown."""

    def is_current(self, digest: str) -> bool:
        """True if the instance runs that digest already."""

    def check_possible(self) -> None:
        """Check that this instance can be restarted in this way.

        :raises Conflict: it cannot; the message says what to change.
        """

    def fetch(self, digest: str, progress: Callable[[PullProgress], None]) -> None:
        """Pull that digest, unless it is on this host."""

    def built(self, digest: str) -> datetime | None:
        """Return when that digest, fetched before, was built; None without an image."""

    def stopped(self) -> StoppedContainer | None:
        """Return how the container was stopped, and whether by an operator; None if it runs or there is none."""

    def connections(self, port: int, address: str | None) -> int:
        """Return how many clients are connected to the instance."""

    def prepare(self, digest: str) -> Restarted:
        """Do what can be done for `restart` while the old instance serves, which it leaves as it is.

        :raises Conflict: the new instance would not be what the old one is, but for its version.
        """

    def discard(self) -> None:
        """Undo `prepare`; nothing happens where nothing was prepared."""

    def restart(self, digest: str) -> Restarted:
        """Stop the old instance and start the new one, as `prepare` left it."""

    def standing(self) -> Standing:
        """Return how far the last `restart` got."""

    def identity(self) -> tuple[str, int]:
        """Return what changes whenever the instance is replaced or restarted: an ID, and a number of restarts."""

    def runs(self) -> bool:
        """True unless the instance is known to be stopped."""

    def stop_was_requested(self, identity: tuple[str, int]) -> bool:
        """True if the run of that `identity` ended because an operator stopped or restarted the instance."""

    def start(self) -> None:
        """Start the instance, if it is stopped."""

    def put_back(self, restart_policy: str | None, *, finish_stop: bool) -> None:
        """Run what ran before, as far as this strategy can.

        ``restart_policy``: as for the Engine's. ``finish_stop``: wait for the end of a stop that may have been begun,
        so that what answers afterwards goes on answering.
        """

    def last_words(self) -> str:
        """Return what a new instance that failed printed last; empty after `put_back`."""

    def finish(self, digest: str) -> None:
        """Remove what `put_back` would need, and tidy; the new instance is ready and in service."""


def restarter(
    strategy: Strategy, service: Service, engine: Engine, state_dir: Path, environ: Mapping[str, str], clock: Clock
) -> Restarter:
    """Return the restarter of a service's strategy. ``environ``: svcagent's own environment."""
    match strategy:
        case ContainerRestart():
            return ContainerRestarter(strategy, engine, SeenDigests(state_dir, service.name))
        case CommandRestart():
            return CommandRestarter(strategy, service.id, environ, clock)
        case _:
            assert_never(strategy)


class ContainerRestarter:
    """Creates the container again, from the wanted digest; the old one is kept, renamed, until `finish`."""

    def __init__(self, strategy: ContainerRestart, engine: Engine, seen: SeenDigests) -> None:
        self._its = strategy
        self._engine = engine
        self._seen = seen

    def newest(self) -> str:
        """Return what the registry has under the tag."""
        return self._engine.registry_digest(self._its.image)

    def running(self) -> str:
        """Return the digest that the container was created from."""
        found = self._engine.find(self._its.container)
        if found is None:
            return ""
        return self._engine.digest_of(found, self._its.image, self._seen.fetched()) or ""

    def is_current(self, digest: str) -> bool:
        """True if the container was created from it."""
        found = self._engine.container(self._its.container)
        return self._engine.runs_digest(found, self._its.image, digest, self._seen.fetched())

    def check_possible(self) -> None:
        """Check that the container can be created again with its settings."""
        self._engine.check_recreatable(self._its.container)

    def fetch(self, digest: str, progress: Callable[[PullProgress], None]) -> None:
        """Pull the image, unless it is on this host, and note it down."""
        its = self._its
        if not self._engine.has_image(its.image, digest):
            self._engine.pull(its.image, digest, progress, container=its.container, timeout=its.pull_timeout)
        self._seen.note_fetched(Fetched(its.image, digest, self._engine.image_id(its.image, digest)))

    def built(self, digest: str) -> datetime | None:
        """Return the time in the image."""
        return self._engine.image_created(self._its.image, digest)

    def stopped(self) -> StoppedContainer | None:
        """Return it from Docker's state of the container."""
        return find_stopped(self._its.container, self._engine.find(self._its.container))

    def connections(self, port: int, address: str | None) -> int:
        """Return those of the container; none if it does not exist."""
        found = self._engine.find(self._its.container)
        return 0 if found is None else self._engine.connections(found, port, address)

    def prepare(self, digest: str) -> Restarted:
        """Create the new container, and compare it with the old one."""
        return Restarted({"create": self._engine.prepare(self._its.container, self._its.image, digest)})

    def discard(self) -> None:
        """Remove the new container, which never ran."""
        self._engine.discard(self._its.container)

    def restart(self, digest: str) -> Restarted:
        """Stop, rename, start."""
        its = self._its
        done = self._engine.replace(its.container, digest, its.stop_timeout)
        return Restarted(
            {"stop": done.stop_seconds, "start": done.start_seconds},
            "the old container ignored its stop signal until the stop timeout, and was killed"
            if done.was_killed
            else "",
        )

    def standing(self) -> Standing:
        """Return it from the containers that exist."""
        return self._engine.standing(self._its.container)

    def identity(self) -> tuple[str, int]:
        """Return the container's ID with its start time, and its restart count."""
        found = self._engine.find(self._its.container)
        return ("", 0) if found is None else (f"{found.id} {found.started_at}", found.restart_count)

    def runs(self) -> bool:
        """True if Docker shows it as running."""
        found = self._engine.find(self._its.container)
        return found is not None and found.is_running

    def stop_was_requested(self, identity: tuple[str, int]) -> bool:
        """Return it from Docker's events; False where they cannot be read, or the container is gone."""
        _id, _, started_at = identity[0].partition(" ")
        try:
            return self._engine.stop_was_requested(self._its.container, started_at)
        except (Denied, NotFound):
            return False

    def start(self) -> None:
        """Start it like ``docker start``."""
        self._engine.start(self._its.container)

    def put_back(self, restart_policy: str | None, *, finish_stop: bool) -> None:
        """Run the old container, with its restart policy."""
        self._engine.roll_back(self._its.container, restart_policy, finish_stop=finish_stop)

    def last_words(self) -> str:
        """Return the end of the new container's log; the old one's is not about the failure."""
        match self._engine.standing(self._its.container).stand:
            case Stand.NEW:
                return self._engine.log_tail(self._its.container)
            case Stand.MIXED | Stand.PREPARED:  # the latter prints nothing, unless Docker failed to start it
                return self._engine.log_tail(self._its.container + NEW_SUFFIX)
            case _:
                return ""

    def finish(self, digest: str) -> None:  # noqa: ARG002 - the tag is what the file gets
        """Remove the old container and old images; write the tag file."""
        its = self._its
        self._engine.remove_old(its.container)
        if its.tag_file is not None:
            _repository, _, tag = its.image.rpartition(":")
            write_atomically(its.tag_file, f"{tag}\n")
        self._engine.prune(its.image, its.keep_images, self._seen.fetched())


class CommandRestarter:
    """Runs a command at every reload. There is no image to compare, to pull or to return to.

    The command has to return when the old instance has stopped, as ``systemctl restart`` does; the definition's checks
    then say whether the new one is ready.
    """

    def __init__(self, strategy: CommandRestart, service_id: str, environ: Mapping[str, str], clock: Clock) -> None:
        self._command = Command(
            f"the restart command of {service_id}", strategy.argv, strategy.timeout, "reload.restart_timeout"
        )
        self._environ = environ
        self._clock = clock

    def newest(self) -> str:
        """No image."""
        return ""

    def running(self) -> str:
        """No image."""
        return ""

    def is_current(self, digest: str) -> bool:  # noqa: ARG002 - there is none
        """False: a reload always restarts."""
        return False

    def check_possible(self) -> None:
        """Always."""

    def fetch(self, digest: str, progress: Callable[[PullProgress], None]) -> None:
        """Nothing to fetch."""

    def built(self, digest: str) -> datetime | None:  # noqa: ARG002 - there is none
        """Nothing was built."""
        return None

    def stopped(self) -> StoppedContainer | None:
        """No container."""
        return None

    def connections(self, port: int, address: str | None) -> int:
        """Count those in the host's network namespace, where such services run."""
        return host_connections(port, address)

    def prepare(self, digest: str) -> Restarted:  # noqa: ARG002 - there is none
        """Nothing can be prepared."""
        return Restarted()

    def discard(self) -> None:
        """Nothing was prepared."""

    def restart(self, digest: str) -> Restarted:  # noqa: ARG002 - there is none
        """Run the command, which must exit with 0. It is not interrupted."""
        done = carry_out(self._command, without_secrets(self._environ), self._clock)
        return Restarted({"command": done.seconds})

    def standing(self) -> Standing:
        """Return OLD always: the checks say whether the service runs."""
        return Standing(Stand.OLD)

    def identity(self) -> tuple[str, int]:
        """Unknown: its service manager may restart it."""
        return "", 0

    def runs(self) -> bool:
        """Unknown, so its checks say it."""
        return True

    def stop_was_requested(self, identity: tuple[str, int]) -> bool:  # noqa: ARG002 - nobody can tell
        """Unknown, so its checks count."""
        return False

    def start(self) -> None:
        """Its service manager does."""

    def put_back(self, restart_policy: str | None, *, finish_stop: bool) -> None:
        """Do nothing: after a failed command, the checks say whether the service is ready."""

    def last_words(self) -> str:
        """Return nothing: the command's output is in its error."""
        return ""

    def finish(self, digest: str) -> None:
        """Nothing was kept."""
