"""Consul's objects as frozen dataclasses."""

import base64
from collections.abc import Collection, Sequence
from dataclasses import field, replace
from typing import Any
from urllib.parse import urlsplit

from agent.consul.releases import Release, release_of
from agent.data import dataclass

NODE_HEALTH = "serfHealth"
"""The check by which Consul reports whether a node's agent is alive."""
NODE_MAINTENANCE = "_node_maintenance"
SERVICE_MAINTENANCE = "_service_maintenance:"
NEVER = "87600h"
"""The TTL of a maintenance check that svcagent registers. It never expires in practice, so Consul logs no expiry."""


def maintenance_check_id(service_id: str) -> str:
    """Return the ID of the check with which Consul holds a service, or the node (""), in maintenance."""
    return f"{SERVICE_MAINTENANCE}{service_id}" if service_id else NODE_MAINTENANCE


def maintenance_check(service_id: str, reason: str) -> dict[str, Any]:
    """Return that check as Consul's API takes it, without the ID, whose spelling differs between calls.

    Consul recognises maintenance by the check ID alone, so every tool can disable it (measured on 1.8.7). A check needs
    a type to be registered, so a TTL.
    """
    name = f"{'Service' if service_id else 'Node'} Maintenance Mode"
    return {"Name": name, "Notes": reason, "Status": "critical", "TTL": NEVER}


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
    """What runs the check: http, tcp, script, …; empty if the agent does not say."""

    @property
    def is_maintenance(self) -> bool:
        """True for the two checks by which Consul implements maintenance mode."""
        return self.id == NODE_MAINTENANCE or self.id.startswith(SERVICE_MAINTENANCE)

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> "CheckState":
        """Parse the JSON of /v1/agent/checks or /v1/health/service."""
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
    """A service's registration on one host, with everything that decides whether clients are sent to it."""

    node: str
    service_id: str
    address: str
    port: int
    checks: tuple[CheckState, ...]

    @property
    def is_passing(self) -> bool:
        """True if ``?passing`` lists it. Maintenance of the service or node counts as a failing check."""
        return all(check.status == "passing" for check in self.checks)

    @property
    def is_served(self) -> bool:
        """True if clients are sent to it: no check of it or of its node is critical, and no maintenance is on.

        Consul DNS returns instances in warning; only ``?passing`` and ``only_passing`` omit them.
        """
        return not any(check.is_maintenance or check.status == "critical" for check in self.checks)

    @property
    def is_node_dead(self) -> bool:
        """True if Consul's own check of the node reports that its agent has failed."""
        return any(check.id == NODE_HEALTH and check.status == "critical" for check in self.checks)

    @property
    def maintenance(self) -> CheckState | None:
        """Return the active maintenance check: the service's own, else its node's."""
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
        """Parse one entry of /v1/health/service."""
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
    """Name, port, default. Empty for a service with one port (always before Consul 1.22)."""
    tagged_addresses: dict[str, tuple[str, int]] = field(default_factory=dict)
    is_tag_override_enabled: bool = False

    @classmethod
    def parse(cls, raw: dict[str, Any], checks: Sequence[CheckState]) -> "LocalService":
        """Parse one entry of /v1/agent/services. ``checks`` are the service's own."""
        weights = raw.get("Weights")
        return cls(
            id=raw["ID"],
            name=raw["Service"],
            tags=tuple(raw.get("Tags") or ()),
            port=raw["Port"],
            address=raw.get("Address") or "",
            meta=raw.get("Meta") or {},
            checks=tuple(checks),
            weights=(weights["Passing"], weights["Warning"]) if weights else (1, 1),
            ports=tuple((one["Name"], one["Port"], bool(one.get("Default"))) for one in raw.get("Ports") or ()),
            tagged_addresses={
                name: (tagged["Address"], tagged.get("Port") or 0)
                for name, tagged in (raw.get("TaggedAddresses") or {}).items()
            },
            is_tag_override_enabled=bool(raw.get("EnableTagOverride")),
        )

    @property
    def maintenance(self) -> CheckState | None:
        return next((check for check in self.checks if check.is_maintenance), None)

    @property
    def real_checks(self) -> tuple[CheckState, ...]:
        return tuple(check for check in self.checks if not check.is_maintenance)


@dataclass(frozen=True)
class AgentSelf:
    """The local agent. ``dns`` is its DNS server's ``(address, port)``, None if it is disabled.

    ``address`` is the one that it advertises, and its services' default.
    """

    node: str
    datacenter: str
    domain: str
    dns: tuple[str, int] | None
    version: str
    address: str = ""
    is_running_scripts: bool = False
    """True if the agent accepts script checks through its API."""
    is_tls_used_for_checks: bool = False
    """True if checks use the agent's own certificate and CA (``enable_agent_tls_for_checks``)."""
    is_server: bool = False
    leaves_on_terminate: bool = False
    has_coordinates: bool = True
    """True if the servers keep its network coordinate."""

    @classmethod
    def parse(cls, raw: dict[str, Any], http_address: str) -> "AgentSelf":
        """Parse /v1/agent/self. A wildcard DNS address is replaced by the host of ``http_address``."""
        config, debug = raw["Config"], raw["DebugConfig"]
        # Since 1.12, enable_agent_tls_for_checks is in a TLS section, before that at the top.
        tls = debug.get("EnableAgentTLSForChecks") or (debug.get("TLS") or {}).get("EnableAgentTLSForChecks")
        return cls(
            node=config["NodeName"],
            datacenter=config["Datacenter"],
            domain=debug["DNSDomain"].strip(".") or "consul",
            dns=_dns_address(debug.get("DNSAddrs") or [], http_address),
            version=config["Version"],
            address=debug.get("AdvertiseAddrLAN") or (raw.get("Member") or {}).get("Addr") or "",
            is_running_scripts=bool(debug.get("EnableRemoteScriptChecks")),
            is_tls_used_for_checks=bool(tls),
            is_server=bool(debug.get("ServerMode")),
            leaves_on_terminate=bool(debug.get("LeaveOnTerm")),
            has_coordinates=not debug.get("DisableCoordinates"),
        )

    @property
    def release(self) -> Release:
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
    """Greater for every later key of any client: an order that needs no clock."""

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> "KvPair":
        return cls(
            key=raw["Key"],
            value=base64.b64decode(raw.get("Value") or ""),
            flags=raw["Flags"],
            session=raw.get("Session"),
            modify_index=raw["ModifyIndex"],
            create_index=raw["CreateIndex"],
        )


@dataclass(frozen=True)
class KvOperation:
    """One operation of a transaction. ``verb`` is Consul's: lock, cas, delete, delete-cas, check-session."""

    verb: str
    key: str
    value: str | None = None
    flags: int | None = None
    index: int | None = None
    session: str | None = None


@dataclass(frozen=True)
class Session:
    """A session, its name, and the node whose agent created it."""

    id: str
    name: str
    node: str

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> "Session":
        return cls(raw["ID"], raw.get("Name") or "", raw["Node"])


def _dns_address(listening: list[str], http_address: str) -> tuple[str, int] | None:
    """Return the agent's DNS address over TCP, from ``DNSAddrs`` (``tcp://127.0.0.1:8600``, ``udp://…``)."""
    for entry in listening:
        parts = urlsplit(entry)
        if parts.scheme == "tcp" and parts.hostname and parts.port:
            host = parts.hostname
            if host in ("0.0.0.0", "::"):  # noqa: S104  # compared with, not bound to
                host = urlsplit(http_address).hostname or "127.0.0.1"
            return host, parts.port
    return None
