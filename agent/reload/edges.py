"""The outside world of one reload, as it was given."""

from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import Clock, Interrupts
from agent.consul import AgentSelf, Consul
from agent.engine import Engine, PullProgress
from agent.reload.journal import Journal
from agent.reload.probe import Prober
from agent.reload.record import Event


@dataclass(frozen=True)
class Edges:
    """``drain_dns`` are the DNS servers, ``(address, port)``, that clients ask."""

    consul: Consul
    engine: Engine
    agent: AgentSelf
    journal: Journal
    prober: Prober
    clock: Clock
    interrupts: Interrupts
    drain_dns: tuple[tuple[str, int], ...]
    tell: Callable[[Event], None]
    tell_pull: Callable[[PullProgress], None]
