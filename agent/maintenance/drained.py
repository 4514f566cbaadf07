"""Waiting until those who ask are no longer given an instance that was taken out.

Nothing here changes anything: maintenance is on already, in the catalog, and its owner is known.
"""

from collections.abc import Callable, Mapping
from functools import partial

from agent.clock import Clock, Deadline, poll
from agent.consul import Consul, DnsAnswer
from agent.errors import NotDrained
from agent.maintenance.target import Target

DNS_SECONDS = 30.0
POLL_SECONDS = 0.02

Ask = Callable[[], DnsAnswer]


def await_absence_from_dns(servers: Mapping[str, Ask], own: tuple[str, int], clock: Clock, remembered: int) -> None:
    """Wait until no DNS server names ``own`` (address, port), and then for as long as answers may be remembered.

    ``remembered``: the TTL, in seconds, that answers had while the instance was still named.

    :raises NotDrained: a server still names it after 30 s.
    """
    deadline = Deadline.after(clock, DNS_SECONDS)
    for server, ask in servers.items():
        if not poll(partial(_is_absent, ask, own), deadline, POLL_SECONDS):
            raise NotDrained(
                f"the DNS server {server} still names {own[0]}:{own[1]} {DNS_SECONDS:.0f} s after it was taken out. "
                "Does it cache (dns_config.service_ttl, a forwarder)? See drain_dns in svcagent.toml"
            )
    clock.sleep(remembered)


def await_absence_from_health(consul: Consul, clock: Clock, target: Target) -> None:
    """Wait until the leader's answer to who is passing leaves the target out.

    :raises NotDrained: it is still named after 30 s.
    """
    deadline = Deadline.after(clock, DNS_SECONDS)
    index: int | None = None
    while True:
        index, instances = consul.instances(target.name, index, min(5.0, deadline.remaining))
        own = [one for one in instances if (one.node, one.service_id) == (target.node, target.service_id)]
        if not any(one.is_passing for one in own):
            return
        if deadline.is_over:
            raise NotDrained(
                f"Consul still names {target} among the passing {DNS_SECONDS:.0f} s after it was taken out"
            )


def _is_absent(ask: Ask, own: tuple[str, int]) -> bool:
    return own not in ask().instances
