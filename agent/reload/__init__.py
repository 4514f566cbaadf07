"""One host's reload of one service: pure steps, the guard, and the executor that carries the steps out."""

from agent.reload.execute import Edges, Executor
from agent.reload.guard import Obstacle, find_obstacles
from agent.reload.host_lock import HostLock
from agent.reload.probe import Prober
from agent.reload.record import Event, Phase, Result
from agent.reload.steps import State, Step, next_step

__all__ = [
    "Edges",
    "Event",
    "Executor",
    "HostLock",
    "Obstacle",
    "Phase",
    "Prober",
    "Result",
    "State",
    "Step",
    "find_obstacles",
    "next_step",
]
