"""What the files say: ``services.d/*.json`` and settings as frozen models, or all their faults at once.

Nothing here speaks to Consul, Docker or DNS.
"""

from agent.definitions.checks import Check
from agent.definitions.cname import MARKERS, WILDCARD, Cname, complete, misplaced, record_name
from agent.definitions.document import Definition
from agent.definitions.faults import Wrong
from agent.definitions.interpolate import ADDRESS, ENVIRONMENT, HOSTNAME
from agent.definitions.load import load
from agent.definitions.reload import Drain, MinHealthy, Ready, Reload
from agent.definitions.schema import schema
from agent.definitions.service import Service, TaggedAddress, Weights
from agent.definitions.settings import ConsulSettings, DnsSettings, DockerSettings, Settings

__all__ = [
    "ADDRESS",
    "ENVIRONMENT",
    "HOSTNAME",
    "MARKERS",
    "WILDCARD",
    "Check",
    "Cname",
    "ConsulSettings",
    "Definition",
    "DnsSettings",
    "DockerSettings",
    "Drain",
    "MinHealthy",
    "Ready",
    "Reload",
    "Service",
    "Settings",
    "TaggedAddress",
    "Weights",
    "Wrong",
    "complete",
    "load",
    "misplaced",
    "record_name",
    "schema",
]
