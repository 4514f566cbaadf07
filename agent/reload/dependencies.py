"""The clients and settings that one reload uses."""

from collections.abc import Callable, Mapping
from pathlib import Path

from agent.clock import Clock, Deadline, Interrupts
from agent.consul import AgentSelf, Consul
from agent.data import dataclass
from agent.definitions import ReloadSection, Service
from agent.engine.client import Engine
from agent.engine.model import PullProgress
from agent.errors import SvcagentError, Unreachable
from agent.reload.checks import CheckedInstance
from agent.reload.journal import Journal, JournalEntry, JournalRecord
from agent.reload.probe import Prober
from agent.reload.progress import Progress
from agent.reload.record import StepEvent
from agent.reload.restart import Restarter, restarter

RESTORE_SECONDS = 60.0
"""How long a step that restores an instance retries if a server does not answer."""
RETRY_SECONDS = 0.5

UNEXPECTED_ATTEMPTS = 3
"""How often a step is tried that raises an exception of an unexpected type."""


def retry_while_unreachable(clock: Clock, action: Callable[[], object]) -> None:
    """Retry while the server is unreachable, and a few times after an exception of an unexpected type.

    `Exception` is caught because one malformed answer must not keep an instance out of service; finally it is raised.
    """
    deadline: Deadline | None = None
    unexpected = 0
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
            unexpected += 1
            if unexpected == UNEXPECTED_ATTEMPTS:
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


@dataclass(frozen=True)
class ReloadContext:
    """What the parts of one reload or recovery, on one host, of one service share."""

    service: Service
    section: ReloadSection
    deps: Dependencies
    progress: Progress
    entry: JournalEntry
    restarter: Restarter

    @classmethod
    def of(cls, service: Service, section: ReloadSection, deps: Dependencies, record: JournalRecord) -> "ReloadContext":
        progress = Progress(deps.report_event, deps.clock, record.service, record.reload_id)
        entry = JournalEntry(deps.journal, record, progress)
        restart = restarter(section.strategy, service, deps.engine, deps.state_dir, deps.environ, deps.clock)
        return cls(service, section, deps, progress, entry, restart)

    @property
    def instance(self) -> CheckedInstance:
        deps = self.deps
        return CheckedInstance(self.service, self.section, deps.consul, deps.engine, deps.prober, deps.clock)

    def retry(self, action: Callable[[], object]) -> None:
        retry_while_unreachable(self.deps.clock, action)
