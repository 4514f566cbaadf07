"""Parse ``services.d/*.json`` and settings into frozen models, or report all their faults together.

This package does not communicate with Consul, Docker or DNS.
"""

from agent.definitions.checks import Check
from agent.definitions.cname import MARKERS, WILDCARD, Cname, complete, record_name, zone_finding
from agent.definitions.document import Definition, find_definition
from agent.definitions.faults import InvalidValue, untrusted
from agent.definitions.interpolate import ADDRESS, EXAMPLE_ADDRESS, reference_values
from agent.definitions.load import Loaded, definition_files, load, load_valid
from agent.definitions.name_conflicts import find_name_conflicts
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
from agent.definitions.service import Service
from agent.definitions.settings import ConsulSettings, DnsSettings, Settings
from agent.definitions.values import Secret, is_addressable
from agent.definitions.windows import Window
