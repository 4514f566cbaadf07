"""One registration: observe, plan, apply. ``register``, ``plan`` and the daemon's convergence use it.

The plan is data, so the caller can show or refuse it before anything is written.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agent.clock import Clock, Deadline, poll
from agent.consul import Consul
from agent.definitions import Check, Service
from agent.errors import LockBusy, SvcagentError
from agent.files import FileLock
from agent.registration.apply import CollectedFailures, Report, apply_change, restore_node_maintenance
from agent.registration.consent import Objection, find_objection
from agent.registration.last_seen import LastSeen, LastSeenFile
from agent.registration.plan import AgentState, Change, ChangeAction, make_plan, nodes_followed, refused_for_nodes

LOCK_FILE = "register.lock"
LOCK_PAUSE = 0.05


@contextmanager
def exclusive_registration(state_dir: Path, clock: Clock, wait: float) -> Iterator[bool]:
    """Exclude other registrations of the same state directory; yield True if this one had to wait for another.

    The lock file is in the state directory, where no other user can open it.

    :raises LockBusy: another registration still held the lock after ``wait`` seconds.
    """
    path = state_dir / LOCK_FILE
    with FileLock(path) as lock:
        is_first = lock.try_acquire()
        if not is_first and not poll(lock.try_acquire, Deadline.after(clock, wait), LOCK_PAUSE):
            raise LockBusy(
                f"another svcagent process has been registering services on this host for {wait:.0f} s (lock file "
                f"{path}). Try again when it has ended. To find it, run: fuser -v {path}",
                kind="registration-running",
            )
        yield not is_first


def observe(consul: Consul, expected: Mapping[str, str] | None = None) -> AgentState:
    """Return what the local agent holds, by two requests. ``expected``: as in `Consul.services_and_checks`."""
    return AgentState(*consul.services_and_checks(expected))


def refuse_unknown_nodes(consul: Consul, change: Change) -> Change:
    """Refuse a change that would crash a Consul 1.8 agent; one request for each node that its checks follow."""
    unknown = [node for node in nodes_followed(change) if not consul.is_node_known(node)]
    return refused_for_nodes(change, unknown) if unknown else change


class Registration:
    """Registers the services of ``directory`` once. Its attributes show what was done, even if `apply` is aborted.

    ``is_finished`` returns True if a service ID and the reason text of its maintenance belong to a reload that has
    finished. ``report`` is called with the service ID and the exception if the exception is a bug.
    """

    def __init__(
        self,
        consul: Consul,
        directory: Path,
        kept: LastSeenFile,
        is_finished: Callable[[str, str], bool],
        report: Report,
    ) -> None:
        self._consul = consul
        self._directory = directory
        self._kept = kept
        self._is_finished = is_finished
        self.world = AgentState({}, {})
        """The services and checks of the agent when the plan was made."""
        self.last_seen = LastSeen()
        """What earlier runs recorded."""
        self.objection: Objection | None = None
        """Why the plan needs consent that was not given."""
        self.done: list[Change] = []
        self.refused: list[Change] = []
        self.failures = CollectedFailures(report)
        self.record_error: SvcagentError | None = None
        """Why the registration could not be recorded."""

    @property
    def lost_node_maintenance(self) -> str | None:
        """The reason text of the node's maintenance if the agent lost it; `apply` enables it again."""
        return self.last_seen.lost_node_maintenance(self.world)

    def plan(
        self,
        services: Iterable[Service],
        names: frozenset[str] = frozenset(),
        *,
        expected: Mapping[str, str] | None = None,
        is_adopting: bool = False,
        has_consent: bool = False,
        may_remove: Callable[[str], bool] = lambda _service_id: True,
    ) -> tuple[Change, ...]:
        """Observe the agent and return what has to change. A service that ``may_remove`` rejects is kept."""
        self.world = observe(self._consul, expected)
        self.last_seen = self._kept.read()
        vanished = self.last_seen.lost_service_maintenance(self.world, self._is_finished)
        found = make_plan(services, self.world, names, is_adopting=is_adopting, maintenance=vanished)
        plan = tuple(
            one if one.action is not ChangeAction.REMOVE or may_remove(one.service_id) else _kept(one) for one in found
        )
        self.objection = None if has_consent else find_objection(plan, self.world, self._directory, self.last_seen)
        return plan

    def apply(self, plan: Iterable[Change], probe: Callable[[Check], str], *, is_all: bool = True) -> None:
        """Carry out a plan, one service at a time, and record what is registered from where. Raise `Unreachable`.

        ``probe``: as in `apply_change`. ``is_all``: the plan is for all services of the directory.
        """
        self._remember(lambda last: last.after(self.world))
        if self.lost_node_maintenance is not None:
            restore_node_maintenance(self._consul, self.lost_node_maintenance)
        for planned in sorted(plan, key=_readiness):
            with self.failures.collected(planned.service_id):
                change = refuse_unknown_nodes(self._consul, planned)
                if change.action is ChangeAction.REFUSE:
                    self.refused.append(change)
                elif apply_change(self._consul, change, probe):
                    self.done.append(change)
        is_complete = self.objection is None and not self.failures.found

        def after(last: LastSeen) -> LastSeen:
            last = last.after_changes(self.done)
            return last.registered_from(self._directory, is_all=is_all) if is_complete else last

        self._remember(after)

    def _remember(self, change: Callable[[LastSeen], LastSeen]) -> None:
        try:
            self._kept.change(change)
        except SvcagentError as error:
            self.record_error = error


def _kept(change: Change) -> Change:
    return Change(ChangeAction.KEEP, change.service_id, "kept: no valid file defines it, but a file with errors may")


def _readiness(change: Change) -> tuple[bool, bool, bool]:
    """Return the sort key of a change: quick changes first, then those that may take long, then removals."""
    return change.action is ChangeAction.REMOVE, bool(nodes_followed(change)), bool(change.new_checks)
