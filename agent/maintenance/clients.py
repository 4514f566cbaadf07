"""What clients see of instances that are taken out of service: who else is there, and who still names them."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from agent.clock import Clock
from agent.consul import AgentSelf, Consul, Instance, ask_dns
from agent.maintenance.drained import await_absence_from_dns
from agent.maintenance.target import Target


class Left(StrEnum):
    """What clients of a service find afterwards."""

    SOMEBODY = "somebody"
    NOBODY = "nobody"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class View:
    """One service in the catalog; ``service_ids`` are those of this host that are targets."""

    name: str
    node: str
    service_ids: tuple[str, ...]
    instances: tuple[Instance, ...]

    @property
    def own(self) -> tuple[Instance, ...]:
        """The targets, as far as the catalog shows them."""
        return tuple(one for one in self.instances if one.node == self.node and one.service_id in self.service_ids)

    @property
    def left(self) -> Left:
        """Who is there when the targets are out?"""
        return who_is_left(self.instances, self.node, self.service_ids)


def who_is_left(instances: Iterable[Instance], node: str, service_ids: Collection[str]) -> Left:
    """Look at one service's instances in the catalog, before those of ``service_ids`` on ``node`` are taken out. Pure.

    Nobody: the last passing instance is among them. Where none of them passes, nothing is taken from anybody. Unknown:
    the catalog does not show them, so it does not show everything (a token without ``node:read`` empties the answer).
    """
    everyone = tuple(instances)
    own = [one for one in everyone if one.node == node and one.service_id in service_ids]
    if len(own) < len(service_ids):
        return Left.UNKNOWN
    is_served_here = any(one.is_passing for one in own)
    is_served_elsewhere = any(one.is_passing for one in everyone if one not in own)
    return Left.NOBODY if is_served_here and not is_served_elsewhere else Left.SOMEBODY


def view(consul: Consul, node: str, targets: Iterable[Target]) -> tuple[View, ...]:
    """The services of the targets as the leader's catalog shows them; the host stands for all its services."""
    ids: dict[str, list[str]] = {}
    for target in targets:
        if target.service_id:
            ids.setdefault(target.name, []).append(target.service_id)
        else:
            for service in consul.services().values():
                ids.setdefault(service.name, []).append(service.id)
    return tuple(View(name, node, tuple(found), consul.instances(name)[1]) for name, found in ids.items())


def dns_memory(consul: Consul, agent: AgentSelf, targets: Iterable[Target]) -> int:
    """For how many seconds clients may remember the answers that name the targets now."""
    if agent.dns is None:
        return 0
    names = {one.name for one in view(consul, agent.node, targets)}
    return max((ask_dns(agent.dns, _dns_name(agent, name)).ttl for name in names), default=0)


def await_unnamed(consul: Consul, clock: Clock, agent: AgentSelf, targets: Iterable[Target], remembered: int) -> None:
    """Wait until the local agent's DNS names no target any more, and then for as long as clients remember answers.

    The catalog shows their maintenance already, so the health API names none of them. ``remembered``: `dns_memory`
    from before they were taken out.

    :raises NotDrained: DNS still names one after 30 s.
    """
    for one in view(consul, agent.node, targets):
        served = {(other.address, other.port) for other in one.instances if other not in one.own}
        for own in one.own:
            # Two services may share an address and a port; then DNS goes on naming it for the other's sake.
            if agent.dns is not None and (own.address, own.port) not in served:
                asks = {f"{agent.dns[0]}:{agent.dns[1]}": partial(ask_dns, agent.dns, _dns_name(agent, one.name))}
                await_absence_from_dns(asks, (own.address, own.port), clock, 0)
    clock.sleep(remembered)


def _dns_name(agent: AgentSelf, service: str) -> str:
    return f"{service}.service.{agent.datacenter}.{agent.domain}"
