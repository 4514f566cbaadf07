"""Two definitions of one generation that disagree: how the hosts whose record stands learn of those whose does not.

The zone cannot tell them: hosts that lost write nothing there, so that it comes to rest. They say so in Consul KV,
``svcagent/<service>/cname/<record>``, and every other host reads it whenever its own record is in place. What is said
there concerns one generation: raising ``gen`` ends the contest.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from agent.clock import Clock
from agent.cname.provider import Record
from agent.cname.record import Wanted
from agent.consul import Consul

VERSION = 1
MEMORY = timedelta(hours=24)
"""How long a host is believed that has not repeated itself: it may be gone, or its file mended while it was off."""

REPEAT = timedelta(hours=1)
"""A host repeats itself when its word is older than this, not at every sync."""

ATTEMPTS = 10


@dataclass(frozen=True)
class Claim:
    """What one host wants of a record, and could not have."""

    node: str
    gen: int
    record: Record
    at: datetime


class Contests(Protocol):
    """Where hosts say what they could not have."""

    def others(self, wanted: Wanted, *, is_reading: bool = False) -> tuple[Claim, ...]:
        """The hosts that want something else in the same generation. This host itself is content, and no longer
        among them; ``is_reading``: nothing is written.
        """

    def claim(self, wanted: Wanted) -> None:
        """Say that this host wants this, and another record of the same generation stands there."""


def relevant(claims: Iterable[Claim], wanted: Wanted, now: datetime) -> tuple[Claim, ...]:
    """Those that still stand against what is wanted. Pure."""
    return tuple(
        sorted(
            (one for one in claims if one.gen >= wanted.gen and one.record != wanted.record and now - one.at < MEMORY),
            key=lambda one: one.node,
        )
    )


@dataclass(frozen=True)
class KvContests:
    """In Consul KV, one small document a record, written with check-and-set."""

    consul: Consul
    node: str
    clock: Clock

    def others(self, wanted: Wanted, *, is_reading: bool = False) -> tuple[Claim, ...]:
        """Also clears away what concerns nobody any more."""
        for _ in range(ATTEMPTS):
            index, claims = self._read(wanted)
            left = tuple(one for one in relevant(claims, wanted, self.clock.now()) if one.node != self.node)
            if is_reading or left == claims or self._write(wanted, left, index):
                break
        return tuple(one for one in left if one.gen == wanted.gen)

    def claim(self, wanted: Wanted) -> None:
        """Not again while it is fresh."""
        now = self.clock.now()
        for _ in range(ATTEMPTS):
            index, claims = self._read(wanted)
            own = next((one for one in claims if one.node == self.node), None)
            if own and (own.gen, own.record) == (wanted.gen, wanted.record) and now - own.at < REPEAT:
                return
            others = tuple(one for one in claims if one.node != self.node)
            if self._write(wanted, (*others, Claim(self.node, wanted.gen, wanted.record, now)), index):
                return

    def _read(self, wanted: Wanted) -> tuple[int, tuple[Claim, ...]]:
        _index, pair = self.consul.kv_get(_key(wanted), consistent=True)
        return (pair.modify_index, _parse(pair.value)) if pair is not None else (0, ())

    def _write(self, wanted: Wanted, claims: tuple[Claim, ...], index: int) -> bool:
        """False if another host wrote since ``index``; 0 stands for a document that is not there."""
        if not claims:
            return self.consul.kv_delete(_key(wanted), cas=index)
        return self.consul.kv_put(_key(wanted), _render(claims), cas=index)


def _key(wanted: Wanted) -> str:
    return f"svcagent/{wanted.service}/cname/{wanted.name.replace('*', '_wildcard').rstrip('.')}"


def _render(claims: Iterable[Claim]) -> str:
    said = {
        one.node: {"gen": one.gen, "target": one.record.target, "ttl": one.record.ttl, "at": one.at.isoformat()}
        for one in claims
    }
    return json.dumps({"v": VERSION, "claims": said}, separators=(",", ":"), sort_keys=True)


def _parse(raw: bytes) -> tuple[Claim, ...]:
    """Nothing, of a document that another version wrote: it concerns hosts that this one cannot judge."""
    try:
        said = json.loads(raw)
        if said["v"] != VERSION:
            return ()
        return tuple(
            Claim(node, one["gen"], Record(one["target"], one["ttl"]), datetime.fromisoformat(one["at"]))
            for node, one in sorted(said["claims"].items())
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return ()
