"""Waiting until clients have left an instance that was just taken out.

Nothing here changes anything: maintenance is on already, in the catalog, and its owner is known.
"""

from collections.abc import Callable, Mapping
from functools import partial

from agent.clock import Clock, Deadline, poll
from agent.consul import DnsAnswer
from agent.definitions import Drain
from agent.errors import NotDrained

DNS_SECONDS = 30.0
POLL_SECONDS = 0.02
# A client may have been given the address a moment before it vanished: no connection may be seen for this long.
QUIET_SECONDS = 0.25

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


def _is_absent(ask: Ask, own: tuple[str, int]) -> bool:
    return own not in ask().instances


def await_quiet(count: Callable[[], int], drain: Drain, clock: Clock, started: Deadline) -> int:
    """Wait for ``drain.min`` to pass and connections to end, until ``drain.max``; returns how many are left open.

    ``started`` is the moment at which ``drain.max`` is over. Keep-alive connections end when their clients end them,
    so the limit is what bounds a drain; what is left is cut by the restart.
    """
    least = Deadline(clock, started.at - drain.max + drain.min)
    clock.sleep(least.remaining)
    if not drain.connections:
        return 0
    quiet_since: float | None = None
    while True:
        left = count()
        now = clock.monotonic()
        quiet_since = None if left else (now if quiet_since is None else quiet_since)
        if quiet_since is not None and now - quiet_since >= QUIET_SECONDS:
            return 0
        if started.is_over:
            return left
        clock.sleep(POLL_SECONDS)
