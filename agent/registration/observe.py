"""From what is wanted and what the agent holds to a plan; reads, and changes nothing."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from agent.consul import Consul
from agent.definitions import Service
from agent.registration.plan import Change, World, make_plan, nodes_followed, without_unknown_nodes

NOBODY: Mapping[str, str] = MappingProxyType({})


def observe_and_plan(
    consul: Consul,
    wanted: Iterable[Service],
    only: frozenset[str] = frozenset(),
    *,
    is_adopting: bool = False,
    expected: Mapping[str, str] = NOBODY,
) -> tuple[tuple[Change, ...], World]:
    """The changes (`make_plan`), and what the agent holds. ``expected`` as for `Consul.services_and_checks`."""
    world = World(*consul.services_and_checks(expected))
    plan = make_plan(wanted, world, only, is_adopting=is_adopting)
    unknown = frozenset(node for node in nodes_followed(plan) if not consul.is_node_known(node))
    return without_unknown_nodes(plan, unknown), world
