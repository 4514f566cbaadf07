"""``svcagent/<service>/hosts/<node>``: what one host runs. Only that host writes it."""

import json
from dataclasses import dataclass
from datetime import datetime

from agent.consul import Consul

VERSION = 1


@dataclass(frozen=True)
class HostState:
    """What one host's instance runs (an image digest), how it fares, and since when."""

    digest: str
    state: str
    since: datetime


def write_host_state(consul: Consul, service: str, node: str, state: HostState) -> None:
    """Tell the fleet. Small JSON with a version field."""
    document = {
        "v": VERSION,
        "digest": state.digest,
        "state": state.state,
        "since": state.since.isoformat(timespec="seconds"),
    }
    consul.kv_put(f"svcagent/{service}/hosts/{node}", json.dumps(document, separators=(",", ":")))
