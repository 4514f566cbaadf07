"""Consul's release numbers, and the known faults of releases that affect svcagent's users."""

import re
from typing import TypeAlias

from agent.data import dataclass

Release: TypeAlias = tuple[int, ...]
"""``(1, 8, 7)``."""


@dataclass(frozen=True)
class ReleaseFault:
    """One fault of some releases.

    ``kind`` is a stable identifier. ``problem`` describes the fault in a sentence. ``fixed`` is the release to upgrade
    to, empty if none is known. ``handled`` is True if svcagent works around it.
    """

    kind: str
    problem: str
    fixed: str
    handled: bool


def release_of(version: str) -> Release:
    """Return a version as numbers, without a suffix (``-dev``, ``+ent``); empty if there are none."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def is_known_since(release: Release, first: tuple[Release, ...]) -> bool:
    """True if a release has a change that was introduced in the releases ``first``: one of each branch, in order.

    ``((1, 14, 10), (1, 15, 6))`` means 1.14.10 and later of 1.14, and everything from 1.15.6 on.
    """
    of_branch = next((one for one in first if one[:2] == release[:2]), first[-1])
    return release >= of_branch


def known_faults(version: str) -> tuple[ReleaseFault, ...]:
    """Return the known faults of a release, which is written as the agent reports it (``1.19.0+ent``)."""
    release = release_of(version)
    return tuple(fault for first, fixed, fault in _TABLE if first <= release < fixed)


_WAITS_FAIL = (
    'A client agent answers a long wait with 500 "i/o deadline reached"; svcagent then reads again without waiting.'
)
_DNS_IGNORES_TAG = (
    "Consul DNS ignores the tag in <tag>.<service>.service.<domain>: clients of a CNAME with a tag are sent to "
    "instances without that tag."
)
_KV_KEY_REFUSED = (
    "The agent refuses KV keys with characters outside A-Za-z0-9,_./-?&=, for reads too. No key of svcagent has them, "
    "but entries that its earlier releases wrote are read by their prefix only."
)
_LONG_WAIT_CUT = "Builds from 2026-01-28 to 2026-02-25 end every answer after 30 s; svcagent waits 25 s at most."
_IDLE_RPC_EOF = (
    'A client agent answers 500 "EOF" when its connection to a server was idle. svcagent reads once more, but cannot '
    "know the outcome of a write. Set limits.rpc_handshake_timeout to 0s on the servers."
)
# Sources: hashicorp/consul issues 13303, 15246 (waits), 21336 (tags), 22822 (keys), 23923 (idle connections), and pull
# request 23272 (truncated responses).
_TABLE: tuple[tuple[Release, Release, ReleaseFault], ...] = (
    ((1, 12, 1), (1, 12, 2), ReleaseFault("waits-fail", _WAITS_FAIL, "1.12.2", handled=True)),
    ((1, 13, 3), (1, 14, 2), ReleaseFault("waits-fail", _WAITS_FAIL, "1.14.2", handled=True)),
    ((1, 19, 0), (1, 19, 1), ReleaseFault("dns-ignores-tag", _DNS_IGNORES_TAG, "1.19.1", handled=False)),
    ((1, 21, 5), (1, 21, 6), ReleaseFault("kv-key-refused", _KV_KEY_REFUSED, "1.21.6", handled=True)),
    ((1, 22), (1, 23), ReleaseFault("long-wait-cut", _LONG_WAIT_CUT, "", handled=True)),
    ((2, 0, 4), (2, 0, 5), ReleaseFault("idle-rpc-eof", _IDLE_RPC_EOF, "", handled=False)),
)
"""The first release with the fault, the first without it, and the fault."""
