"""The only room that speaks to Consul: agent, catalog, health, KV, sessions and locks, Consul DNS."""

from agent.consul.client import Consul
from agent.consul.dns import DnsAnswer, ask_dns
from agent.consul.lock import Lock
from agent.consul.lock_leftovers import give_back_dead, own_sessions
from agent.consul.lock_names import queue_of
from agent.consul.model import (
    NODE_MAINTENANCE,
    SERVICE_MAINTENANCE,
    AgentSelf,
    CheckState,
    Instance,
    KvPair,
    LocalService,
)

__all__ = [
    "NODE_MAINTENANCE",
    "SERVICE_MAINTENANCE",
    "AgentSelf",
    "CheckState",
    "Consul",
    "DnsAnswer",
    "Instance",
    "KvPair",
    "LocalService",
    "Lock",
    "ask_dns",
    "give_back_dead",
    "own_sessions",
    "queue_of",
]
