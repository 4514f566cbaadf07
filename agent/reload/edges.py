"""The clients and settings that one reload uses."""

from collections.abc import Callable, Mapping
from pathlib import Path

from agent.clock import Clock, Interrupts
from agent.consul import AgentSelf, Consul
from agent.data import dataclass
from agent.engine import Engine, PullProgress
from agent.reload.journal import Journal
from agent.reload.probe import Prober
from agent.reload.record import Event


@dataclass(frozen=True)
class Edges:
    """``drain_dns`` are the DNS servers, ``(address, port)``, that clients ask; ``environ`` is svcagent's own.

    ``trusts_pins``: any digest that is pinned in Consul KV is taken (``[fleet] trust_pins``).
    ``shares_log_tails``: what a failed container or command printed may be written to Consul KV and notifications.
    """

    consul: Consul
    engine: Engine
    agent: AgentSelf
    state_dir: Path
    journal: Journal
    prober: Prober
    clock: Clock
    interrupts: Interrupts
    environ: Mapping[str, str]
    drain_dns: tuple[tuple[str, int], ...]
    tell: Callable[[Event], None]
    tell_pull: Callable[[PullProgress], None]
    trusts_pins: bool = False
    shares_log_tails: bool = False
