"""Notifications of rollouts and of CNAME conflicts: which are due, and which the fleet has sent."""
