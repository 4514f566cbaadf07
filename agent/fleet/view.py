"""What hosts have told each other about a service, read at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from agent.consul import Consul
from agent.definitions.reload import OWN_PREFIX
from agent.fleet import host_state, pause, quarantine, rollout
from agent.fleet.document import key
from agent.fleet.host_state import HostState
from agent.fleet.pause import Pause
from agent.fleet.quarantine import Quarantine
from agent.fleet.rollout import Pin


@dataclass(frozen=True)
class View:
    """The pin (and the index to replace it by), host states by node, quarantine by digest, the pause that counts."""

    pin: Pin | None = None
    pin_index: int = 0
    hosts: Mapping[str, HostState] = field(default_factory=dict)
    quarantine: Mapping[str, Quarantine] = field(default_factory=dict)
    pause: Pause | None = None


def observe(consul: Consul, service: str, now: datetime) -> View:
    """Read from the leader: a request for each kind of document.

    One recursive read of all that stands below ``svcagent/<service>/`` would bring every host's history and the
    lock's queue along, megabytes of it on a large fleet. And a key of its own is refused where the token may not
    read it, while a tree is only shorter.
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
    """Has any host told anything about a service of this name?"""
    return bool(consul.kv_keys(key(service, ""), "/"))


def services(consul: Consul) -> tuple[str, ...]:
    """The names of all services about which hosts have told something."""
    found = consul.kv_keys(f"{OWN_PREFIX}/", "/")
    return tuple(one.removeprefix(f"{OWN_PREFIX}/").rstrip("/") for one in found if one.endswith("/"))
