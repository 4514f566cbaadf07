"""Bring the services of the local Consul agent in line with services.d/: observe → plan → apply."""

from agent.registration.apply import CollectedFailures, Failure, apply_change, renew_checks
from agent.registration.consent import ConsentNeeded, Objection
from agent.registration.driver import Registration, exclusive_registration, observe, refuse_unknown_nodes
from agent.registration.last_seen import LAST_SEEN_FILE, LastSeen, LastSeenFile
from agent.registration.mark import is_own, registration
from agent.registration.plan import AgentState, Change, ChangeAction, is_current, make_plan, make_removal
from agent.registration.requirements import unmet_requirements
