"""What hosts tell each other through Consul KV, under ``svcagent/<service>/``: a module for each document.

``quarantine``, ``pause``, ``rollout`` (the pin), ``host_state``, ``history`` and ``claim`` (a CNAME's) read and write
theirs; `observe` reads what a decision needs, and `decide` and `agree` say which digest a host takes.
"""

from agent.fleet import claim, history, host_state, pause, quarantine, rollout
from agent.fleet.agree import Action, Decision, Progress, agree, decide, progress
from agent.fleet.history import Past
from agent.fleet.host_state import HostStanding, HostState, tell_running, write_host_state
from agent.fleet.pause import Pause
from agent.fleet.quarantine import Quarantine
from agent.fleet.rollout import Pin
from agent.fleet.view import View, is_known, observe, services
from agent.fleet.watch import Seen, Watch

__all__ = [
    "Action",
    "Decision",
    "HostStanding",
    "HostState",
    "Past",
    "Pause",
    "Pin",
    "Progress",
    "Quarantine",
    "Seen",
    "View",
    "Watch",
    "agree",
    "claim",
    "decide",
    "history",
    "host_state",
    "is_known",
    "observe",
    "pause",
    "progress",
    "quarantine",
    "rollout",
    "services",
    "tell_running",
    "write_host_state",
]
