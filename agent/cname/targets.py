"""Asking Consul DNS for a record's target, as the resolvers of clients do."""

from agent.consul import AgentSelf, ask_dns
from agent.errors import ConsulUnreachable


def has_instances(agent: AgentSelf, target: str) -> bool:
    """Does the local agent's DNS name any instance for this target?

    :raises ConsulUnreachable: it does not answer, or is switched off.
    """
    if agent.dns is None:
        raise ConsulUnreachable(
            f"the DNS of the local Consul agent is switched off, so nobody can tell whether {target} is answered; "
            "switch it on (ports.dns), or publish it all the same with --force"
        )
    return bool(ask_dns(agent.dns, target).instances)
