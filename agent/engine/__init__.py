"""The only package that speaks to Docker: digests, pulls, replacing containers and rolling back, connections.

`Engine` is loaded on first use (PEP 562), because verbs that never use Docker need not wait for it.
"""

from typing import TYPE_CHECKING, Any

from agent.engine.host_clients import host_connections
from agent.engine.model import Container, Fetched, PullProgress, Replacement
from agent.engine.stopped import StoppedContainer, find_stopped
from agent.engine.swap import NEW_SUFFIX, OLD_SUFFIX, Stand, Standing

if TYPE_CHECKING:
    from agent.engine.client import Engine

__all__ = [
    "NEW_SUFFIX",
    "OLD_SUFFIX",
    "Container",
    "Engine",
    "Fetched",
    "PullProgress",
    "Replacement",
    "Stand",
    "Standing",
    "StoppedContainer",
    "find_stopped",
    "host_connections",
]


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from agent.engine.client import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
