"""The way forward of a reload: each step carried out through the edges it was given."""

import ipaddress
import os
import uuid
from dataclasses import replace
from functools import partial

from agent.clock import Deadline
from agent.consul import Instance, Lock, ask_dns
from agent.definitions import Reload, Service
from agent.engine import Container
from agent.errors import Conflict, GuardRefused, LockLost, NotFound, SvcagentError
from agent.maintenance import Target, await_absence_from_dns, by_reload, put_out
from agent.reload.conclude import conclude
from agent.reload.drain import await_quiet
from agent.reload.edges import Edges
from agent.reload.guard import Obstacle, find_obstacles
from agent.reload.journal import Record
from agent.reload.procedure import Procedure
from agent.reload.record import Phase, Result
from agent.reload.restore import Restoration, own_instance
from agent.reload.steps import INTERRUPTIBLE, State, Step

class Executor(Procedure):
    """One reload of one service on this host."""

    def __init__(self, service: Service, reload: Reload, edges: Edges, *, lock_timeout: float, is_forced: bool) -> None:
        """``lock_timeout``: seconds to wait for the fleet's lock; ``is_forced``: reload the image that runs, too."""
        reload_id = uuid.uuid4().hex[:8]
        since = edges.clock.now().isoformat(timespec="seconds")
        super().__init__(
            edges,
            Restoration(service, reload, edges, self._tell_note),
            State(may_roll_back=reload.rollback),
            Record.of(service, reload, reload_id, since),
            Result(service.name, edges.agent.node, reload.image, id=reload_id),
        )
        self._service = service
        self._reload = reload
        self._is_forced = is_forced
        self._lock_timeout = lock_timeout
        self._was: Container | None = None
        self._target = Target(edges.agent.node, service.id, service.name)
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
                "since": since,
            },
            clock=edges.clock,
            waiting=edges.interrupts.allowed,
            on_session=lambda session: self._note_down(session=session),
        )

    def run(self) -> Result:
        """Take step after step until none is left; what failed is told by the result, never raised."""
        restoration = self._restoration
        with self._lock:
            self._walk(
                {
                    Step.CHECK: self._check,
                    Step.PULL: self._pull,
                    Step.GUARD: self._guard,
                    Step.ACQUIRE: self._acquire,
                    Step.PLAN_AGAIN: self._plan_again,
                    Step.DRAIN: self._drain,
                    Step.RESTART: self._restart,
                    Step.QUARANTINE: self._quarantine,
                    Step.ROLL_BACK: lambda: restoration.roll_back(self._record.restart_policy or None),
                    Step.READY: self._await_ready,
                    Step.RETURN: restoration.return_,
                    Step.CLEAN: self._clean,
                    Step.RELEASE: self._release,
                },
                stops_at=GeneratorExit,
            )
            try:
                self._lock.release()  # of an attempt that was given up while waiting
            except SvcagentError as error:
                self._troubles.append(error)
        return self._concluded(conclude)

    def check(self) -> tuple[bool, tuple[Obstacle, ...]]:
        """Is there a newer image, and what would keep this host from taking it? Changes nothing."""
        is_newer = self._check()
        obstacles, _own = self._find_obstacles(is_queueing=True)
        return is_newer, obstacles

    def _may_begin(self, step: Step) -> None:
        if step in INTERRUPTIBLE and not self._state.has_failed:
            with self._edges.interrupts.allowed():
                pass

    # ------------------------------------------------------------ before the lock

    def _check(self) -> bool:
        with self._edges.interrupts.allowed():
            engine = self._edges.engine
            self._was = engine.container(self._reload.container)
            wanted = engine.registry_digest(self._reload.image)
            is_newer = self._is_forced or not engine.runs_digest(self._was, self._reload.image, wanted)
        before = engine.digest_of(self._was, self._reload.image) or ""
        self._record = replace(self._record, digest=wanted, digest_before=before)
        self.result.wanted = wanted
        if not is_newer:
            self.result.running = self._record.digest
        else:
            engine.check_recreatable(self._reload.container)
        return is_newer

    def _pull(self) -> None:
        if self._edges.engine.has_image(self._reload.image, self._record.digest):
            return
        with self._edges.interrupts.allowed():
            self._edges.engine.pull(self._reload.image, self._record.digest, self._edges.tell_pull)

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
                self._was, self._reload.image, self._record.digest
            )
            if is_newer:
                self._refuse_unless_clear()
        return is_newer

    def _drain(self) -> None:
        edges = self._edges
        remembered = max((ask().ttl for ask in self._ask_dns.values()), default=0)
        self._lock.ask()
        own = self._refuse_unless_clear()
        why = f"to run {self._record.digest[:19]}"
        own_maintenance = by_reload(self._record.reload_id, edges.agent.node, why, edges.clock.now())
        self._restoration.is_out = True
        try:
            put_out(edges.consul, edges.clock, self._target, own_maintenance)
        except (Conflict, NotFound):
            self._restoration.is_out = False
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
        self._note_down(is_replacing=True, restart_policy=self._was.restart_policy if self._was else "")
        done = self._edges.engine.replace(
            self._reload.container, self._reload.image, self._record.digest, self._reload.stop_timeout
        )
        self.result.engine = {
            "create": round(done.create_seconds, 4),
            "stop": round(done.stop_seconds, 4),
            "start": round(done.start_seconds, 4),
        }
        if done.was_killed:
            self._tell(Phase.NOTE, "the old container ignored its stop signal until the stop timeout, and was killed")

    def _await_ready(self) -> None:
        if self._state.has_failed:  # on the way back nothing may cut the wait short
            self._restoration.await_ready()
            return
        with self._edges.interrupts.allowed():
            self.result.engine["first_success"] = round(self._restoration.readiness().wait(), 4)

    def _clean(self) -> None:
        self.result.running = self._record.digest
        self._restoration.clean(self._record.digest)

    def _release(self) -> None:
        self._lock.release()
        self.result.released_at = self._edges.clock.now().timestamp()

    # ------------------------------------------------------------ helpers

    def _find_obstacles(self, *, is_queueing: bool) -> tuple[tuple[Obstacle, ...], Instance | None]:
        _index, instances = self._edges.consul.instances(self._service.name)
        obstacles = find_obstacles(
            instances, self._edges.agent.node, self._service.id, self._reload.min_healthy, is_queueing=is_queueing
        )
        return obstacles, own_instance(instances, self._edges.agent.node, self._service.id)

    def _refuse_unless_clear(self, *, is_queueing: bool = False) -> Instance:
        obstacles, own = self._find_obstacles(is_queueing=is_queueing)
        if obstacles or own is None:
            raise GuardRefused(f"not reloading {self._service.id} now: " + "; ".join(map(str, obstacles)))
        return own


def _ip(address: str) -> str | None:
    """Consul takes a host name for an address too; connections show numbers."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return None
