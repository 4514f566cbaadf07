"""Notifications of ``reload`` and ``cname sync``; without ``[notify] urls`` they do nothing.

This module imports the implementation only when needed: most hosts do not notify anybody.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from agent.cli import context
from agent.clock import Interrupts
from agent.consul import Consul
from agent.definitions import Definition, Settings

if TYPE_CHECKING:
    from agent.cli.cname_wiring import Site
    from agent.cname import SyncResult

NotifyBegun: TypeAlias = Callable[[Consul], None]
"""Called when a reload has found a version to take."""


@contextmanager
def rollout_notified(
    settings: Settings, definition: Definition, interrupts: Interrupts, *, is_off: bool
) -> Iterator[NotifyBegun]:
    """Enclose a reload and its locks: notifications about the rollout that are still due are sent after the block.

    ``is_off`` disables them.
    """
    if is_off or not settings.notify.urls:
        yield lambda _consul: None
        return
    from agent.cli.rollout_notifier import RolloutNotifier

    with RolloutNotifier(settings, definition, interrupts) as notifier:
        yield notifier.reload_begins


def notify_of_conflicts(here: "Site", results: Sequence["SyncResult"]) -> None:
    """Notify of records that cannot be kept as a definition says."""
    if context.settings().notify.urls:
        from agent.cli.cname_telling import notify_conflicts

        notify_conflicts(here, results)
