"""The steps that return an instance to service, for the reload itself and for recovery after its crash.

None of them needs the lock. Each retries for a while if a server does not answer, and the next process may repeat it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from agent.clock import Deadline
from agent.consul import CheckState, Instance
from agent.errors import NotReady, SvcagentError, Unreachable
from agent.fleet import Quarantine, quarantine
from agent.registration import is_own, registration, renew_checks
from agent.reload.dependencies import RESTORE_SECONDS, RETRY_SECONDS, ReloadContext
from agent.reload.drain import Drainer
from agent.reload.instance import maintenance_of, own_instance, register_again
from agent.reload.ready import Readiness
from agent.reload.settle import SettleWatch
from agent.reload.steps import Step

MOMENT_SECONDS = 10.0
"""How long an instance that was ready may take to pass its checks once more, right before clients return to it."""


class Restoration:
    def __init__(self, context: ReloadContext, *, is_out: bool = False) -> None:
        """``is_out``: a reload's maintenance may be enabled."""
        self._service = context.service
        self._section = context.section
        self._restarter = context.restarter
        self._deps = context.deps
        self._entry = context.entry
        self._progress = context.progress
        self._note = context.progress.note
        self._retry = context.retry
        self.drainer = Drainer(context, is_out=is_out)
        self.readiness = Readiness(context.instance, lambda: context.entry.record.before)
        """The judge of the checks. One object from restart to return, because it knows what Consul has run again."""
        self.watch = SettleWatch(context, self.readiness)
        self.log_tail = ""
        """The last output of the new container, if it failed."""
        self.quarantined = ""
        """The digest that was quarantined."""
        self.signatures: frozenset[str] = frozenset()
        """The failures of the old container after it was started again."""

    @property
    def way_back(self) -> Mapping[Step, Callable[[], None]]:
        """The actions of the steps that only the way back has."""
        return {
            Step.DRAIN_AGAIN: self._drain_again,
            Step.ROLL_BACK: self._roll_back,
            Step.DISCARD: lambda: self._retry(self._restarter.discard),
            Step.QUARANTINE: self._quarantine,
        }

    def running(self) -> str:
        """Return the digest that runs now; empty if it is unknown."""
        with suppress(SvcagentError):
            return self._restarter.running()
        return ""

    # ------------------------------------------------------------ the way back

    def _drain_again(self) -> None:
        self._remember_log_tail()
        self._retry(self.drainer.drain_again)

    def _roll_back(self) -> None:
        """Run the old container again.

        If its replacement had begun, Docker may have been asked to stop it. While no client is sent to the instance,
        that stop is completed first: Docker continues it even if its client is gone, and the container answers until
        then.
        """
        self._remember_log_tail()
        record = self._entry.record
        is_away = self.drainer.is_out or self._is_held()
        self._retry(
            lambda: self._restarter.roll_back(
                record.restart_policy or None, finish_stop=is_away and record.is_replacing
            )
        )
        self._retry(self._restarter.start)
        if is_away:
            self.expect_fresh_results()

    def _quarantine(self) -> None:
        self._remember_log_tail()
        deps, record = self._deps, self._entry.record
        found = Quarantine(
            digest=record.digest,
            node=deps.agent.node,
            since=deps.clock.now(),
            why=record.why,
            image=record.image,
            log=self.log_tail if deps.shares_log_tails else "",
        )
        self._retry(lambda: quarantine.put(deps.consul, record.service, found))
        self.quarantined = record.digest

    def _remember_log_tail(self) -> None:
        """Read the last output of the new container before it is removed."""
        if not self.log_tail:
            with suppress(SvcagentError):  # useful, but nothing depends on it
                self.log_tail = self._restarter.log_tail()

    def _is_held(self) -> bool:
        """True if the service is known to be in maintenance, an operator's with ``--in-maintenance``."""
        with suppress(SvcagentError):
            return maintenance_of(self._deps.consul.services().get(self._service.id)) is not None
        return False

    # ------------------------------------------------------------ ready

    def start_again(self) -> None:
        """For a recovery: start the container if it is stopped, and have Consul run its own checks again."""
        self._retry(self._restarter.start)
        if self.drainer.is_out:
            self.expect_fresh_results()

    def expect_fresh_results(self) -> None:
        """Have Consul run its own checks again. If that fails, only a result that must be newer counts."""
        with self._tolerated("renewing the checks that only Consul runs"):
            self._retry(self.readiness.expect_fresh_results)

    @contextmanager
    def _tolerated(self, what: str) -> Iterator[None]:
        """Report a failure of what only makes the return faster.

        `Exception` is caught because nothing but a missing answer, which is retried, may keep the instance in
        maintenance.
        """
        try:
            yield
        except Unreachable:
            raise
        except Exception as error:  # noqa: BLE001  # see above
            known = error if isinstance(error, SvcagentError) else self._progress.unexpected(error, what)
            self._note(f"{what} failed, so the return to service may take longer: {known}")

    def await_ready(self, *, is_returning: bool) -> None:
        """Wait until the container is ready. Raise `NotReady`.

        ``is_returning``: it is the old one, which must be no worse than before the drain. If it exits, it is started
        again until the wait ends, because something that it depends on may be absent for a while.
        """
        readiness = self.readiness
        if not is_returning:
            self._retry(readiness.wait)
            return
        deadline = Deadline.after(self._deps.clock, max(self._section.ready.timeout, RESTORE_SECONDS))
        while True:
            try:
                self._retry(lambda: readiness.wait(is_returning=True))
            except NotReady as error:
                self.signatures |= readiness.signatures | {error.signature}
                # A container that its restart policy has started again meanwhile has stopped, too.
                has_stopped = error.signature.startswith("container exit") or not self._restarter.runs()
                if deadline.is_over or not has_stopped:
                    raise
                self._deps.clock.sleep(RETRY_SECONDS)
                self._retry(self._restarter.start)
            else:
                self.signatures |= readiness.signatures
                return

    # ------------------------------------------------------------ return and settle

    def return_(self, *, is_returning: bool) -> None:
        """See the instance ready, disable own maintenance, and wait until clients are sent to it.

        Every part may be repeated while Consul does not answer. Raise `NotReady` if the instance was not ready at that
        moment, or if Consul does not show it as served.
        """

        def return_() -> None:
            if self._disable_maintenance(is_returning=is_returning):
                self._await_served()

        try:
            self._retry(return_)
        except NotReady as error:
            if is_returning:
                self.signatures |= {error.signature}
            raise

    def _disable_maintenance(self, *, is_returning: bool) -> bool:
        """Disable own maintenance. Return False if another owner's has replaced it: that owner ends it."""
        consul, service = self._deps.consul, self._service
        local = consul.services().get(service.id)
        if local is None:
            self._require_ready(is_returning=is_returning, is_in_service=True)  # it has no maintenance any more
            local = register_again(consul, service, self._note)
        if not self.drainer.is_out:  # disabled by an earlier attempt, after which Consul did not answer
            return local is not None
        held = self.drainer.find_own(local)
        if local is None or local.maintenance is None:  # disabled by an attempt whose answer was lost, or by hand
            return local is not None
        if held is None:
            self._note("the maintenance now has another owner, who must disable it")
            return False
        self.watch.remember_run()
        seen = self._require_ready(is_returning=is_returning)
        if is_own(local) and local.meta == registration(service)["Meta"]:
            # A check that fails for svcagent and passes for Consul keeps Consul's status.
            self._renew_checks({name: status for name, status in seen.items() if status != "critical"})
        self.drainer.disable(held)
        return True

    def _renew_checks(self, statuses: Mapping[str, str]) -> None:
        is_renewed = False
        with self._tolerated("renewing the checks in Consul"):
            renew_checks(self._deps.consul, self._service, statuses)
            is_renewed = True
        # Each is deregistered before it is registered again.
        registered = statuses if is_renewed else self._deps.consul.checks()
        if missing := sorted(statuses.keys() - registered.keys()):
            raise SvcagentError(
                f"Consul no longer has these checks of {self._service.id}: {', '.join(missing)}. To register them, "
                "run: svcagent register"
            )

    def _require_ready(
        self, *, is_returning: bool, is_in_service: bool = False, seconds: float = MOMENT_SECONDS
    ) -> Mapping[str, str]:
        """See the instance ready at this moment: what was seen before an agent or a server hung may be out of date.

        ``seconds``: how long that may take. Return the statuses, by ID, of svcagent's own checks.
        """
        readiness = self.readiness
        deadline = Deadline.after(self._deps.clock, min(seconds, self._section.ready.timeout))
        while True:
            fault = readiness.missing_now(is_returning=is_returning, is_in_service=is_in_service)
            if fault is None:
                return readiness.last_statuses
            if deadline.is_over:
                raise NotReady(f"{self._service.id} was ready, but no longer is: {fault}", signature=fault.signature)
            self._deps.clock.sleep(self._section.ready.interval)

    def _await_served(self) -> None:
        deadline = Deadline.after(self._deps.clock, RESTORE_SECONDS)
        index: int | None = None
        while True:
            index, instances = self._deps.consul.instances(self._service.name, index, min(5.0, deadline.remaining))
            own = own_instance(instances, self._deps.agent.node, self._service.id)
            if own is not None:
                held = maintenance_of(own)
                # The catalog may show it for a moment after it was disabled. Another owner's maintenance stays.
                if held is None and not self._failing(own):
                    return
                if held is not None and not self.drainer.is_own(held):
                    return
            if deadline.is_over:
                said = f"{self._service.id} passes its checks, but is not in service in Consul after "
                said += f"{RESTORE_SECONDS:.0f} s"
                if own is None:
                    raise SvcagentError(f"{said}: it is not in the catalog", kind="not-returned")
                failing = self._failing(own)
                of_service = [check.id for check in failing if check.service_id]
                if of_service:
                    raise NotReady(f"{said} ({', '.join(of_service)})", signature=f"{of_service[0]} consul critical")
                if not failing:
                    raise SvcagentError(f"{said}: the catalog still shows its maintenance", kind="not-returned")
                self._note(f"{said}: this host's own checks are critical ({', '.join(c.id for c in failing)})")
                return

    def _failing(self, own: Instance) -> list[CheckState]:
        """Return the checks, including the host's, that are critical now and were not before the drain."""
        return [
            check
            for check in own.checks
            if check.status == "critical"
            and not check.is_maintenance
            and self.readiness.before.get(check.id) != "critical"
        ]

    # ------------------------------------------------------------ clean

    def clean(self, *, is_proven: bool) -> None:
        """Remove what a roll-back would need, for the instance that runs the new version.

        ``is_proven``: it has settled. Otherwise it must be ready once more; raise `NotReady` if it is not.
        """
        if not is_proven:
            self._retry(lambda: self._require_ready(is_returning=False, is_in_service=True))
        self._restarter.clean_up(self._entry.record.digest)
