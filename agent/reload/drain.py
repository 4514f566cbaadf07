"""The drain: own maintenance, and the wait until no client uses the instance."""

from collections.abc import Callable
from functools import partial

from agent.clock import Clock, Deadline, never_interrupted, wait_out
from agent.consul import Instance, LocalService, ask_dns, service_dns_name
from agent.definitions import Drain
from agent.errors import Conflict, NotFound
from agent.maintenance import (
    Maintenance,
    MaintenanceTarget,
    await_absence_from_dns,
    await_absence_from_health,
    await_shown,
    by_reload,
    disable_own_maintenance,
    enable_maintenance,
    is_of_reload,
)
from agent.reload.dependencies import ReloadContext
from agent.reload.instance import ip_of, maintenance_of, own_instance

POLL_SECONDS = 0.02
# A client may have received the address just before its removal, so no connection may be open for this long.
QUIET_SECONDS = 0.25


class Drainer:
    """Enables and disables a reload's maintenance on this host, even after the node was renamed (``reload_id``)."""

    def __init__(self, context: ReloadContext, *, is_out: bool = False) -> None:
        service, deps = context.service, context.deps
        self._service = service
        self._drain = context.section.drain
        self._restarter = context.restarter
        self._deps = deps
        self._reload_id = context.entry.record.reload_id
        self._target = MaintenanceTarget(deps.agent.node, service.id, service.name)
        name = service_dns_name(service.name, deps.agent.datacenter, deps.agent.domain)
        self._ask_dns = {f"{host}:{port}": partial(ask_dns, (host, port), name) for host, port in deps.drain_dns}
        self._is_out = is_out

    @property
    def is_out(self) -> bool:
        """True if a reload of this host may have the instance in maintenance."""
        return self._is_out

    def is_own(self, held: Maintenance) -> bool:
        """True if a reload of this host enabled it, under this node's name or an earlier one."""
        return is_of_reload(held, self._deps.agent.node, self._reload_id)

    def find_own(self, local: LocalService | None) -> Maintenance | None:
        """Return own maintenance as the local agent shows it; None if it is disabled or another owner's is enabled."""
        held = maintenance_of(local)
        self._is_out = held is not None and self.is_own(held)
        return held if self._is_out else None

    def enable(self, why: str) -> None:
        """Enable own maintenance and wait until the catalog shows it.

        :raises Conflict: an operator's maintenance is enabled.
        :raises NotFound: the service is not registered here.
        """
        deps = self._deps
        wanted = by_reload(self._reload_id, deps.agent.node, why, deps.clock.now())
        self._is_out = True
        try:
            enable_maintenance(deps.consul, self._target, wanted)
            await_shown(deps.consul, deps.clock, self._target, wanted)
        except (Conflict, NotFound):
            self._is_out = False
            raise

    def disable(self, held: Maintenance) -> None:
        disable_own_maintenance(self._deps.consul, self._target, held)
        self._is_out = False

    def dns_cache_seconds(self) -> int:
        """Return for how many seconds clients may cache DNS answers that contain this instance."""
        return max((ask().ttl for ask in self._ask_dns.values()), default=0)

    def await_drained(self, own: Instance, remembered: int, limit: Deadline, each_round: Callable[[], None]) -> int:
        """Wait until no client is sent to the instance and its connections have ended; return how many the limit left
        open.

        ``own``: the instance as it was before. ``each_round`` is called in every wait and may raise.
        """
        deps = self._deps
        await_absence_from_health(deps.consul, deps.clock, self._target, each_round)
        remembered = min(
            remembered, int(self._drain.max)
        )  # for a longer one the guard refuses, unless it was overridden
        await_absence_from_dns(self._ask_dns, (own.address, own.port), deps.clock, remembered, each_round)
        return await_no_connections(lambda: self.count_connections(own), self._drain, deps.clock, limit, each_round)

    def count_connections(self, own: Instance) -> int:
        return self._restarter.connections(own.port, ip_of(own.address)) if own.port else 0

    def drain_again(self) -> None:
        """Drain an instance that fails in service, so that clients leave it while the old one is started.

        The guard is not evaluated: the instance fails its checks, so Consul is about to take it out of service as well.
        The wait for clients is the same, as long as the container runs.
        """
        deps = self._deps
        local = deps.consul.services().get(self._service.id)
        if local is None:
            return  # no client is sent to it
        if maintenance_of(local) is None:
            self.enable("its new version fails in service")
        elif self.find_own(local) is None:
            return  # another owner's maintenance stays
        if not self._restarter.runs():
            return
        _index, instances = deps.consul.instances(self._service.name)
        own = own_instance(instances, deps.agent.node, self._service.id)
        if own is not None:
            limit = Deadline.after(deps.clock, self._drain.max)
            self.await_drained(own, 0, limit, never_interrupted)


def await_no_connections(
    count: Callable[[], int],
    drain: Drain,
    clock: Clock,
    started: Deadline,
    each_round: Callable[[], None] = never_interrupted,
) -> int:
    """Wait until ``drain.min`` has passed and connections have ended, at most ``drain.max``; return how many are open.

    ``started``: when ``drain.max`` ends. Only clients end keep-alive connections, so this limits a drain; the restart
    cuts what is left. ``each_round`` ends the wait by raising, for example if the lock is lost.
    """
    wait_out(Deadline(clock, started.at - drain.max + drain.min), each_round)
    if not drain.connections:
        return 0
    quiet_since: float | None = None
    while True:
        each_round()
        left = count()
        now = clock.monotonic()
        quiet_since = None if left else (now if quiet_since is None else quiet_since)
        if quiet_since is not None and now - quiet_since >= QUIET_SECONDS:
            return 0
        if started.is_over:
            return left
        clock.sleep(POLL_SECONDS)
