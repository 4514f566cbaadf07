"""What Consul says, as plain frozen data."""

from collections.abc import Collection
from dataclasses import field, replace
from typing import Any

from agent.consul.releases import Release, release_of
from agent.data import dataclass

NODE_HEALTH = "serfHealth"
"""The check by which Consul itself says whether a node's agent is alive."""
NODE_MAINTENANCE = "_node_maintenance"
SERVICE_MAINTENANCE = "_service_maintenance:"


@dataclass(frozen=True)
class CheckState:
    """A check as the agent or the catalog shows it. Its definition cannot be read back from Consul."""

    id: str
    name: str
    status: str
    notes: str
    service_id: str
    output: str = ""
    type: str = ""
    """What runs it: http, tcp, script, …; empty where the agent does not say."""

    @property
    def is_maintenance(self) -> bool:
        """Is this one of the two checks by which Consul's maintenance mode works?"""
        return self.id == NODE_MAINTENANCE or self.id.startswith(SERVICE_MAINTENANCE)

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> "CheckState":
        """From the JSON of /v1/agent/checks or /v1/health/service."""
        return cls(
            id=raw["CheckID"],
            name=raw["Name"],
            status=raw["Status"],
            notes=raw.get("Notes") or "",
            service_id=raw.get("ServiceID") or "",
            output=raw.get("Output") or "",
            type=raw.get("Type") or "",
        )


@dataclass(frozen=True)
class Instance:
    """A service's registration on one host, with all that decides whether clients are sent to it."""

    node: str
    service_id: str
    address: str
    port: int
    checks: tuple[CheckState, ...]

    @property
    def is_passing(self) -> bool:
        """True if ``?passing`` lists it. Maintenance, of service or node, counts as a failing check."""
        return all(check.status == "passing" for check in self.checks)

    @property
    def is_served(self) -> bool:
        """True if clients are sent to it: no check of it or of its node is critical, and no maintenance is on.

        Consul DNS returns instances in warning. Only ``?passing`` and ``only_passing`` leave them out.
        """
        return not any(check.is_maintenance or check.status == "critical" for check in self.checks)

    @property
    def is_node_dead(self) -> bool:
        """True if Consul's own check of the node says that its agent has failed."""
        return any(check.id == NODE_HEALTH and check.status == "critical" for check in self.checks)

    @property
    def maintenance(self) -> CheckState | None:
        """The check that holds it out of service: the service's own maintenance, else its node's."""
        held = [check for check in self.checks if check.is_maintenance]
        return min(held, key=lambda check: check.id == NODE_MAINTENANCE, default=None)

    def without_maintenance(self, reasons: Collection[str]) -> "Instance":
        """Return the instance as it would be without the maintenances that have one of these reasons."""
        return replace(
            self,
            checks=tuple(one for one in self.checks if not (one.is_maintenance and one.notes in reasons)),
        )

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> "Instance":
        """From one entry of /v1/health/service."""
        service, node = raw["Service"], raw["Node"]
        return cls(
            node=node["Node"],
            service_id=service["ID"],
            address=service["Address"] or node["Address"],
            port=service["Port"],
            checks=tuple(CheckState.parse(check) for check in raw["Checks"]),
        )


@dataclass(frozen=True)
class LocalService:
    """A service as the local agent holds it."""

    id: str
    name: str
    tags: tuple[str, ...]
    port: int
    address: str
    meta: dict[str, str]
    checks: tuple[CheckState, ...] = field(default=())
    weights: tuple[int, int] = (1, 1)
    """Passing, warning."""
    ports: tuple[tuple[str, int, bool], ...] = ()
    """Name, port, and whether clients that name none get it; empty for a service with one port (Consul before 1.22)."""
    tagged_addresses: dict[str, tuple[str, int]] = field(default_factory=dict)
    is_tag_override_enabled: bool = False

    @property
    def maintenance(self) -> CheckState | None:
        """The service's own maintenance check."""
        return next((check for check in self.checks if check.is_maintenance), None)

    @property
    def real_checks(self) -> tuple[CheckState, ...]:
        """Its checks without maintenance."""
        return tuple(check for check in self.checks if not check.is_maintenance)


@dataclass(frozen=True)
class AgentSelf:
    """The local agent: who it is, and where its DNS answers. ``dns`` is ``(address, port)``, None when switched off.

    ``address`` is the one that it tells others, and that its services have unless they name one.
    """

    node: str
    datacenter: str
    domain: str
    dns: tuple[str, int] | None
    version: str
    address: str = ""
    is_running_scripts: bool = False
    """Does it take script checks through its API?"""
    is_tls_used_for_checks: bool = False
    """True if checks use the agent's own certificate and authority (``enable_agent_tls_for_checks``)."""

    @property
    def release(self) -> Release:
        """The version as numbers, ``(1, 8, 7)``; what follows them (``-dev``, ``+ent``) is left out."""
        return release_of(self.version)


@dataclass(frozen=True)
class KvPair:
    """A key of Consul's KV store. ``session`` is the id of the session that holds it as a lock, if any."""

    key: str
    value: bytes
    flags: int
    session: str | None
    modify_index: int
    create_index: int
    """Greater with every key made, whoever makes it: an order that needs no clock."""


@dataclass(frozen=True)
class KvOperation:
    """One part of a transaction. ``verb`` is Consul's: lock, cas, delete, delete-cas, check-session."""

    verb: str
    key: str
    value: str | None = None
    flags: int | None = None
    index: int | None = None
    session: str | None = None


@dataclass(frozen=True)
class Session:
    """A session: its id, the name its maker gave it, and the node whose agent made it."""

    id: str
    name: str
    node: str
