"""Carries a reload's steps out through the edges it was given. Which step comes next is decided in `steps`."""

import ipaddress
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
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
from agent.reload.drain import await_quiet
from agent.reload.guard import Obstacle, find_obstacles
from agent.reload.probe import Prober
from agent.reload.record import Event, Phase, Result
from agent.reload.steps import INTERRUPTIBLE, State, Step, failed, next_step, succeeded

RETURN_SECONDS = 60.0
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
        self._log_tail = ""
        self.result = Result(service.name, edges.agent.node, reload.image)

    # ------------------------------------------------------------ the loop

    def run(self) -> Result:
        """Take step after step until none is left; what failed is told by the result, never raised."""
        troubles: list[SvcagentError] = []
        with self._lock:
            while (step := next_step(self._state)) is not Step.END:
                try:
                    self._state = self._take(step)
                except SvcagentError as error:
                    troubles.append(error)
                    self._tell(Phase.FAILED, str(error))
                    self._state = failed(
                        self._state, step, is_out=self._is_out, is_interrupted=isinstance(error, Interrupted)
                    )
            try:
                self._lock.release()  # of an attempt that was given up while waiting
            except SvcagentError as error:
                troubles.append(error)
        return self._conclude(troubles)

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
        edges, service = self._edges, self._service
        name = f"{service.name}.service.{edges.agent.datacenter}.{edges.agent.domain}"
        asks = {f"{host}:{port}": partial(ask_dns, (host, port), name) for host, port in edges.drain_dns}
        remembered = max((ask().ttl for ask in asks.values()), default=0)
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
            await_absence_from_dns(asks, (own.address, own.port), edges.clock, remembered)
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
        self._log_tail = self._edges.engine.log_tail(self._reload.container)
        self._edges.engine.roll_back(self._reload.container, self._was.restart_policy if self._was else None)

    def _await_ready(self) -> None:
        if self._state.has_failed:
            self._become_ready()
        else:
            with self._edges.interrupts.allowed():
                self._become_ready()

    def _become_ready(self) -> None:
        ready, clock = self._reload.ready, self._edges.clock
        deadline = Deadline.after(clock, ready.timeout)
        at_first = self._edges.engine.container(self._reload.container)
        in_a_row = 0
        while in_a_row < ready.successes:
            said = self._why_not_ready(at_first, deadline.remaining)
            if said is None:
                if not in_a_row and "first_success" not in self.result.engine:
                    since = clock.monotonic() - self._step_began
                    self.result.engine["first_success"] = round(since, 4)
                in_a_row += 1
            else:
                in_a_row = 0
                if deadline.is_over:
                    raise NotReady(
                        f"{self._service.id} did not become ready within {ready.timeout:g} s: {said}. "
                        "If it needs longer to load, raise reload.ready.timeout"
                    )
            if in_a_row < ready.successes:
                clock.sleep(ready.interval)
        for url in ready.warmup:
            answer = self._edges.prober.warm_up(url)
            if not answer.is_passing:
                raise NotReady(f"warm-up of {self._service.id} failed: {answer.said}")

    def _why_not_ready(self, at_first: Container, limit: float) -> str | None:
        """None when everything that can be asked says ready, else the first thing that does not."""
        now = self._edges.engine.container(self._reload.container)
        if now.id != at_first.id or not now.is_running or now.restart_count != at_first.restart_count:
            raise NotReady(
                f"the container {self._reload.container} stopped while it was awaited "
                f"(exit status {now.exit_code}, restarts {now.restart_count})"
            )
        if now.health not in (None, "healthy"):
            return f"the container's own health check says {now.health}"
        others = []
        for check in self._service.checks:
            if not self._edges.prober.can_probe(check):
                others.append(check.id)
            elif not (answer := self._edges.prober.probe(check, limit)).is_passing:
                return answer.said
        if others:
            states = self._edges.consul.checks()
            return next(
                (
                    f"Consul says check {one} is {states[one].status}"
                    for one in others
                    if one in states and states[one].status != "passing"
                ),
                None,
            )
        return None

    def _return(self) -> None:
        """Lift own maintenance and see it passing; all of it may be done again while Consul does not answer."""
        deadline = Deadline.after(self._edges.clock, RETURN_SECONDS)
        while True:
            try:
                if self._lift():
                    self._await_passing(deadline)
            except Unreachable:
                if deadline.is_over:
                    raise
                self._edges.clock.sleep(RETRY_SECONDS)
            else:
                return

    def _lift(self) -> bool:
        """False when the maintenance is no longer this reload's: whoever has it now ends it."""
        consul, service = self._edges.consul, self._service
        if not self._is_out:
            return True
        local = consul.services().get(service.id)
        held = local.maintenance if local is not None else None
        if local is None or held is None or held.notes != render(self._own_maintenance):
            self._is_out = False
            self._tell(Phase.NOTE, "the maintenance is no longer this reload's; whatever is there now stays")
            return False
        if is_own(local) and local.meta == registration(service)["Meta"]:
            renew_checks_as_passing(consul, service, filter(self._edges.prober.can_probe, service.checks))
        lift_own(consul, self._target, self._own_maintenance)
        self._is_out = False
        return True

    def _await_passing(self, deadline: Deadline) -> None:
        index: int | None = None
        while True:
            index, instances = self._edges.consul.instances(self._service.name, index, min(5.0, deadline.remaining))
            own = self._own(instances)
            if own is not None and (own.is_passing or own.maintenance is not None):
                return  # or somebody has taken it out just now, which is theirs to end
            if deadline.is_over:
                failing = [check.id for check in own.checks if check.status != "passing"] if own else ["not there"]
                raise NotReady(
                    f"{self._service.id} answers its checks, but Consul does not show it as passing after "
                    f"{RETURN_SECONDS:.0f} s ({', '.join(failing)})"
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

    def _conclude(self, troubles: list[SvcagentError]) -> Result:
        result, state = self.result, self._state
        if troubles:
            first = troubles[0]
            result.error = "; then: ".join(str(trouble) for trouble in troubles)
            result.exit_code = first.exit_code
            if self._log_tail:
                result.error += f"\nThe last lines of the container that failed:\n{self._log_tail}"
        elif (signum := self._edges.interrupts.pending) is not None:
            result.error = "interrupted when the new container was in service already; it stays"
            result.exit_code = Interrupted(signum).exit_code
        result.outcome = _outcome(state, troubles)
        if state.is_stranded and self._is_out:
            result.exit_code = 1
            result.error = (
                f"{self._service.id} IS STILL OUT OF SERVICE on {self._edges.agent.node}: {result.error}. When it is "
                f"repaired, run: svcagent maint disable {self._service.id} --force"
            )
        return result


def _ip(address: str) -> str | None:
    """Consul takes a host name for an address too; connections show numbers."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return None


def _outcome(state: State, troubles: list[SvcagentError]) -> str:
    if state.is_stranded:
        return "stranded"
    if not troubles:
        return "reloaded" if state.is_cleaned else "up to date"
    if isinstance(troubles[0], Interrupted):
        return "interrupted"
    if isinstance(troubles[0], GuardRefused):
        return "refused"
    return "failed"
