"""Consul releases with known faults. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReleaseFault:
    """One fault of a release. ``handled``: svcagent works around it.

    ``fixed``: the release to upgrade to, empty where none is known.
    """

    kind: str
    problem: str
    fixed: str
    handled: bool


def known_faults(_version: str) -> tuple[ReleaseFault, ...]:
    """Return what is known to be wrong with an agent's release, by its version text."""
    return ()
