"""The clients and settings that one reload uses."""

from collections.abc import Callable, Mapping
from pathlib import Path

from agent.clock import Clock, Deadline, Interrupts
from agent.consul import AgentSelf, Consul
from agent.data import dataclass
from agent.engine.client import Engine
from agent.engine.model import PullProgress
from agent.errors import SvcagentError, Unreachable
from agent.reload.journal import Journal
from agent.reload.probe import Prober
from agent.reload.record import StepEvent

RESTORE_SECONDS = 60.0
"""How long a step that restores an instance retries if a server does not answer."""
RETRY_SECONDS = 0.5

FOREIGN_ATTEMPTS = 3
"""How often a step is tried that raises an exception of an unexpected type."""


def retry_while_unreachable(clock: Clock, action: Callable[[], object]) -> None:
    """Retry while the server is unreachable, and a few times after an exception of an unexpected type.

    `Exception` is caught because one malformed answer must not keep an instance out of service; finally it is raised.
    """
    deadline: Deadline | None = None
    surprises = 0
    while True:
        try:
            action()
        except Unreachable:
            deadline = deadline or Deadline.after(clock, RESTORE_SECONDS)
            if deadline.is_over:
                raise
        except SvcagentError:
            raise
        except Exception:
            surprises += 1
            if surprises == FOREIGN_ATTEMPTS:
                raise
        else:
            return
        clock.sleep(RETRY_SECONDS)


@dataclass(frozen=True)
class Dependencies:
    """``drain_dns``: the DNS servers, ``(address, port)``, that clients ask; ``environ``: svcagent's own environment.

    ``trusts_pins``: any digest that is pinned in Consul KV is taken (``[fleet] trust_pins``). ``shares_log_tails``: the
    last output of a failed container or command may be written to Consul KV and notifications.
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
    report_event: Callable[[StepEvent], None]
    report_pull: Callable[[PullProgress], None]
    trusts_pins: bool = False
    shares_log_tails: bool = False
