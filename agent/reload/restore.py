"""The steps that bring an instance back, for the reload itself and for recovery after its crash.

None of them needs the lock, and none gives up because a server does not answer: each goes on for a while, and may be
done again by the next process.
"""

from collections.abc import Callable
from contextlib import suppress

from agent.clock import Deadline
from agent.consul import Instance, LocalService
from agent.definitions import Reload, Service
from agent.errors import NotReady, SvcagentError, Unreachable
from agent.maintenance import Maintenance, Target, is_of_reload, lift_own, parse
from agent.registration import Action, World, apply_plan, is_own, make_plan, registration, renew_checks_as_passing
from agent.reload.edges import Edges
from agent.reload.ready import Readiness
from agent.reload.restart import Restarter

RESTORE_SECONDS = 60.0
RETRY_SECONDS = 0.5


class Restoration:
    """One service's instance on this host."""

    def __init__(
        self, service: Service, reload: Reload, restart: Restarter, edges: Edges, note: Callable[[str], None]
    ) -> None:
        """``note`` hears what a person should know though nothing failed."""
        self._service = service
        self._reload = reload
        self._restarter = restart
        self._edges = edges
        self._note = note
        self._target = Target(edges.agent.node, service.id, service.name)
        self.is_out = False
        """May maintenance of a reload of this host be on?"""
        self.last_words = ""
        """What the instance that failed printed last."""

    def remember_last_words(self) -> None:
        """Before the instance that failed is gone."""
        if not self.last_words:
            with suppress(SvcagentError):  # worth having, not worth failing for
                self.last_words = self._restarter.last_words()

    def running(self) -> str:
        """The digest that runs now; empty where nobody knows."""
        with suppress(SvcagentError):
            return self._restarter.running()
        return ""

    def roll_back(self, restart_policy: str | None) -> None:
        """Put back what ran before. ``restart_policy``: its own, where it is known."""
        self.remember_last_words()
        self.insist(lambda: self._restarter.put_back(restart_policy))

    def start(self) -> None:
        """Have the instance that stands there running."""
        self.insist(self._restarter.start)

    def await_ready(self) -> None:
        """Wait until whatever container stands there is ready. Raises `NotReady`."""
        self.insist(self.readiness().wait)

    def readiness(self) -> Readiness:
        """How the instance is asked whether it is ready."""
        edges = self._edges
        return Readiness(self._service, self._reload, edges.consul, edges.engine, edges.prober, edges.clock)

    def return_(self) -> None:
        """Lift own maintenance and see it passing; all of it may be done again while Consul does not answer."""
        self.insist(self._lift_and_see)

    def clean(self, digest: str) -> None:
        """Give up what `roll_back` would need, for the instance that runs ``digest``."""
        self._restarter.finish(digest)

    def insist(self, action: Callable[[], object]) -> None:
        """What restores goes on while the other side cannot be reached, for a while from its first silence on."""
        deadline: Deadline | None = None
        while True:
            try:
                action()
            except Unreachable:
                deadline = deadline or Deadline.after(self._edges.clock, RESTORE_SECONDS)
                if deadline.is_over:
                    raise
                self._edges.clock.sleep(RETRY_SECONDS)
            else:
                return

    def _lift_and_see(self) -> None:
        if self._lift():
            self._await_passing()

    def _lift(self) -> bool:
        """False when the maintenance is no longer a reload's of this host: whoever has it now ends it."""
        consul, service = self._edges.consul, self._service
        if not self.is_out:
            return True
        local = consul.services().get(service.id) or self._registered_again()
        held = _held(local)
        if local is None or held is None:  # lifted by an attempt whose answer was lost, or by hand
            self.is_out = False
            return local is not None
        if not is_of_reload(held, self._edges.agent.node):
            self.is_out = False
            self._note("the maintenance is no longer this reload's; whoever has it ends it")
            return False
        if is_own(local) and local.meta == registration(service)["Meta"]:
            renew_checks_as_passing(consul, service, filter(self._edges.prober.can_probe, service.checks))
        lift_own(consul, self._target, held)
        self.is_out = False
        return True

    def _registered_again(self) -> LocalService | None:
        """An agent without a data directory forgets its services when it restarts; None if another's is in the way."""
        consul = self._edges.consul
        plan = make_plan([self._service], World(*consul.services_and_checks()), frozenset({self._service.id}))
        if creation := [change for change in plan if change.action is Action.CREATE]:
            self._note("the Consul agent had forgotten the service; it is registered again")
            apply_plan(consul, creation, lambda _change: None, lambda _check: "passing")
            renew_checks_as_passing(consul, self._service, filter(self._edges.prober.can_probe, self._service.checks))
        return consul.services().get(self._service.id)

    def _await_passing(self) -> None:
        deadline = Deadline.after(self._edges.clock, RESTORE_SECONDS)
        index: int | None = None
        while True:
            index, instances = self._edges.consul.instances(self._service.name, index, min(5.0, deadline.remaining))
            own = own_instance(instances, self._edges.agent.node, self._service.id)
            if own is not None:
                held = own.maintenance
                # Just after it was lifted the catalog may still show it; anybody else's is theirs to end.
                if own.is_passing or (held is not None and not is_of_reload(parse(held.notes), own.node)):
                    return
            if deadline.is_over:
                failing = [check.id for check in own.checks if check.status != "passing"] if own else ["not there"]
                raise NotReady(
                    f"{self._service.id} answers its checks, but Consul does not show it as passing after "
                    f"{RESTORE_SECONDS:.0f} s ({', '.join(failing)})"
                )


def own_instance(instances: tuple[Instance, ...], node: str, service_id: str) -> Instance | None:
    """This host's among a service's instances, if the catalog shows it."""
    return next((one for one in instances if one.node == node and one.service_id == service_id), None)


def _held(local: LocalService | None) -> Maintenance | None:
    return parse(local.maintenance.notes) if local is not None and local.maintenance is not None else None
