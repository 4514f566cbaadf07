"""The documents that hosts share about a service, read at one moment."""

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime

from agent.consul import Consul
from agent.data import dataclass
from agent.definitions.reload import OWN_PREFIX
from agent.fleet import host_state, pause, quarantine, rollout
from agent.fleet.document import readable_keys
from agent.fleet.host_state import HostState, InstanceKey
from agent.fleet.pause import Pause
from agent.fleet.quarantine import Quarantine
from agent.fleet.rollout import Pin


@dataclass(frozen=True)
class View:
    """The pin (and its index for check-and-set), host states, quarantine by digest, and the pause in force.

    ``hosts`` is by node and service ID. The ID is empty in an earlier release's document.
    """

    pin: Pin | None = None
    pin_index: int = 0
    hosts: Mapping[InstanceKey, HostState] = field(default_factory=dict)
    quarantine: Mapping[str, Quarantine] = field(default_factory=dict)
    pause: Pause | None = None


def observe(consul: Consul, service: str, now: datetime) -> View:
    """Read all documents from the leader, with one request per kind.

    One recursive read below ``svcagent/<service>/`` would include every host's history and the lock's queue: megabytes
    in a large fleet. Also, Consul refuses a key that the token may not read, but silently omits it from a tree.
    """
    found, index = rollout.find(consul, service)
    return View(
        pin=found,
        pin_index=index,
        hosts=host_state.read_all(consul, service),
        quarantine=quarantine.read_all(consul, service),
        pause=pause.find(consul, service, now),
    )


def is_known(consul: Consul, service: str) -> bool:
    """True if any host has written a document about a service of this name."""
    return any(consul.kv_keys(prefix, "/") for prefix in readable_keys(service, ""))


def services(consul: Consul) -> tuple[str, ...]:
    """Return the lower-case names of all services with documents, as far as the token may see them.

    The shipped policy has a rule per service.
    """
    found = (one for one in consul.kv_keys(f"{OWN_PREFIX}/", "/", partly=True) if one.endswith("/"))
    return tuple(sorted({one.removeprefix(f"{OWN_PREFIX}/").rstrip("/").lower() for one in found}))
