"""One host's reload of one service: its steps, the guard, the class `Reload`, and recovery.

Names are loaded on first use (PEP 562): ``register`` looks for journals, and needs the rest only if it finds one.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.reload.edges import Edges
    from agent.reload.guard import Obstacle, find_obstacles
    from agent.reload.host_lock import HostLock, HostReload, lock_files
    from agent.reload.journal import Journal, journalled
    from agent.reload.probe import Prober, probe_status
    from agent.reload.record import Event, Phase, Result
    from agent.reload.recover import Recovery, abandon, find_leftover, read_journal, revive
    from agent.reload.reload import Asked, Reload
    from agent.reload.steps import State, Step, next_step
    from agent.reload.window import verdict, zone

__all__ = [
    "Asked",
    "Edges",
    "Event",
    "HostLock",
    "HostReload",
    "Journal",
    "Obstacle",
    "Phase",
    "Prober",
    "Recovery",
    "Reload",
    "Result",
    "State",
    "Step",
    "abandon",
    "find_leftover",
    "find_obstacles",
    "journalled",
    "lock_files",
    "next_step",
    "probe_status",
    "read_journal",
    "revive",
    "verdict",
    "zone",
]

_MODULES = {
    "edges": ("Edges",),
    "guard": ("Obstacle", "find_obstacles"),
    "host_lock": ("HostLock", "HostReload", "lock_files"),
    "journal": ("Journal", "journalled"),
    "probe": ("Prober", "probe_status"),
    "record": ("Event", "Phase", "Result"),
    "recover": ("Recovery", "abandon", "find_leftover", "read_journal", "revive"),
    "reload": ("Asked", "Reload"),
    "steps": ("State", "Step", "next_step"),
    "window": ("verdict", "zone"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
