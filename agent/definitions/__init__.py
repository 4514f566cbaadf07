"""Parse ``services.d/*.json`` and settings into frozen models, or report all their faults together.

This package does not communicate with Consul, Docker or DNS.
"""

from agent.definitions.checks import Check
from agent.definitions.claims import clashes
from agent.definitions.cname import MARKERS, WILDCARD, Cname, complete, misplaced, record_name
from agent.definitions.document import Definition, defining
from agent.definitions.examine import Examined, examine, read
from agent.definitions.faults import Wrong, untrusted
from agent.definitions.interpolate import ADDRESS, ANY_ADDRESS, HOSTNAME, values_of
from agent.definitions.load import Loaded, files_of, load, load_good
from agent.definitions.reload import (
    PULL_SECONDS,
    CommandRestart,
    ContainerRestart,
    Drain,
    Hooks,
    MinHealthy,
    Ready,
    Reload,
    Settle,
    Strategy,
)
from agent.definitions.schema import schema
from agent.definitions.service import Service, TaggedAddress, Weights
from agent.definitions.settings import ConsulSettings, DnsSettings, DockerSettings, Settings
from agent.definitions.values import Secret
from agent.definitions.windows import Window

__all__ = [
    "ADDRESS",
    "ANY_ADDRESS",
    "HOSTNAME",
    "MARKERS",
    "PULL_SECONDS",
    "WILDCARD",
    "Check",
    "Cname",
    "CommandRestart",
    "ConsulSettings",
    "ContainerRestart",
    "Definition",
    "DnsSettings",
    "DockerSettings",
    "Drain",
    "Examined",
    "Hooks",
    "Loaded",
    "MinHealthy",
    "Ready",
    "Reload",
    "Secret",
    "Service",
    "Settings",
    "Settle",
    "Strategy",
    "TaggedAddress",
    "Weights",
    "Window",
    "Wrong",
    "clashes",
    "complete",
    "defining",
    "examine",
    "files_of",
    "load",
    "load_good",
    "misplaced",
    "read",
    "record_name",
    "schema",
    "untrusted",
    "values_of",
]
