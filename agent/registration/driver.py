"""One registration: observe, plan, apply. ``register``, ``plan`` and the daemon's convergence use it.

The plan is data, so the caller can show or refuse it before anything is written.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from agent.consul import Consul
from agent.definitions import Check, Service
from agent.errors import SvcagentError
from agent.registration.apply import Failures, Report, apply_plan, restore_node_maintenance
from agent.registration.consent import Objection, find_objection
from agent.registration.last_seen import LastSeen, LastSeenFile
from agent.registration.observe import observe, refuse_unknown_nodes
from agent.registration.plan import Action, Change, World, make_plan, nodes_followed


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
        self.world = World({}, {})
        """The services and checks of the agent when the plan was made."""
        self.last_seen = LastSeen()
        """What earlier runs recorded."""
        self.objection: Objection | None = None
        """Why the plan needs consent that was not given."""
        self.done: list[Change] = []
        self.refused: list[Change] = []
        self.failures = Failures(report)
        self.unremembered: SvcagentError | None = None
        """Why the registration could not be recorded."""

    @property
    def vanished_node(self) -> str | None:
        """The reason text of the node's maintenance if the agent lost it; `apply` enables it again."""
        return self.last_seen.vanished_node(self.world)

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
        vanished = self.last_seen.vanished_services(self.world, self._is_finished)
        found = make_plan(services, self.world, names, is_adopting=is_adopting, maintenance=vanished)
        plan = tuple(
            one if one.action is not Action.REMOVE or may_remove(one.service_id) else _kept(one) for one in found
        )
        self.objection = None if has_consent else find_objection(plan, self.world, self._directory, self.last_seen)
        return plan

    def apply(self, plan: Iterable[Change], probe: Callable[[Check], str], *, is_all: bool = True) -> None:
        """Carry out a plan, one service at a time, and record what is registered from where. Raise `Unreachable`.

        ``probe``: as in `apply_plan`. ``is_all``: the plan is for all services of the directory.
        """
        self._remember(lambda last: last.after(self.world))
        if self.vanished_node is not None:
            restore_node_maintenance(self._consul, self.vanished_node)
        for change in sorted(plan, key=_readiness):
            with self.failures.collected(change.service_id):
                possible = refuse_unknown_nodes(self._consul, [change])
                self.refused += [one for one in possible if one.action is Action.REFUSE]
                apply_plan(self._consul, possible, self.done.append, probe)
        is_complete = self.objection is None and not self.failures.found

        def after(last: LastSeen) -> LastSeen:
            last = last.after_changes(self.done)
            return last.registered_from(self._directory, is_all=is_all) if is_complete else last

        self._remember(after)

    def _remember(self, change: Callable[[LastSeen], LastSeen]) -> None:
        try:
            self._kept.change(change)
        except SvcagentError as error:
            self.unremembered = error


def _kept(change: Change) -> Change:
    return Change(Action.KEEP, change.service_id, "no good file defines it, but a faulty one may")


def _readiness(change: Change) -> tuple[bool, bool, bool]:
    """Return the sort key of a change: quick changes first, then those that may take long, then removals."""
    return change.action is Action.REMOVE, bool(nodes_followed([change])), bool(change.new_checks)
