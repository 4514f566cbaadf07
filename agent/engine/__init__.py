"""The only room that speaks to Docker: digests, pulls, replacing a container and rolling it back, its connections.

`Engine` is loaded when it is first asked for: the Docker SDK costs 0.1 s, which verbs that never use it need not pay.
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
    """Load `Engine`, and with it the Docker SDK, on first use (PEP 562)."""
    if name == "Engine":
        from agent.engine.client import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
