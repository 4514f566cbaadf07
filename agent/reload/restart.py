"""The strategies for restarting a service: one class for each that a definition can name.

The steps of a reload are the same for all. A class overrides what its strategy can do, and keeps what `Restarter` says
about each method, even if it is called again after a crash in the middle of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import datetime
from pathlib import Path
from typing import assert_never

from agent.clock import Clock
from agent.data import dataclass
from agent.definitions import CommandRestart, ContainerRestart, Service, Strategy
from agent.engine.client import Engine
from agent.engine.host_clients import host_connections
from agent.engine.model import Fetched, PullProgress
from agent.engine.stopped import StoppedContainer, find_stopped
from agent.engine.swap import NEW_SUFFIX, OLD_SUFFIX, ReplacementState, ReplacementStatus
from agent.errors import Denied, NotFound, SvcagentError
from agent.files import write_atomically
from agent.fleet import SeenDigests
from agent.reload.command import Command, require_program, run_checked, without_secrets


@dataclass(frozen=True)
class RestartResult:
    """A finished restart: the seconds of its parts by name, and a note for people."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


class Restarter:
    """One service's instance on this host, as its strategy restarts it.

    Digests are ``sha256:…``. The defaults suit a strategy without an image: there is nothing to compare, to pull or to
    roll back to, and the definition's checks alone show whether the instance runs. Every method may raise what the
    Engine or the command raises.
    """

    def newest(self) -> str:
        """Return the digest in the registry."""
        return ""

    def running(self) -> str:
        """Return the digest that runs; empty if it is unknown."""
        return ""

    def is_current(self, digest: str) -> bool:  # noqa: ARG002 - there is none
        return False

    def check_recreatable(self) -> None:
        """Raise `SvcagentError`, with the remedy, if the instance cannot be restarted in this way."""

    def fetch(self, digest: str, progress: Callable[[PullProgress], None]) -> None:
        """Pull that digest, unless it is on this host."""

    def image_created(self, digest: str) -> datetime | None:  # noqa: ARG002 - there is none
        """Return when that digest, which must be on this host, was built; None without an image."""
        return None

    def stopped(self) -> StoppedContainer | None:
        """Return how the container was stopped, and whether by an operator; None if it runs or there is none."""
        return None

    def connections(self, port: int, address: str | None) -> int:
        return host_connections(port, address)

    def prepare(self, digest: str) -> RestartResult:  # noqa: ARG002 - there is none
        """Do what `restart` needs while the old instance serves. Raise `Conflict` if more than the version would
        differ.
        """
        return RestartResult()

    def discard(self) -> None:
        """Undo `prepare`, if anything was prepared."""

    def check_startable(self) -> None:
        """Raise `Conflict` if neither the old nor the new instance could be started now."""

    def restart(self, digest: str) -> RestartResult:
        """Stop the old instance and start the new one, as `prepare` left it. `ChangedMeanwhile`: nothing was done."""
        raise NotImplementedError

    def replacement_status(self) -> ReplacementStatus:
        """Return how far the last `restart` got."""
        return ReplacementStatus(ReplacementState.OLD)

    def identity(self) -> tuple[str, int]:
        """Return an ID and a number of restarts that change whenever the instance is replaced or restarted."""
        return "", 0

    def runs(self) -> bool:
        """True unless the instance is known to be stopped."""
        return True

    def stop_was_requested(self, identity: tuple[str, int]) -> bool:  # noqa: ARG002 - unknown
        """True if the run of that `identity` ended because an operator stopped or restarted the instance."""
        return False

    def start(self) -> None:
        """Start the instance, if it is stopped."""

    def roll_back(self, restart_policy: str | None, *, finish_stop: bool) -> None:
        """Restore what ran before, as far as this strategy can.

        ``restart_policy``: as for `Engine.roll_back`. ``finish_stop``: complete a stop that may have been begun, so
        that what answers afterwards keeps answering.
        """

    def log_tail(self) -> str:
        """Return the last output of a new instance that failed; empty after `roll_back`."""
        return ""

    def clean_up(self, digest: str) -> None:
        """Remove what `roll_back` would need, and clean up; the new instance is ready and in service."""


def restarter(
    strategy: Strategy, service: Service, engine: Engine, state_dir: Path, environ: Mapping[str, str], clock: Clock
) -> Restarter:
    """Return the restarter of a strategy. ``environ``: svcagent's own environment."""
    match strategy:
        case ContainerRestart():
            return ContainerRestarter(strategy, engine, SeenDigests(state_dir, service.name))
        case CommandRestart():
            return CommandRestarter(strategy, service.id, environ, clock)
        case _:
            assert_never(strategy)


class ContainerRestarter(Restarter):
    """Creates the container again from the wanted digest; the old one is kept, renamed, until `clean_up`."""

    def __init__(self, strategy: ContainerRestart, engine: Engine, seen: SeenDigests) -> None:
        self._strategy = strategy
        self._engine = engine
        self._seen = seen

    def newest(self) -> str:
        return self._engine.registry_digest(self._strategy.image)

    def running(self) -> str:
        found = self._engine.find(self._strategy.container)
        if found is None:
            return ""
        return self._engine.digest_of(found, self._strategy.image, self._seen.fetched()) or ""

    def is_current(self, digest: str) -> bool:
        found = self._engine.container(self._strategy.container)
        return self._engine.runs_digest(found, self._strategy.image, digest, self._seen.fetched())

    def check_recreatable(self) -> None:
        self._engine.check_recreatable(self._strategy.container)

    def check_startable(self) -> None:
        self._engine.check_startable(self._strategy.container)

    def fetch(self, digest: str, progress: Callable[[PullProgress], None]) -> None:
        strategy = self._strategy
        if not self._engine.has_image(strategy.image, digest):
            self._engine.pull(
                strategy.image, digest, progress, container=strategy.container, timeout=strategy.pull_timeout
            )
        self._seen.note_fetched(Fetched(strategy.image, digest, self._engine.image_id(strategy.image, digest)))

    def image_created(self, digest: str) -> datetime | None:
        return self._engine.image_created(self._strategy.image, digest)

    def stopped(self) -> StoppedContainer | None:
        return find_stopped(self._strategy.container, self._engine.find(self._strategy.container))

    def connections(self, port: int, address: str | None) -> int:
        found = self._engine.find(self._strategy.container)
        return 0 if found is None else self._engine.connections(found, port, address)

    def prepare(self, digest: str) -> RestartResult:
        return RestartResult({"create": self._engine.prepare(self._strategy.container, self._strategy.image, digest)})

    def discard(self) -> None:
        self._engine.discard(self._strategy.container)

    def restart(self, digest: str) -> RestartResult:
        strategy = self._strategy
        done = self._engine.replace(strategy.container, digest, strategy.stop_timeout)
        return RestartResult(
            {"stop": done.stop_seconds, "start": done.start_seconds},
            "the old container ignored its stop signal until the stop timeout, and was killed"
            if done.was_killed
            else "",
        )

    def replacement_status(self) -> ReplacementStatus:
        return self._engine.replacement_status(self._strategy.container)

    def identity(self) -> tuple[str, int]:
        # A person or Docker may start the same container again; Docker counts its own restarts.
        found = self._engine.find(self._strategy.container)
        return ("", 0) if found is None else (f"{found.id} {found.started_at}", found.restart_count)

    def runs(self) -> bool:
        found = self._engine.find(self._strategy.container)
        return found is not None and found.is_running

    def stop_was_requested(self, identity: tuple[str, int]) -> bool:
        _id, _, started_at = identity[0].partition(" ")
        try:
            return self._engine.stop_was_requested(self._strategy.container, started_at)
        except (Denied, NotFound):
            return False

    def start(self) -> None:
        self._engine.start(self._strategy.container)

    def roll_back(self, restart_policy: str | None, *, finish_stop: bool) -> None:
        self._engine.roll_back(self._strategy.container, restart_policy, finish_stop=finish_stop)

    def log_tail(self) -> str:
        match self._engine.replacement_status(self._strategy.container).state:
            case ReplacementState.NEW:
                return self._engine.log_tail(self._strategy.container)
            case (
                ReplacementState.MIXED | ReplacementState.PREPARED
            ):  # the latter prints nothing, unless Docker failed to start it
                return self._engine.log_tail(self._strategy.container + NEW_SUFFIX)
            case _:
                return ""

    def clean_up(self, digest: str) -> None:  # noqa: ARG002 - the tag is what the file gets
        strategy = self._strategy
        ran = self._ran()
        self._engine.remove_old(strategy.container)
        if strategy.tag_file is not None:
            _repository, _, tag = strategy.image.rpartition(":")
            write_atomically(strategy.tag_file, f"{tag}\n")
        self._engine.prune(strategy.image, strategy.keep_images, self._seen.fetched(), ran)

    def _ran(self) -> frozenset[str]:
        """Return the digests that are known to have run here, with the one that `restart` has just stopped."""
        old = self._engine.find(self._strategy.container + OLD_SUFFIX)
        stopped = self._engine.digest_of(old, self._strategy.image, self._seen.fetched()) if old is not None else None
        try:
            return self._seen.ran() | {stopped or ""}
        except SvcagentError:  # this user may not read the history
            return frozenset({stopped or ""})


class CommandRestarter(Restarter):
    """Runs a command at every reload.

    The command must return when the old instance has stopped, as ``systemctl restart`` does; the definition's checks
    then show whether the new one is ready.
    """

    def __init__(self, strategy: CommandRestart, service_id: str, environ: Mapping[str, str], clock: Clock) -> None:
        self._command = Command(
            f"the restart command of {service_id}", strategy.argv, strategy.timeout, "reload.restart_timeout"
        )
        self._environ = environ
        self._clock = clock

    def check_recreatable(self) -> None:
        require_program(self._command, without_secrets(self._environ))

    def restart(self, digest: str) -> RestartResult:  # noqa: ARG002 - there is none
        # The command is not interrupted.
        done = run_checked(self._command, without_secrets(self._environ), self._clock)
        return RestartResult({"command": done.seconds})
