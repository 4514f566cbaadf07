"""What this host's Consul agent held when svcagent last looked, kept in the state directory.

Consul stores maintenance with the service. Removing the service (`deregister_critical_service_after`, or the restart of
an agent without a data directory) removes an operator's maintenance too. This record says which services must be
registered in maintenance again. `LastSeen` is pure; `LastSeenFile` reads and writes it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any

from agent.clock import Clock, Deadline, poll
from agent.consul import NODE_MAINTENANCE, LocalService
from agent.data import dataclass
from agent.errors import LockBusy
from agent.files import FileLock, write_atomically
from agent.logs import WARNING, log
from agent.registration.mark import is_own
from agent.registration.plan import AgentState, Change, ChangeAction

LAST_SEEN_FILE = "registration.json"
LOCK_FILE = "registration.json.lock"
VERSION = 1
LOCK_SECONDS = 5.0
LOCK_PAUSE = 0.02


@dataclass(frozen=True)
class LastSeen:
    """What svcagent registered on this host, and from where.

    ``directory`` and ``real_directory``: the directory of the definitions registered last, as given and with all links
    followed; empty before the first registration.
    ``services``: each service of svcagent by ID, with the reason text of its maintenance, or None without one. A
    service that vanished stays until it is seen again or svcagent removes it.
    ``node``: the reason text of the node's maintenance.
    ``agreed``: the service IDs after the last registration of all definitions that needed no more consent. Removals are
    compared with their number, so that services registered while removals wait for consent do not count.
    """

    directory: str = ""
    real_directory: str = ""
    services: Mapping[str, str | None] = field(default_factory=dict)
    node: str | None = None
    agreed: tuple[str, ...] = ()

    def after(self, world: AgentState) -> "LastSeen":
        if self.lost_node_maintenance(world) is not None:
            return self  # the agent lost everything; maintenance was not disabled
        seen = {one.id: one.maintenance.notes if one.maintenance else None for one in _own(world)}
        vanished = {one: text for one, text in self.services.items() if one not in world.services}
        held = world.checks.get(NODE_MAINTENANCE)
        return replace(self, services={**vanished, **seen}, node=held.notes if held is not None else None)

    def after_changes(self, done: Iterable[Change]) -> "LastSeen":
        """Return what is known after these changes were carried out. A service that svcagent removed is forgotten."""
        services = dict(self.services)
        for one in done:
            if one.action is ChangeAction.CREATE:
                services.pop(one.replaces, None)
                services[one.service_id] = one.maintenance
            elif one.action is ChangeAction.REMOVE:
                services.pop(one.service_id, None)
        return replace(self, services=services)

    def registered_from(self, directory: Path, *, is_all: bool) -> "LastSeen":
        """Return what is known after this directory was registered; ``is_all``: with all of its services."""
        agreed = tuple(sorted(self.services)) if is_all else self.agreed
        place, real = str(directory.absolute()), str(directory.resolve())
        return replace(self, directory=place, real_directory=real, agreed=agreed)

    def is_other_directory(self, directory: Path) -> bool:
        """True if another directory was registered last. A symbolic link with a new target is the same directory."""
        is_same = str(directory.absolute()) == self.directory or str(directory.resolve()) == self.real_directory
        return bool(self.directory) and not is_same

    def lost_service_maintenance(self, world: AgentState, is_over: Callable[[str, str], bool]) -> dict[str, str]:
        """Return the services that vanished while they were in maintenance, each with its reason text.

        ``is_over(service_id, text)`` returns True for the maintenance of a reload that has finished: the reload
        disabled it after the agent was last seen.
        """
        return {
            service_id: text
            for service_id, text in self.services.items()
            if text is not None and service_id not in world.services and not is_over(service_id, text)
        }

    def lost_node_maintenance(self, world: AgentState) -> str | None:
        """Return the reason text of the node's maintenance if the agent lost it; None if it was disabled.

        An agent that loses the node's maintenance also loses all services of svcagent.
        """
        if self.node is None or NODE_MAINTENANCE in world.checks or not self.services or any(_own(world)):
            return None
        return self.node


def _own(world: AgentState) -> Iterator[LocalService]:
    return (one for one in world.services.values() if is_own(one))


class LastSeenFile:
    """``<state directory>/registration.json``. CLI verbs and the daemon may change it at the same time."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self._file = state_dir / LAST_SEEN_FILE
        self._clock = clock

    def read(self) -> LastSeen:
        """Return the recorded state. If the file cannot be used, log a warning and return an empty one."""
        try:
            return _parsed(json.loads(self._file.read_bytes()))
        except FileNotFoundError:
            return LastSeen()
        except OSError as error:
            log(f"cannot read {self._file}: {error.strerror}. Run as the owner of the state directory", level=WARNING)
            return LastSeen()
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            log(f"{self._file} is invalid and will be rewritten: {error}", level=WARNING)
            return LastSeen()

    def change(self, change: Callable[[LastSeen], LastSeen]) -> LastSeen:
        """Read the file, apply ``change``, and write the result if it differs. Raise `SvcagentError` if that fails."""
        with suppress(OSError):  # the lock file cannot be opened then
            self._file.parent.mkdir(mode=0o700)
        with FileLock(self._file.with_name(LOCK_FILE)) as lock:
            if not poll(lock.try_acquire, Deadline.after(self._clock, LOCK_SECONDS), LOCK_PAUSE):
                raise LockBusy(
                    f"another svcagent has been writing {self._file} for {LOCK_SECONDS:.0f} s",
                    kind="registration-running",
                )
            before = self.read()
            after = change(before)
            if after != before:
                write_atomically(self._file, json.dumps({"v": VERSION, **asdict(after)}), mode=0o600)
        return after

    def record_maintenance(self, service_id: str, text: str | None) -> None:
        """Record the maintenance of a service, or of the node if ``service_id`` is empty; None if it was disabled.

        :raises SvcagentError: the file could not be written.
        """

        def change(before: LastSeen) -> LastSeen:
            if not service_id:
                return replace(before, node=text)
            return replace(before, services={**before.services, service_id: text})

        self.change(change)


def _parsed(tree: Any) -> LastSeen:
    """:raises ValueError, TypeError, LookupError, AttributeError: the document is not of this version."""
    if not isinstance(tree, dict) or tree.pop("v", None) != VERSION:
        raise ValueError("not a document of this version")
    found = LastSeen(**{**tree, "agreed": tuple(tree["agreed"])})
    texts = (found.directory, found.real_directory, *found.services.values(), found.node, *found.agreed)
    if not all(one is None or isinstance(one, str) for one in texts):
        raise TypeError("not the values of this document")
    return found
