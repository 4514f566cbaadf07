"""The steps that return an instance to service, for the reload itself and for recovery after its crash.

None of them needs the lock, and none gives up because a server does not answer: each retries for a while, and may be
repeated by the next process.
"""

import ipaddress
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from agent.clock import Deadline, nothing_ends_it
from agent.consul import CheckState, Instance, LocalService, ask_dns
from agent.data import dataclass
from agent.definitions import Reload, Service
from agent.errors import Conflict, NotFound, NotReady, SvcagentError, Unreachable
from agent.maintenance import (
    Maintenance,
    Target,
    await_absence_from_dns,
    await_absence_from_health,
    await_shown,
    by_reload,
    is_of_reload,
    lift_own,
    parse,
    take_out,
)
from agent.registration import Action, World, apply_plan, is_own, make_plan, registration, renew_checks
from agent.reload.drain import await_quiet
from agent.reload.edges import Edges
from agent.reload.ready import Readiness
from agent.reload.restart import Restarter

RESTORE_SECONDS = 60.0
RETRY_SECONDS = 0.5

FOREIGN_ATTEMPTS = 3
"""How often a step is tried that ends with an exception of an unexpected type."""

MOMENT_SECONDS = 10.0
"""How long an instance that was ready may take to be seen ready once more, right before clients return to it."""

SETTLE_INTERVAL = 0.2
FAILED_ROUNDS = 3
"""Rounds in a row in which an instance that clients use fails its checks, before the step settle fails."""


class Restoration:
    """One service's instance on this host.

    ``reload_id`` is the one of the reload to restore, by which its maintenance is known even if the node was renamed;
    ``before`` the status of each check before the drain. ``note`` reports what a person should know though nothing
    failed.
    """

    def __init__(
        self,
        service: Service,
        reload: Reload,
        restart: Restarter,
        edges: Edges,
        note: Callable[[str], None],
        reload_id: str,
        before: Mapping[str, str] | None = None,
    ) -> None:
        self._service = service
        self._reload = reload
        self._restarter = restart
        self._edges = edges
        self._note = note
        self._reload_id = reload_id
        self._target = Target(edges.agent.node, service.id, service.name)
        name = f"{service.name}.service.{edges.agent.datacenter}.{edges.agent.domain}"
        self.ask_dns = {f"{host}:{port}": partial(ask_dns, (host, port), name) for host, port in edges.drain_dns}
        """By DNS server of the clients, a function that asks it for the instances."""
        self.readiness = Readiness(
            service, reload, edges.consul, edges.engine, edges.prober, edges.clock, before=before
        )
        """The judge of this instance's checks; one from restart to return, it knows what Consul runs again."""
        self._identity: tuple[str, int] | None = None
        self.is_out = False
        """True if maintenance of a reload of this host may be enabled."""
        self.log_tail = ""
        """What the new container that failed printed last."""
        self.signatures: frozenset[str] = frozenset()
        """The failures seen on the old container after it was started again."""

    def remember_log_tail(self) -> None:
        """Read what the new container printed last, before it is removed."""
        if not self.log_tail:
            with suppress(SvcagentError):  # useful, but nothing depends on it
                self.log_tail = self._restarter.last_words()

    def running(self) -> str:
        """Return the digest that runs now; empty if it is unknown."""
        with suppress(SvcagentError):
            return self._restarter.running()
        return ""

    def insist(self, action: Callable[[], object]) -> None:
        """Retry while the other side cannot be reached, and a few times after an exception of an unexpected type.

        `Exception` is caught because one odd answer must not keep an instance out of service; it is raised in the end.
        """
        deadline: Deadline | None = None
        surprises = 0
        while True:
            try:
                action()
            except Unreachable:
                deadline = deadline or Deadline.after(self._edges.clock, RESTORE_SECONDS)
                if deadline.is_over:
                    raise
            except SvcagentError:
                raise
            except Exception:
                surprises += 1
                if surprises == FOREIGN_ATTEMPTS:
                    raise
            else:
                return
            self._edges.clock.sleep(RETRY_SECONDS)

    # ------------------------------------------------------------ out of service

    def own_maintenance(self, held: Maintenance) -> bool:
        """True if a reload of this host enabled it, under this node's name or an earlier one."""
        return is_of_reload(held, self._edges.agent.node, self._reload_id)

    def enable_maintenance(self, why: str) -> None:
        """Enable own maintenance and return when the catalog shows it.

        :raises Conflict: an operator's maintenance is on.
        :raises NotFound: the service is not registered here.
        """
        edges = self._edges
        wanted = by_reload(self._reload_id, edges.agent.node, why, edges.clock.now())
        self.is_out = True
        try:
            take_out(edges.consul, self._target, wanted)
            await_shown(edges.consul, edges.clock, self._target, wanted)
        except (Conflict, NotFound):
            self.is_out = False
            raise

    def dns_memory(self) -> int:
        """Return for how many seconds clients may remember DNS answers that name this instance."""
        return max((ask().ttl for ask in self.ask_dns.values()), default=0)

    def await_drained(self, own: Instance, remembered: int, limit: Deadline, still: Callable[[], None]) -> int:
        """Wait until no client is sent to the instance and its connections have ended.

        ``own``: the instance as it was before. ``still`` is called in every wait and may raise. Returns the number of
        connections that are open at the limit.
        """
        edges = self._edges
        await_absence_from_health(edges.consul, edges.clock, self._target, still)
        remembered = min(remembered, int(self._reload.drain.max))  # the guard refuses more, unless it was overridden
        await_absence_from_dns(self.ask_dns, (own.address, own.port), edges.clock, remembered, still)

        return await_quiet(lambda: self.count_connections(own), self._reload.drain, edges.clock, limit, still)

    def count_connections(self, own: Instance) -> int:
        """Return how many clients are connected to the instance.

        :raises ConnectionsUnknown: the kernel does not say.
        """
        return self._restarter.connections(own.port, ip_of(own.address)) if own.port else 0

    def drain_again(self) -> None:
        """Take an instance that fails in service out again, so that clients leave it while the old one is started.

        The guard is not asked: the instance fails its own checks, so Consul is about to take it out as well. Clients
        are waited for as before, as long as the container runs.
        """
        self.remember_log_tail()
        self.insist(self._drain_again)

    def _drain_again(self) -> None:
        edges = self._edges
        local = edges.consul.services().get(self._service.id)
        held = _held(local)
        if local is None or (held is not None and not self.own_maintenance(held)):
            return  # no client is sent to it; another owner's maintenance stays
        if held is None:
            self.enable_maintenance("its new version fails in service")
        self.is_out = True
        if not self._restarter.runs():
            return
        _index, instances = edges.consul.instances(self._service.name)
        own = own_instance(instances, edges.agent.node, self._service.id)
        if own is not None:
            limit = Deadline.after(edges.clock, self._reload.drain.max)
            self.await_drained(own, 0, limit, nothing_ends_it)

    # ------------------------------------------------------------ back to the old container

    def roll_back(self, restart_policy: str | None, *, was_replacing: bool) -> None:
        """Run the old container again. ``restart_policy``: its original one, where it is known.

        ``was_replacing``: its replacement had begun, so that Docker may have been asked to stop it. While no client is
        sent to the instance, that stop is finished first: Docker goes on stopping a container whose client is gone, and
        until then it still answers.
        """
        self.remember_log_tail()
        is_away = self.is_out or self._is_held()
        self.insist(lambda: self._restarter.put_back(restart_policy, finish_stop=is_away and was_replacing))
        self.start()
        if is_away:
            self.insist(self.readiness.expect_fresh_results)

    def discard(self) -> None:
        """Remove the new container, which was prepared and is not used."""
        self.insist(self._restarter.discard)

    def _is_held(self) -> bool:
        """True if the service is known to be in maintenance, an operator's with ``--in-maintenance``."""
        with suppress(SvcagentError):
            return _held(self._edges.consul.services().get(self._service.id)) is not None
        return False

    def start(self) -> None:
        """Start the container that has the service's name, if it is stopped."""
        self.insist(self._restarter.start)

    def judge_again(self) -> None:
        """Start the container if it is stopped, and have Consul run its own checks of it again; for a recovery."""
        self.start()
        if self.is_out:
            self.insist(self.readiness.expect_fresh_results)

    def await_ready(self, *, is_returning: bool) -> None:
        """Wait until the container is ready.

        ``is_returning``: it is the old one, which has to be no worse than before the drain. One that exits is started
        again until the wait is over: what it depends on may be away for a while.

        :raises NotReady: it did not become ready.
        """
        readiness = self.readiness
        if not is_returning:
            self.insist(readiness.wait)
            return
        deadline = Deadline.after(self._edges.clock, max(self._reload.ready.timeout, RESTORE_SECONDS))
        while True:
            try:
                self.insist(lambda: readiness.wait(is_returning=True))
            except NotReady as error:
                self.signatures |= readiness.signatures | {error.signature}
                # One that its restart policy has started again meanwhile has stopped all the same.
                has_stopped = error.signature.startswith("container exit") or not self._restarter.runs()
                if deadline.is_over or not has_stopped:
                    raise
                self._edges.clock.sleep(RETRY_SECONDS)
                self.start()
            else:
                self.signatures |= readiness.signatures
                return

    # ------------------------------------------------------------ return and settle

    def return_(self, *, is_returning: bool) -> None:
        """See the instance ready, disable own maintenance, and see clients sent to it.

        Every part may be repeated while Consul does not answer.

        :raises NotReady: it was not ready in that moment, or Consul does not show it as served.
        """
        try:
            self.insist(lambda: self._return(is_returning=is_returning))
        except NotReady as error:
            if is_returning:
                self.signatures |= {error.signature}
            raise

    def _return(self, *, is_returning: bool) -> None:
        if self._lift(is_returning=is_returning):
            self._await_served()

    def _lift(self, *, is_returning: bool) -> bool:
        """Disable own maintenance. False when it is no longer a reload's of this host: its owner ends it."""
        consul, service = self._edges.consul, self._service
        local = consul.services().get(service.id)
        if local is None:
            self._require_ready(is_returning=is_returning, is_in_service=True)  # it has no maintenance any more
            local = self._registered_again()
        if not self.is_out:  # by an earlier attempt, after which Consul did not answer
            return local is not None
        held = _held(local)
        if local is None or held is None:  # disabled by an attempt whose answer was lost, or by hand
            self.is_out = False
            return local is not None
        if not self.own_maintenance(held):
            self.is_out = False
            self._note("the maintenance is no longer this reload's; its owner ends it")
            return False
        self._identity = self._restarter.identity()
        seen = self._require_ready(is_returning=is_returning)
        if is_own(local) and local.meta == registration(service)["Meta"]:
            # A check that svcagent fails and Consul passes keeps Consul's status.
            renew_checks(consul, service, {name: status for name, status in seen.items() if status != "critical"})
        lift_own(consul, self._target, held)
        self.is_out = False
        return True

    def _require_ready(
        self, *, is_returning: bool, is_in_service: bool = False, seconds: float = MOMENT_SECONDS
    ) -> Mapping[str, str]:
        """See the instance ready right now: what was seen before an agent or a server hung may be out of date.

        ``seconds``: how long that may take. Returns the statuses, by ID, that svcagent's own checks have.
        """
        readiness = self.readiness
        deadline = Deadline.after(self._edges.clock, min(seconds, self._reload.ready.timeout))
        while True:
            missing = readiness.missing_now(is_returning=is_returning, is_in_service=is_in_service)
            if missing is None:
                return readiness.last_statuses
            if deadline.is_over:
                raise NotReady(
                    f"{self._service.id} was ready, but no longer is: {missing}", signature=readiness.last_signature
                )
            self._edges.clock.sleep(self._reload.ready.interval)

    def _registered_again(self) -> LocalService | None:
        """Register a service that the agent forgot when it restarted; None if the ID is taken by another service."""
        consul = self._edges.consul
        plan = make_plan([self._service], World(*consul.services_and_checks()), frozenset({self._service.id}))
        if creation := [change for change in plan if change.action is Action.CREATE]:
            self._note("the Consul agent had forgotten the service; it is registered again")
            apply_plan(consul, creation, lambda _change: None, lambda _check: "passing")
        return consul.services().get(self._service.id)

    def _await_served(self) -> None:
        deadline = Deadline.after(self._edges.clock, RESTORE_SECONDS)
        index: int | None = None
        while True:
            index, instances = self._edges.consul.instances(self._service.name, index, min(5.0, deadline.remaining))
            own = own_instance(instances, self._edges.agent.node, self._service.id)
            if own is not None:
                held = own.maintenance
                # The catalog may show it for a moment after it was disabled. Another owner's maintenance stays.
                if held is None and not self._failing(own):
                    return
                if held is not None and not self.own_maintenance(parse(held.notes)):
                    return
            if deadline.is_over:
                said = f"{self._service.id} answers its checks, but Consul does not show it as served after "
                said += f"{RESTORE_SECONDS:.0f} s"
                if own is None:
                    raise SvcagentError(f"{said}: the catalog does not show it at all")
                failing = self._failing(own)
                of_service = [check.id for check in failing if check.service_id]
                if of_service:
                    raise NotReady(f"{said} ({', '.join(of_service)})", signature=f"{of_service[0]} consul critical")
                if not failing:
                    raise SvcagentError(f"{said}: the catalog still shows its maintenance")
                self._note(f"{said}: this host's own checks are critical ({', '.join(c.id for c in failing)})")
                return

    def _failing(self, own: Instance) -> list[CheckState]:
        """Return the checks that are critical now and were not so before the drain; the host's own as well."""
        return [
            check
            for check in own.checks
            if check.status == "critical"
            and not check.is_maintenance
            and self.readiness.before.get(check.id) != "critical"
        ]

    def settle(self, seconds: float, *, until_proven: bool, still: Callable[[], None]) -> bool:
        """Watch the instance that clients use until it was healthy for ``seconds``.

        Healthy means: the same container, never restarted by itself since before the return, own probes and Consul's
        checks as good as before. Returns False if it was put in maintenance meanwhile. After a restart by an operator
        it is waited for and watched again, once.
        ``until_proven``: also wait until Consul has run each check once since the restart, for at most
        ``ready.timeout``; a check that it runs less often is named in a note. ``still`` is called in each round.

        :raises NotReady: it is not healthy.
        :raises Conflict: an operator replaced its container, or restarted it twice.
        :raises Unreachable: Consul or Docker did not answer for longer than `RESTORE_SECONDS`.
        """
        try:
            return self._settle(seconds, until_proven=until_proven, still=still)
        except _StoppedByOperator:
            self._await_operators_restart(still)
            self._note(f"somebody restarted the container of {self._service.id}; it is watched again")
            return self._settle(seconds, until_proven=until_proven, still=still)

    def _await_operators_restart(self, still: Callable[[], None]) -> None:
        """Wait until the container runs and is ready again, also for Consul, whose checks failed in between.

        Between the two halves of a restart the container is stopped.

        :raises NotReady: it stays stopped, or is not ready within ``ready.timeout``.
        """
        deadline = Deadline.after(self._edges.clock, self._reload.ready.timeout)
        self._identity = None
        while True:
            still()
            try:
                missing = self._missing_after_restart()
            except Unreachable:
                if deadline.is_over:
                    raise
            else:
                if missing is None:
                    return
                if deadline.is_over:
                    raise NotReady(
                        f"somebody stopped or restarted {self._service.id} after clients had returned to it, and it is "
                        f"not ready again: {missing}",
                        signature=self.readiness.last_signature or "exited",
                    )
            self._edges.clock.sleep(SETTLE_INTERVAL)

    def _missing_after_restart(self) -> str | None:
        if not self._restarter.runs():
            return "its container is stopped"
        self._require_same_container()  # from the first look at which it runs again
        return self.readiness.missing_now(is_in_service=True) or self.readiness.in_consul().failing

    def _settle(self, seconds: float, *, until_proven: bool, still: Callable[[], None]) -> bool:
        clock = self._edges.clock
        deadline = Deadline.after(clock, seconds)
        limit = Deadline.after(clock, max(seconds, self._reload.ready.timeout))
        silence: Deadline | None = None
        bad_rounds = 0
        while True:
            still()
            look = _Look()
            try:
                look = self._look_in_service(until_proven=until_proven)
                silence = None
            except Unreachable:
                silence = silence or Deadline.after(clock, RESTORE_SECONDS)
                if silence.is_over:
                    raise
                clock.sleep(SETTLE_INTERVAL)
                continue
            except SvcagentError:
                raise
            except Exception:
                # One odd answer is not yet a bad version; the same one again and again is raised.
                if bad_rounds + 1 == FAILED_ROUNDS:
                    raise
                look = _Look("it cannot be judged")
            if look.is_out:
                self._note("it was put in maintenance meanwhile, so it is not settled")
                return False
            bad_rounds = bad_rounds + 1 if look.failing else 0
            if bad_rounds == FAILED_ROUNDS:
                raise NotReady(
                    f"{self._service.id} failed after clients had returned to it: {look.failing}",
                    signature=self.readiness.last_signature,
                )
            if not look.failing and deadline.is_over and (not look.unproven or limit.is_over):
                self._note_unproven(look.unproven)
                return True
            clock.sleep(SETTLE_INTERVAL)

    def _note_unproven(self, checks: tuple[str, ...]) -> None:
        if checks:
            self._note(f"Consul has not run these checks within reload.ready.timeout: {', '.join(checks)}")

    def _look_in_service(self, *, until_proven: bool) -> "_Look":
        """Judge the instance that clients use once.

        :raises NotReady: its container has exited or was restarted, which no further look changes.
        :raises Conflict: another container has its name: somebody else replaced it.
        """
        self._require_same_container()
        if failing := self.readiness.missing_now(is_in_service=True):
            return _Look(failing)
        if self._service.id not in self._edges.consul.services():
            # Just seen healthy. An agent that restarted has forgotten it, which is no fault of the version.
            self._registered_again()
        shown = self.readiness.in_consul()
        unproven = self.readiness.unproven() if until_proven else ()
        return _Look(shown.failing, tuple(dict.fromkeys((*unproven, *shown.awaited))), shown.is_out)

    def _require_same_container(self) -> None:
        now = self._restarter.identity()
        before = self._identity = self._identity or now
        is_running = self._restarter.runs()
        if now[0].partition(" ")[0] != before[0].partition(" ")[0] and is_running:
            raise Conflict(
                f"somebody else replaced the container of {self._service.id} after clients had returned to it; it is "
                "left as it is"
            )
        if now != before and is_running and now[1] <= before[1]:
            # Docker counts the restarts that it makes itself, and counts from zero after an operator's.
            raise _StoppedByOperator(f"somebody restarted the container of {self._service.id} again; it is not settled")
        if now != before or not is_running:
            if self._restarter.stop_was_requested(before):
                raise _StoppedByOperator(f"somebody stopped the container of {self._service.id}; it is not settled")
            raise NotReady(
                f"the container of {self._service.id} stopped or was restarted after clients had returned to it",
                signature="exited",
            )

    def clean(self, digest: str, *, is_proven: bool) -> None:
        """Remove what `roll_back` would need, for the instance that runs ``digest``.

        ``is_proven``: it has settled. Otherwise it is seen ready once more first.

        :raises NotReady: it is not.
        """
        if not is_proven:
            self.insist(lambda: self._require_ready(is_returning=False, is_in_service=True))
        self._restarter.finish(digest)


class _StoppedByOperator(Conflict):
    """An operator stopped or restarted the container, which does not count against its version."""


@dataclass(frozen=True)
class _Look:
    """One look at an instance in service: what fails, which checks are not proven yet, and whether it is out."""

    failing: str | None = None
    unproven: tuple[str, ...] = ()
    is_out: bool = False


def own_instance(instances: tuple[Instance, ...], node: str, service_id: str) -> Instance | None:
    """Return this host's among a service's instances, if the catalog shows it."""
    return next((one for one in instances if one.node == node and one.service_id == service_id), None)


def ip_of(address: str) -> str | None:
    """Return the address if it is numeric: Consul accepts host names, connections show numbers."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return None


def _held(local: LocalService | None) -> Maintenance | None:
    return parse(local.maintenance.notes) if local is not None and local.maintenance is not None else None
