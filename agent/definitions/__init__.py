"""Parse ``services.d/*.json`` and settings into frozen models, or report all their faults together.

This package does not communicate with Consul, Docker or DNS.
"""

from agent.definitions.checks import Check
from agent.definitions.cname import MARKERS, WILDCARD, Cname, complete, misplaced, record_name
from agent.definitions.document import Definition, defining
from agent.definitions.faults import Wrong, untrusted
from agent.definitions.interpolate import ADDRESS, ANY_ADDRESS, HOSTNAME, values_of
from agent.definitions.load import Loaded, files_of, load, load_good
from agent.definitions.name_conflicts import clashes
from agent.definitions.parse_file import ParsedFile, parse_file, read
from agent.definitions.reload import (
    PULL_SECONDS,
    CommandRestart,
    ContainerRestart,
    Drain,
    Hooks,
    MinHealthy,
    Ready,
    ReloadSection,
    Settle,
    Strategy,
)
from agent.definitions.schema import schema
from agent.definitions.service import Service, TaggedAddress, Weights
from agent.definitions.settings import ConsulSettings, DnsSettings, DockerSettings, Settings
from agent.definitions.values import Secret, is_addressable
from agent.definitions.windows import Window
