"""Carries a reload's steps out through the edges it was given. Which step comes next is decided in `steps`."""

import contextlib
import ipaddress
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from agent.clock import Clock, Deadline, Interrupts
from agent.consul import AgentSelf, Consul, Instance, Lock, ask_dns
from agent.definitions import Reload, Service
from agent.engine import Container, Engine, PullProgress
from agent.errors import (
    Conflict,
    GuardRefused,
    Interrupted,
    LockLost,
    NotFound,
    NotReady,
    SvcagentError,
    Unreachable,
)
from agent.fleet import HostState, write_host_state
from agent.maintenance import Target, await_absence_from_dns, by_reload, lift_own, put_out, render
from agent.registration import is_own, registration, renew_checks_as_passing
from agent.reload.atomic import write_atomically
from agent.reload.conclude import Trouble, conclude
from agent.reload.drain import await_quiet
from agent.reload.guard import Obstacle, find_obstacles
from agent.reload.probe import Prober
from agent.reload.ready import Readiness
from agent.reload.record import Event, Phase, Result
from agent.reload.steps import INTERRUPTIBLE, State, Step, failed, next_step, succeeded

RESTORE_SECONDS = 60.0
RETRY_SECONDS = 0.5


@dataclass(frozen=True)
class Edges:
    """The outside world of one reload. ``drain_dns`` are the DNS servers, ``(address, port)``, that clients ask."""

    consul: Consul
    engine: Engine
    agent: AgentSelf
    prober: Prober
    clock: Clock
    interrupts: Interrupts
    drain_dns: tuple[tuple[str, int], ...]
    tell: Callable[[Event], None]
    tell_pull: Callable[[PullProgress], None]


class Executor:
    """One reload of one service on this host."""

    def __init__(self, service: Service, reload: Reload, edges: Edges, *, lock_timeout: float, is_forced: bool) -> None:
        """``lock_timeout``: seconds to wait for the fleet's lock; ``is_forced``: reload the image that runs, too."""
        self._service = service
        self._reload = reload
        self._edges = edges
        self._is_forced = is_forced
        self._lock_timeout = lock_timeout
        self._id = uuid.uuid4().hex[:8]
        self._state = State(may_roll_back=reload.rollback)
        self._step = Step.CHECK
        self._step_began = 0.0
        self._wanted = ""
        self._was: Container | None = None
        self._target = Target(edges.agent.node, service.id, service.name)
        self._own_maintenance = by_reload(self._id, edges.agent.node, "not begun", edges.clock.now())
        self._is_out = False
        name = f"{service.name}.service.{edges.agent.datacenter}.{edges.agent.domain}"
        self._ask_dns = {f"{host}:{port}": partial(ask_dns, (host, port), name) for host, port in edges.drain_dns}
        self._lock = Lock(
            edges.consul,
            reload.lock_prefix(service.name),
            command=f"svcagent reload {service.name}",
            details={
                "node": edges.agent.node,
                "pid": os.getpid(),
                "command": "svcagent reload",
                "service": service.name,
                "since": edges.clock.now().isoformat(timespec="seconds"),
            },
            clock=edges.clock,
            waiting=edges.interrupts.allowed,
        )
        self._carry_out: dict[Step, Callable[[], bool | None]] = {
            Step.CHECK: self._check,
            Step.PULL: self._pull,
            Step.GUARD: self._guard,
            Step.ACQUIRE: self._acquire,
            Step.PLAN_AGAIN: self._plan_again,
            Step.DRAIN: self._drain,
            Step.RESTART: self._restart,
            Step.ROLL_BACK: self._roll_back,
            Step.READY: self._await_ready,
            Step.RETURN: self._return,
            Step.CLEAN: self._clean,
            Step.RELEASE: self._release,
        }
        self._last_words = ""
        self.result = Result(service.name, edges.agent.node, reload.image)

    # ------------------------------------------------------------ the loop

    def run(self) -> Result:
        """Take step after step until none is left; what failed is told by the result, never raised."""
        troubles: list[Trouble] = []
        with self._lock:
            while (step := next_step(self._state)) is not Step.END:
                try:
                    self._state = self._take(step)
                except (SvcagentError, Interrupted) as error:
                    troubles.append(error)
                    self._tell(Phase.FAILED, str(error))
                    self._state = failed(
                        self._state, step, is_out=self._is_out, is_interrupted=isinstance(error, Interrupted)
                    )
            try:
                self._lock.release()  # of an attempt that was given up while waiting
            except SvcagentError as error:
                troubles.append(error)
        # What is left out is known to `_lift` better than to the state: it may have failed after lifting.
        state = replace(self._state, is_out=self._is_out)
        return conclude(self.result, state, troubles, self._last_words, self._edges.interrupts.pending)

    def check(self) -> tuple[bool, tuple[Obstacle, ...]]:
        """Is there a newer image, and what would keep this host from taking it? Changes nothing."""
        is_newer = self._check()
        obstacles, _own = self._find_obstacles(is_queueing=True)
        return is_newer, obstacles

    def _take(self, step: Step) -> State:
        self._step, self._step_began = step, self._edges.clock.monotonic()
        self._tell(Phase.BEGIN)
        if step in INTERRUPTIBLE and not self._state.has_failed:
            with self._edges.interrupts.allowed():
                pass
        try:
            finding = self._carry_out[step]()
        finally:
            seconds = self._edges.clock.monotonic() - self._step_began
            self.result.steps.append({"step": str(step), "seconds": round(seconds, 4)})
        self._tell(Phase.END)
        return succeeded(self._state, step, is_newer=finding is not False)

    def _tell(self, phase: Phase, text: str = "") -> None:
        seconds = self._edges.clock.monotonic() - self._step_began
        self._edges.tell(Event(self._step, phase, seconds, text))

    # ------------------------------------------------------------ before the lock

    def _check(self) -> bool:
        with self._edges.interrupts.allowed():
            engine = self._edges.engine
            self._was = engine.container(self._reload.container)
            self._wanted = engine.registry_digest(self._reload.image)
            is_newer = self._is_forced or not engine.runs_digest(self._was, self._reload.image, self._wanted)
        self.result.wanted = self._wanted
        if not is_newer:
            self.result.running = self._wanted
        else:
            engine.check_recreatable(self._reload.container)
        return is_newer

    def _pull(self) -> None:
        if self._edges.engine.has_image(self._reload.image, self._wanted):
            return
        with self._edges.interrupts.allowed():
            self._edges.engine.pull(self._reload.image, self._wanted, self._edges.tell_pull)

    def _guard(self) -> None:
        with self._edges.interrupts.allowed():
            self._refuse_unless_clear(is_queueing=True)
            for ask in self._ask_dns.values():
                ask()  # one that does not answer could not be seen to forget this instance either

    def _acquire(self) -> None:
        self._lock.acquire(Deadline.after(self._edges.clock, self._lock_timeout))
        self.result.locked_at = self._edges.clock.now().timestamp()

    # ------------------------------------------------------------ under the lock

    def _plan_again(self) -> bool:
        with self._edges.interrupts.allowed():
            self._was = self._edges.engine.container(self._reload.container)
            is_newer = self._is_forced or not self._edges.engine.runs_digest(
                self._was, self._reload.image, self._wanted
            )
            if is_newer:
                self._refuse_unless_clear()
        return is_newer

    def _drain(self) -> None:
        edges = self._edges
        remembered = max((ask().ttl for ask in self._ask_dns.values()), default=0)
        self._lock.ask()
        own = self._refuse_unless_clear()
        self._own_maintenance = by_reload(self._id, edges.agent.node, f"to run {self._wanted[:19]}", edges.clock.now())
        self._is_out = True
        try:
            put_out(edges.consul, edges.clock, self._target, self._own_maintenance)
        except (Conflict, NotFound):
            self._is_out = False
            raise
        limit = Deadline.after(edges.clock, self._reload.drain.max)
        with edges.interrupts.allowed():
            await_absence_from_dns(self._ask_dns, (own.address, own.port), edges.clock, remembered)
            left = await_quiet(lambda: self._count_connections(own), self._reload.drain, edges.clock, limit)
        if left:
            self._tell(Phase.NOTE, f"{left} connections still open after drain.max; the restart cuts them")

    def _count_connections(self, own: Instance) -> int:
        if self._lock.is_lost:
            raise LockLost(f"the lock {self._reload.lock_prefix(self._service.name)} was lost while draining")
        if self._was is None or not own.port:
            return 0
        return self._edges.engine.connections(self._was, own.port, _ip(own.address))

    def _restart(self) -> None:
        self._lock.ask()
        done = self._edges.engine.replace(
            self._reload.container, self._reload.image, self._wanted, self._reload.stop_timeout
        )
        self.result.engine = {
            "create": round(done.create_seconds, 4),
            "stop": round(done.stop_seconds, 4),
            "start": round(done.start_seconds, 4),
        }
        if done.was_killed:
            self._tell(Phase.NOTE, "the old container ignored its stop signal until the stop timeout, and was killed")

    # ------------------------------------------------------------ restoring

    def _roll_back(self) -> None:
        with contextlib.suppress(SvcagentError):  # its last words are worth having, not worth failing for
            self._last_words = self._edges.engine.log_tail(self._reload.container)
        policy = self._was.restart_policy if self._was else None
        self._insist(lambda: self._edges.engine.roll_back(self._reload.container, policy), RESTORE_SECONDS)

    def _await_ready(self) -> None:
        edges = self._edges
        readiness = Readiness(self._service, self._reload, edges.consul, edges.engine, edges.prober, edges.clock)
        if self._state.has_failed:  # on the way back nothing may cut the wait short
            self._insist(readiness.wait, RESTORE_SECONDS)
            return
        with edges.interrupts.allowed():
            self.result.engine["first_success"] = round(readiness.wait(), 4)

    def _return(self) -> None:
        """Lift own maintenance and see it passing; all of it may be done again while Consul does not answer."""
        self._insist(self._lift_and_see, RESTORE_SECONDS)

    def _insist(self, action: Callable[[], object], seconds: float) -> None:
        """What restores goes on while the other side cannot be reached, for so many seconds."""
        deadline = Deadline.after(self._edges.clock, seconds)
        while True:
            try:
                action()
            except Unreachable:
                if deadline.is_over:
                    raise
                self._edges.clock.sleep(RETRY_SECONDS)
            else:
                return

    def _lift_and_see(self) -> None:
        if self._lift():
            self._await_passing()

    def _lift(self) -> bool:
        """False when the maintenance is no longer this reload's: whoever has it now ends it."""
        consul, service = self._edges.consul, self._service
        if not self._is_out:
            return True
        local = consul.services().get(service.id)
        held = local.maintenance if local is not None else None
        if local is None or held is None:  # lifted by an attempt whose answer was lost, or by hand
            self._is_out = False
            return local is not None
        if held.notes != render(self._own_maintenance):
            self._is_out = False
            self._tell(Phase.NOTE, "the maintenance is no longer this reload's; whoever has it ends it")
            return False
        if is_own(local) and local.meta == registration(service)["Meta"]:
            renew_checks_as_passing(consul, service, filter(self._edges.prober.can_probe, service.checks))
        lift_own(consul, self._target, self._own_maintenance)
        self._is_out = False
        return True

    def _await_passing(self) -> None:
        deadline = Deadline.after(self._edges.clock, RESTORE_SECONDS)
        own_text = render(self._own_maintenance)
        index: int | None = None
        while True:
            index, instances = self._edges.consul.instances(self._service.name, index, min(5.0, deadline.remaining))
            own = self._own(instances)
            if own is not None:
                held = own.maintenance
                # Just after it was lifted the catalog may still show it; anybody else's is theirs to end.
                if own.is_passing or (held is not None and held.notes != own_text):
                    return
            if deadline.is_over:
                failing = [check.id for check in own.checks if check.status != "passing"] if own else ["not there"]
                raise NotReady(
                    f"{self._service.id} answers its checks, but Consul does not show it as passing after "
                    f"{RESTORE_SECONDS:.0f} s ({', '.join(failing)})"
                )

    def _clean(self) -> None:
        edges, reload = self._edges, self._reload
        self.result.running = self._wanted
        edges.engine.remove_old(reload.container)
        edges.engine.prune(reload.image, reload.keep_images)
        state = HostState(self._wanted, "running", edges.clock.now())
        write_host_state(edges.consul, self._service.name, edges.agent.node, state)
        if reload.tag_file:
            _repository, _, tag = reload.image.rpartition(":")
            write_atomically(reload.tag_file, f"{tag}\n")

    def _release(self) -> None:
        self._lock.release()
        self.result.released_at = self._edges.clock.now().timestamp()

    # ------------------------------------------------------------ helpers

    def _find_obstacles(self, *, is_queueing: bool) -> tuple[tuple[Obstacle, ...], Instance | None]:
        _index, instances = self._edges.consul.instances(self._service.name)
        obstacles = find_obstacles(
            instances, self._edges.agent.node, self._service.id, self._reload.min_healthy, is_queueing=is_queueing
        )
        return obstacles, self._own(instances)

    def _refuse_unless_clear(self, *, is_queueing: bool = False) -> Instance:
        obstacles, own = self._find_obstacles(is_queueing=is_queueing)
        if obstacles or own is None:
            raise GuardRefused(f"not reloading {self._service.id} now: " + "; ".join(map(str, obstacles)))
        return own

    def _own(self, instances: tuple[Instance, ...]) -> Instance | None:
        node, service_id = self._edges.agent.node, self._service.id
        return next((one for one in instances if one.node == node and one.service_id == service_id), None)


def _ip(address: str) -> str | None:
    """Consul takes a host name for an address too; connections show numbers."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return None
