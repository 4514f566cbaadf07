"""Converging the local agent's services to services.d/: observe → plan → apply."""

from agent.registration.apply import apply_plan, renew_checks_as_passing
from agent.registration.plan import Action, Change, is_current, is_own, make_plan, make_removal, registration

__all__ = [
    "Action",
    "Change",
    "apply_plan",
    "is_current",
    "is_own",
    "make_plan",
    "make_removal",
    "registration",
    "renew_checks_as_passing",
]
