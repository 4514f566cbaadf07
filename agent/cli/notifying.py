"""Where ``reload`` and ``cname sync`` hand over to those who tell people; with no ``[notify] urls`` nothing is done.

This module imports none of it: most hosts tell nobody.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from agent.cli import wiring
from agent.clock import Interrupts
from agent.consul import Consul
from agent.definitions import Definition, Settings

if TYPE_CHECKING:
    from agent.cli.cname_wiring import Site
    from agent.cname import Result

NotifyBegun: TypeAlias = Callable[[Consul], None]
"""To be called when a reload has found something to take."""


@contextmanager
def rollout_told(
    settings: Settings, definition: Definition, interrupts: Interrupts, *, is_off: bool
) -> Iterator[NotifyBegun]:
    """Around a reload and its locks: the rest that people should know of the rollout is sent after the block.

    ``is_off``: nothing is told.
    """
    if is_off or not settings.notify.urls:
        yield lambda _consul: None
        return
    from agent.cli.telling import Teller

    with Teller(settings, definition, interrupts) as teller:
        yield teller.reload_begins


def conflicts_told(here: "Site", results: Sequence["Result"]) -> None:
    """People are told of records that cannot be kept as a definition says."""
    if wiring.settings().notify.urls:
        from agent.cli.cname_telling import tell_conflicts

        tell_conflicts(here, results)
