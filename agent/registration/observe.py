"""The observations that a plan needs: what the agent holds, and which of the plan's nodes exist."""

from collections.abc import Iterable, Mapping

from agent.consul import Consul
from agent.registration.plan import Change, World, nodes_followed, without_unknown_nodes


def observe(consul: Consul, expected: Mapping[str, str] | None = None) -> World:
    """Return what the local agent holds, by two requests. ``expected``: as in `Consul.services_and_checks`."""
    return World(*consul.services_and_checks(expected))


def refuse_unknown_nodes(consul: Consul, plan: Iterable[Change]) -> tuple[Change, ...]:
    """Refuse changes that would crash a Consul 1.8 agent; one request for each node that the checks follow."""
    plan = tuple(plan)
    unknown = frozenset(node for node in nodes_followed(plan) if not consul.is_node_known(node))
    return without_unknown_nodes(plan, unknown)
