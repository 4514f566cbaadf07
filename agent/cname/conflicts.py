"""Conflicts between two definitions of one generation that disagree about a record.

Hosts that lost write nothing to the zone, so that it stays stable; the winners cannot see them there. The losers
therefore publish a claim in Consul KV (see `agent.fleet.cname_conflicts`), and every other host reads the claims once
its own record is in place. A claim is for one generation: raising ``gen`` ends the conflict.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from agent.clock import Clock
from agent.cname.marker import Marker, parse
from agent.cname.record import WantedRecord
from agent.consul import Consul
from agent.data import dataclass
from agent.fleet import cname_conflicts
from agent.fleet.cname_conflicts import ConflictClaim

MEMORY = timedelta(hours=24)
"""A claim expires unless repeated: its host may be gone, or its file corrected while the host was off."""

REPEAT = timedelta(hours=1)
"""A host repeats its claim when it is older than this, not at each sync."""


@dataclass(frozen=True)
class ConflictingHost:
    """A host, and the record that it wants instead of the published one."""

    node: str
    marker: Marker


def conflicting_hosts(
    claims: Iterable[ConflictClaim], wanted: WantedRecord, now: datetime
) -> tuple[ConflictingHost, ...]:
    """Return the recent claims of the same generation that contradict ``wanted``."""
    recent = [(one.node, parse(one.wants)) for one in claims if now - one.at < MEMORY]
    return tuple(
        ConflictingHost(node, marker)
        for node, marker in recent
        if marker is not None and marker.gen == wanted.gen and marker.record != wanted.record
    )


@dataclass(frozen=True)
class Conflicts:
    """The claims in Consul KV. ``node`` is this host's."""

    consul: Consul
    node: str
    clock: Clock

    def others(self, wanted: WantedRecord, *, is_reading: bool = False) -> tuple[ConflictingHost, ...]:
        """Return the hosts that want something else in the same generation, and withdraw this host's claim.

        With ``is_reading``, change nothing.
        """
        claims = cname_conflicts.read_all(self.consul, wanted.service, wanted.name)
        if not is_reading and any(one.node == self.node for one in claims):
            cname_conflicts.clear(self.consul, wanted.service, wanted.name, self.node)
        return conflicting_hosts((one for one in claims if one.node != self.node), wanted, self.clock.now())

    def claim(self, wanted: WantedRecord) -> None:
        """Publish that this host wants this record, but another one of the same generation is published."""
        now = self.clock.now()
        for one in cname_conflicts.read_all(self.consul, wanted.service, wanted.name):
            if one.node == self.node and one.wants == wanted.marker and now - one.at < REPEAT:
                return
        cname_conflicts.write(self.consul, wanted.service, wanted.name, ConflictClaim(self.node, wanted.marker, now))
