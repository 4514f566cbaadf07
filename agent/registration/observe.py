"""What a plan takes from Consul: what the agent holds, and which of the nodes that the plan names there are."""

from collections.abc import Iterable, Mapping

from agent.consul import Consul
from agent.registration.plan import Change, World, nodes_followed, without_unknown_nodes


def observe(consul: Consul, expected: Mapping[str, str] | None = None) -> World:
    """What the local agent holds, by two requests. ``expected`` as in `Consul.services_and_checks`."""
    return World(*consul.services_and_checks(expected))


def refuse_unknown_nodes(consul: Consul, plan: Iterable[Change]) -> tuple[Change, ...]:
    """The plan without what would crash an agent of Consul 1.8; one request for each node that its checks follow."""
    plan = tuple(plan)
    unknown = frozenset(node for node in nodes_followed(plan) if not consul.is_node_known(node))
    return without_unknown_nodes(plan, unknown)
