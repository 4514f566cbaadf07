"""The only package that calls Consul: agent, catalog, health, KV, sessions, locks and Consul DNS."""

from agent.consul.base import LONGEST_WAIT
from agent.consul.client import Consul
from agent.consul.dns import DnsAnswer, ask_dns, service_dns_name
from agent.consul.failures import ServerFailed
from agent.consul.lock.holder import Holder
from agent.consul.lock.lock import Lock
from agent.consul.lock.queue import queue_of
from agent.consul.lock.session_renewer import SESSION_TTL as SESSION_SECONDS
from agent.consul.lock.status import (
    LockForm,
    LockStatus,
    lock_sessions,
    lock_status,
    own_sessions,
    release_dead_session,
    remove_unheld_lock,
)
from agent.consul.model import (
    NODE_MAINTENANCE,
    SERVICE_MAINTENANCE,
    AgentSelf,
    CheckState,
    Instance,
    KvOperation,
    KvPair,
    LocalService,
    maintenance_check,
    maintenance_check_id,
)
from agent.consul.releases import Release, is_known_since, known_faults
