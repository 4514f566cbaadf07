"""One registration: observe, plan, apply. ``register``, ``plan`` and the daemon's convergence all use it.

The plan is data between two calls: its owner shows it, or refuses it, before anything is written.
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
    """Registers the services of ``directory`` once. What it did is known even if `apply` is aborted.

    ``is_finished`` is called with a service's ID and the reason text of its maintenance: True if that is of a reload
    that has finished. ``report`` is called with the service and the exception if that is a bug.
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
        """What was known of it before."""
        self.objection: Objection | None = None
        """Why the plan needs consent that was not given."""
        self.done: list[Change] = []
        self.refused: list[Change] = []
        self.failures = Failures(report)
        self.unremembered: SvcagentError | None = None
        """Why it could not be noted what is registered."""

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
        """Observe the agent; return what has to change. What ``may_remove`` does not allow to be removed stays."""
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
        """Carry a plan out, one service after the other, and note what is registered from where.

        ``probe`` as in `apply_plan`. ``is_all``: the plan is for all services of the directory.

        :raises Unreachable: Consul does not answer.
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
    """Return the sort key of a change: removals last, and before them the changes that may take long."""
    return change.action is Action.REMOVE, bool(nodes_followed([change])), bool(change.new_checks)
