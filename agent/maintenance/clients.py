"""What clients see of instances that enter maintenance: which others remain, and what still returns the instances."""

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum
from functools import partial

from agent.clock import Clock, Deadline, never_interrupted, poll, wait_out
from agent.consul import AgentSelf, Consul, DnsAnswer, Instance, ask_dns, service_dns_name
from agent.data import dataclass
from agent.errors import NotDrained
from agent.maintenance.target import MaintenanceTarget

DNS_SECONDS = 30.0
POLL_SECONDS = 0.02
# How long a blocking query may delay the next call of ``check``.
QUERY_SECONDS = 1.0

Ask = Callable[[], DnsAnswer]


class RemainingInstances(StrEnum):
    """Which instances of a service remain for its clients."""

    SOME = "some"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ClientView:
    """One service in the catalog; ``service_ids``: those of this host that enter maintenance (the targets)."""

    name: str
    node: str
    service_ids: tuple[str, ...]
    instances: tuple[Instance, ...]

    @property
    def own(self) -> tuple[Instance, ...]:
        """The targets that the catalog shows."""
        return tuple(one for one in self.instances if one.node == self.node and one.service_id in self.service_ids)

    @property
    def remaining(self) -> RemainingInstances:
        """Which instances remain when the targets are in maintenance."""
        return judge_remaining(self.instances, self.node, self.service_ids)


def judge_remaining(instances: Iterable[Instance], node: str, service_ids: Collection[str]) -> RemainingInstances:
    """Judge a service's instances in the catalog before those of ``service_ids`` on ``node`` enter maintenance. Pure.

    NONE: clients lose the last instance that they are sent to. Consul DNS serves an instance in warning, but such an
    instance does not replace a passing one: clients that ask for passing instances do not get it. If none of the
    targets is served, clients lose nothing. UNKNOWN: the catalog does not show all targets, so it may not show other
    instances either (a token without ``node:read`` empties the answer).
    """
    everyone = tuple(instances)
    own = [one for one in everyone if one.node == node and one.service_id in service_ids]
    if len(own) < len(service_ids):
        return RemainingInstances.UNKNOWN
    others = [one for one in everyone if one not in own]
    if any(one.is_passing for one in own):
        return RemainingInstances.SOME if any(one.is_passing for one in others) else RemainingInstances.NONE
    if any(one.is_served for one in own):
        return RemainingInstances.SOME if any(one.is_served for one in others) else RemainingInstances.NONE
    return RemainingInstances.SOME


def client_views(
    consul: Consul, node: str, targets: Iterable[MaintenanceTarget], ignoring: Collection[str] = ()
) -> tuple[ClientView, ...]:
    """Return the targets' services as the leader's catalog shows them; the host means all its services.

    ``ignoring``: reasons of maintenance to leave out of this host's instances.
    """
    ids: dict[str, list[str]] = {}
    for target in targets:
        if target.service_id:
            ids.setdefault(target.name, []).append(target.service_id)
        else:
            for service in consul.services().values():
                ids.setdefault(service.name, []).append(service.id)
    return tuple(
        ClientView(name, node, tuple(found), _seen(consul, name, node, ignoring)) for name, found in ids.items()
    )


def _seen(consul: Consul, name: str, node: str, ignoring: Collection[str]) -> tuple[Instance, ...]:
    _index, instances = consul.instances(name)
    return tuple(one.without_maintenance(ignoring) if one.node == node else one for one in instances)


def dns_cache_time(consul: Consul, agent: AgentSelf, targets: Iterable[MaintenanceTarget]) -> int:
    """Return for how many seconds clients may cache the DNS answers that contain the targets now."""
    if agent.dns is None:
        return 0
    found = client_views(consul, agent.node, targets)
    names = {service_dns_name(one.name, agent.datacenter, agent.domain) for one in found}
    return max((ask_dns(agent.dns, name).ttl for name in names), default=0)


def await_dns_expiry(
    consul: Consul,
    clock: Clock,
    agent: AgentSelf,
    targets: Iterable[MaintenanceTarget],
    remembered: float,
    limit: Deadline,
) -> None:
    """Wait until the local agent's DNS returns no target any more, and then until cached answers have expired.

    The catalog already shows the maintenance, so the health API returns no target. ``remembered``: the result of
    `dns_cache_time` from before maintenance was enabled.

    :raises NotDrained: DNS still returns a target after 30 s, or clients may still cache one when ``limit`` is reached.
    """
    for one in client_views(consul, agent.node, targets):
        served = {(other.address, other.port) for other in one.instances if other not in one.own}
        for own in one.own:
            # Another instance may share the address and the port; then DNS keeps returning them for it.
            if agent.dns is not None and (own.address, own.port) not in served:
                name = service_dns_name(one.name, agent.datacenter, agent.domain)
                asks = {f"{agent.dns[0]}:{agent.dns[1]}": partial(ask_dns, agent.dns, name)}
                address, seconds = (own.address, own.port), min(DNS_SECONDS, limit.remaining)
                await_absence_from_dns(asks, address, clock, 0, seconds=seconds)
    forgotten = Deadline.after(clock, remembered)
    wait_out(min(forgotten, limit, key=lambda one: one.at))
    if not forgotten.is_over:
        left = f"{forgotten.remaining:.0f} s"
        raise NotDrained(
            f"DNS clients may cache its address for another {left} (the TTL of the answers)", kind="dns-clients-remain"
        )


def await_absence_from_dns(
    servers: Mapping[str, Ask],
    own: tuple[str, int],
    clock: Clock,
    remembered: float,
    check: Callable[[], None] = never_interrupted,
    seconds: float = DNS_SECONDS,
) -> None:
    """Wait until no DNS server returns ``own`` (address, port), and then until cached answers have expired.

    ``remembered``: the TTL, in seconds, of the answers that still contained the instance. The caller bounds it, because
    a reload holds the fleet's lock meanwhile. ``check`` is called in every round and ends the wait by raising.

    :raises NotDrained: a server still returns it after ``seconds``.
    """
    deadline = Deadline.after(clock, seconds)
    for server, ask in servers.items():

        def is_absent(ask: Ask = ask) -> bool:
            check()
            return own not in ask().instances

        if not poll(is_absent, deadline, POLL_SECONDS):
            raise NotDrained(
                f"the DNS server {server} still returns {own[0]}:{own[1]} {seconds:.0f} s after maintenance was "
                "enabled. Check whether it caches answers (dns_config.service_ttl, a forwarder), and drain_dns in "
                "svcagent.toml",
                kind="dns-clients-remain",
            )
    wait_out(Deadline.after(clock, remembered), check)


def await_absence_from_health(
    consul: Consul, clock: Clock, target: MaintenanceTarget, check: Callable[[], None] = never_interrupted
) -> None:
    """Wait until the leader shows the target as not served. ``check``: as for `await_absence_from_dns`.

    :raises NotDrained: it is still served after 30 s.
    """
    deadline = Deadline.after(clock, DNS_SECONDS)
    index: int | None = None
    while True:
        check()
        index, instances = consul.instances(target.name, index, min(QUERY_SECONDS, deadline.remaining))
        own = [one for one in instances if (one.node, one.service_id) == (target.node, target.service_id)]
        if not any(one.is_served for one in own):
            return
        if deadline.is_over:
            raise NotDrained(f"Consul still serves {target} {DNS_SECONDS:.0f} s after maintenance was enabled")
