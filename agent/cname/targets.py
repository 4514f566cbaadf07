"""Queries to Consul DNS for a record's target, as clients' resolvers make them."""

from agent.consul import AgentSelf, ask_dns
from agent.errors import ConsulUnreachable


def has_instances(agent: AgentSelf, target: str) -> bool:
    """True if the local agent's DNS returns any instance. Raise `ConsulUnreachable` if it is disabled or silent."""
    if agent.dns is None:
        raise ConsulUnreachable(
            f"the DNS of the local Consul agent is switched off, so nobody can tell whether {target} is answered; "
            "switch it on (ports.dns), or publish it all the same with --force"
        )
    return bool(ask_dns(agent.dns, target).instances)
