"""Waits until clients are no longer sent to an instance in maintenance. Changes nothing."""

from collections.abc import Callable, Mapping

from agent.clock import Clock, Deadline, never_interrupted, poll, wait_out
from agent.consul import Consul, DnsAnswer
from agent.errors import NotDrained
from agent.maintenance.target import MaintenanceTarget

DNS_SECONDS = 30.0
POLL_SECONDS = 0.02
# How long a blocking query may delay the next call of ``check``.
QUERY_SECONDS = 1.0

Ask = Callable[[], DnsAnswer]


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
                "enabled. Does it cache (dns_config.service_ttl, a forwarder)? See drain_dns in svcagent.toml",
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
