"""Two definitions of one generation that disagree: how the hosts whose record stands learn of those whose does not.

The zone cannot tell them: hosts that lost write nothing there, so that it comes to rest. They say so in Consul KV (see
`agent.fleet.claim`), and every other host reads it when its own record is in place. What is said there concerns one
generation: raising ``gen`` ends the contest.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Protocol

from agent.clock import Clock
from agent.cname.marker import Marker, parse
from agent.cname.record import Wanted
from agent.consul import Consul
from agent.data import dataclass
from agent.fleet import claim
from agent.fleet.claim import Claim

MEMORY = timedelta(hours=24)
"""How long a host is believed that has not repeated itself: it may be gone, or its file mended while it was off."""

REPEAT = timedelta(hours=1)
"""A host repeats itself when its word is older than this, not at every sync."""


@dataclass(frozen=True)
class Contender:
    """A host, and what it wants in the place of what stands there."""

    node: str
    marker: Marker


class Contests(Protocol):
    """Where hosts say what they could not have."""

    def others(self, wanted: Wanted, *, is_reading: bool = False) -> tuple[Contender, ...]:
        """The hosts that want something else in the same generation. This host itself is content.

        ``is_reading``: it does not say so.
        """

    def claim(self, wanted: Wanted) -> None:
        """Say that this host wants this, and another record of the same generation stands there."""


def relevant(claims: Iterable[Claim], wanted: Wanted, now: datetime) -> tuple[Contender, ...]:
    """Those that stand against what is wanted now. Pure."""
    told = [(one.node, parse(one.wants)) for one in claims if now - one.at < MEMORY]
    return tuple(
        Contender(node, marker)
        for node, marker in told
        if marker is not None and marker.gen == wanted.gen and marker.record != wanted.record
    )


@dataclass(frozen=True)
class KvContests:
    """In Consul KV. ``node`` is this host's."""

    consul: Consul
    node: str
    clock: Clock

    def others(self, wanted: Wanted, *, is_reading: bool = False) -> tuple[Contender, ...]:
        claims = claim.read_all(self.consul, wanted.service, wanted.name)
        if not is_reading and any(one.node == self.node for one in claims):
            claim.clear(self.consul, wanted.service, wanted.name, self.node)
        return relevant((one for one in claims if one.node != self.node), wanted, self.clock.now())

    def claim(self, wanted: Wanted) -> None:
        now = self.clock.now()
        for one in claim.read_all(self.consul, wanted.service, wanted.name):
            if one.node == self.node and one.wants == wanted.marker and now - one.at < REPEAT:
                return
        claim.write(self.consul, wanted.service, wanted.name, Claim(self.node, wanted.marker, now))
