"""The documents that hosts share through Consul KV under ``svcagent/<service>/``, one module each.

``quarantine``, ``pause``, ``rollout`` (the pin), ``host_state``, ``history`` and ``claim`` (of a CNAME) read and write
their documents. `observe` reads what a decision needs; `decide` and `agree` choose the digest that a host takes.
"""

from agent.fleet import cname_conflicts, history, host_state, pause, quarantine, rollout, suspect
from agent.fleet.agree import HostProgress, VersionAction, VersionDecision, agree, decide, progress
from agent.fleet.departed import remove_departed, remove_old_claims
from agent.fleet.history import Past
from agent.fleet.host_state import HostState, HostStatus, InstanceKey, note_running, state_of, write_host_state
from agent.fleet.pause import Pause
from agent.fleet.quarantine import Quarantine
from agent.fleet.rollout import Pin
from agent.fleet.seen import SeenDigests
from agent.fleet.suspect import alive_sessions, find_suspects, is_first, suspects
from agent.fleet.view import FleetView, is_known, observe, services
from agent.fleet.watch import FleetSnapshot, FleetWatch
