"""The strategies for restarting a service: one class for each that a definition can name, and their table.

The steps of a reload are the same for all; this module has what differs. A class must keep what `Restarter` says about
each method, also when it is called again after a crash in the middle of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, assert_never

from agent.clock import Clock
from agent.definitions import CommandRestart, ContainerRestart, Strategy
from agent.engine import (
    NEW_SUFFIX,
    Engine,
    PullProgress,
    Stand,
    Standing,
    StoppedContainer,
    find_stopped,
    host_connections,
)
from agent.files import write_atomically
from agent.reload.command import Command, carry_out, without_secrets


@dataclass(frozen=True)
class Restarted:
    """A restart that was done: seconds of its parts by name, and what a person should know of it."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


class Restarter(Protocol):
    """One service's instance on this host, as its strategy restarts it.

    Digests are ``sha256:…``; where a strategy knows no image they are empty. Everything may raise what the Engine or
    the command raises.
    """

    def newest(self) -> str:
        """The digest that could run; asks the registry."""

    def running(self) -> str:
        """The digest that runs; empty also when nobody knows."""

    def is_current(self, digest: str) -> bool:
        """Does the instance run that digest already, so that there is nothing to do?"""

    def check_possible(self) -> None:
        """Raises `Conflict`, with the way out, when this instance cannot be restarted in this way."""

    def fetch(self, digest: str, progress: Callable[[PullProgress], None]) -> None:
        """Bring that digest here; nothing when it is here."""

    def built(self, digest: str) -> datetime | None:
        """When that digest, fetched before, was built; None where there is nothing to build."""

    def stopped(self) -> StoppedContainer | None:
        """How the instance's container is stopped, and whether an operator did that; None if it runs or has none."""

    def connections(self, port: int, address: str | None) -> int:
        """How many clients are connected to the instance."""

    def restart(self, digest: str) -> Restarted:
        """Disruptive: afterwards the new instance has been started."""

    def standing(self) -> Standing:
        """How far the last `restart` got."""

    def identity(self) -> tuple[str, int]:
        """Return what changes whenever the instance is replaced or restarted: an ID, and a number of restarts."""

    def runs(self) -> bool:
        """True unless the instance is known to be stopped."""

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
    strategy: Strategy, service_id: str, engine: Engine, environ: Mapping[str, str], clock: Clock
) -> Restarter:
    """The table of strategies. ``environ``: the agent's own."""
    match strategy:
        case ContainerRestart():
            return ContainerRestarter(strategy, engine)
        case CommandRestart():
            return CommandRestarter(strategy, service_id, environ, clock)
        case _:
            assert_never(strategy)


class ContainerRestarter:
    """Makes the container anew, of the wanted digest; the old one stays beside it until `finish`."""

    def __init__(self, strategy: ContainerRestart, engine: Engine) -> None:
        self._its = strategy
        self._engine = engine

    def newest(self) -> str:
        """What the registry has under the tag."""
        return self._engine.registry_digest(self._its.image)

    def running(self) -> str:
        """What the container was made from."""
        found = self._engine.find(self._its.container)
        return (self._engine.digest_of(found, self._its.image) if found is not None else None) or ""

    def is_current(self, digest: str) -> bool:
        """Was the container made from it?"""
        return self._engine.runs_digest(self._engine.container(self._its.container), self._its.image, digest)

    def check_possible(self) -> None:
        """A container that can be made anew as it is."""
        self._engine.check_recreatable(self._its.container)

    def fetch(self, digest: str, progress: Callable[[PullProgress], None]) -> None:
        """A pull."""
        if not self._engine.has_image(self._its.image, digest):
            self._engine.pull(self._its.image, digest, progress)

    def built(self, digest: str) -> datetime | None:
        """As the image says."""
        return self._engine.image_created(self._its.image, digest)

    def stopped(self) -> StoppedContainer | None:
        """By what Docker shows of the container."""
        return find_stopped(self._its.container, self._engine.find(self._its.container))

    def connections(self, port: int, address: str | None) -> int:
        """Those of the container; none once it is gone."""
        found = self._engine.find(self._its.container)
        return 0 if found is None else self._engine.connections(found, port, address)

    def restart(self, digest: str) -> Restarted:
        """Create, stop, start."""
        its = self._its
        done = self._engine.replace(its.container, its.image, digest, its.stop_timeout)
        return Restarted(
            {"create": done.create_seconds, "stop": done.stop_seconds, "start": done.start_seconds},
            "the old container ignored its stop signal until the stop timeout, and was killed"
            if done.was_killed
            else "",
        )

    def standing(self) -> Standing:
        """By the containers that are there."""
        return self._engine.standing(self._its.container)

    def identity(self) -> tuple[str, int]:
        """The container's ID and its restart count."""
        found = self._engine.find(self._its.container)
        return ("", 0) if found is None else (f"{found.id} {found.started_at}", found.restart_count)

    def runs(self) -> bool:
        """As Docker shows it."""
        found = self._engine.find(self._its.container)
        return found is not None and found.is_running

    def start(self) -> None:
        """As ``docker start``."""
        self._engine.start(self._its.container)

    def put_back(self, restart_policy: str | None, *, finish_stop: bool) -> None:
        """The old container, running, with its restart policy."""
        self._engine.roll_back(self._its.container, restart_policy, finish_stop=finish_stop)

    def last_words(self) -> str:
        """The end of the new container's log; the old one's says nothing about the failure."""
        match self._engine.standing(self._its.container).stand:
            case Stand.NEW:
                return self._engine.log_tail(self._its.container)
            case Stand.MIXED:
                return self._engine.log_tail(self._its.container + NEW_SUFFIX)
            case _:
                return ""

    def finish(self, digest: str) -> None:  # noqa: ARG002 - the tag is what the file gets
        """Old container and old images go; the tag file says what runs."""
        its = self._its
        self._engine.remove_old(its.container)
        if its.tag_file is not None:
            _repository, _, tag = its.image.rpartition(":")
            write_atomically(its.tag_file, f"{tag}\n")
        self._engine.prune(its.image, its.keep_images)


class CommandRestarter:
    """Runs a command, at every reload: there is no image to be new, none to pull, and none to go back to.

    The command has to return when the old instance has stopped, as ``systemctl restart`` does; whether the new one is
    ready is asked afterwards, by the definition's checks alone.
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
        """Never: whoever runs a reload wants a restart."""
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
        """Those of this machine's own network namespace, where such services live."""
        return host_connections(port, address)

    def restart(self, digest: str) -> Restarted:  # noqa: ARG002 - there is none
        """The command, which must end with status 0; not to be interrupted, as a restart half done is none."""
        done = carry_out(self._command, without_secrets(self._environ), self._clock)
        return Restarted({"command": done.seconds})

    def standing(self) -> Standing:
        """Nothing is ever half-way that could be told from here: its checks say whether it runs."""
        return Standing(Stand.OLD)

    def identity(self) -> tuple[str, int]:
        """Unknown: its service manager may restart it."""
        return "", 0

    def runs(self) -> bool:
        """Unknown, so its checks say it."""
        return True

    def start(self) -> None:
        """Its service manager does."""

    def put_back(self, restart_policy: str | None, *, finish_stop: bool) -> None:
        """Nothing to go back to: what runs after a failed command is asked whether it is ready."""

    def last_words(self) -> str:
        """The command's own are in its error."""
        return ""

    def finish(self, digest: str) -> None:
        """Nothing was kept."""
