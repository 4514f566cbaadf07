"""The local Consul agent's API, as far as svcagent needs it, in its own types.

Every method raises `ConsulUnreachable` (nothing known), `OutcomeUnknown` (a write without an answer), `Denied` or
`Rejected`; nothing is told by a return value of False.
"""

import json
from typing import Any
from urllib.parse import urlsplit

import consul.base

from agent.consul.model import SERVICE_MAINTENANCE, AgentSelf, CheckState, Instance, KvPair, LocalService
from agent.consul.transport import Api, Transport
from agent.definitions import ConsulSettings
from agent.errors import NotFound

_json = consul.base.CB.json(index=False)
_json_indexed = consul.base.CB.json(index=True)


class Consul:
    """One connection to the local agent. Not for use by two threads at once: see `another`."""

    def __init__(self, settings: ConsulSettings) -> None:
        self._settings = settings
        self._transport = Transport(settings)
        self._api = Api(self._transport)

    def another(self) -> "Consul":
        """A second connection to the same agent, for another thread."""
        return Consul(self._settings)

    def close(self) -> None:
        """Give the connection back."""
        self._transport.session.close()

    # ------------------------------------------------------------ the agent

    def agent_self(self) -> AgentSelf:
        """Who the local agent is. Its DNS address is the one it listens on, or its HTTP address where that is any."""
        raw = self._transport.get(_json, "/v1/agent/self")
        debug = raw["DebugConfig"]
        return AgentSelf(
            node=raw["Config"]["NodeName"],
            datacenter=raw["Config"]["Datacenter"],
            domain=debug["DNSDomain"].strip(".") or "consul",
            dns=_dns_address(debug.get("DNSAddrs") or [], self._settings.address),
            version=raw["Config"]["Version"],
            address=debug.get("AdvertiseAddrLAN") or raw["Member"]["Addr"],
            is_running_scripts=bool(debug.get("EnableRemoteScriptChecks")),
        )

    def services(self) -> dict[str, LocalService]:
        """Every service of the local agent by id, each with its checks."""
        return self.services_and_checks()[0]

    def services_and_checks(self) -> tuple[dict[str, LocalService], dict[str, CheckState]]:
        """Every service of the local agent by id, each with its checks; and every check by id, the node's as well."""
        raw_services = self._transport.get(_json, "/v1/agent/services")
        checks = self.checks()
        by_service: dict[str, list[CheckState]] = {}
        for check in checks.values():
            by_service.setdefault(check.service_id or _maintained(check), []).append(check)
        services = {
            raw["ID"]: LocalService(
                id=raw["ID"],
                name=raw["Service"],
                tags=tuple(raw["Tags"] or ()),
                port=raw["Port"],
                address=raw["Address"],
                meta=raw["Meta"] or {},
                checks=tuple(by_service.get(raw["ID"], ())),
                weights=_weights(raw.get("Weights")),
                tagged_addresses={
                    name: (tagged["Address"], tagged.get("Port") or 0)
                    for name, tagged in (raw.get("TaggedAddresses") or {}).items()
                },
                is_tag_override_enabled=bool(raw.get("EnableTagOverride")),
            )
            for raw in raw_services.values()
        }
        return services, checks

    def checks(self) -> dict[str, CheckState]:
        """Every check of the local agent by id, maintenance included."""
        raw = self._transport.get(_json, "/v1/agent/checks")
        return {check_id: CheckState.parse(check) for check_id, check in raw.items()}

    def register_service(self, body: dict[str, Any]) -> None:
        """Create or update a service, keeping its maintenance.

        ``replace-existing-checks`` would delete the maintenance check with the others (Consul 1.8), so it is never
        sent: the caller deregisters checks that are no longer wanted one by one.
        """
        self._transport.put(_json_or_nothing, "/v1/agent/service/register", data=json.dumps(body))

    def deregister_service(self, service_id: str) -> None:
        """Take a service away with its checks; not there is fine."""
        self._transport.put(_json_or_nothing, f"/v1/agent/service/deregister/{service_id}")

    def register_check(self, body: dict[str, Any]) -> None:
        """Create or update one check."""
        self._transport.put(_json_or_nothing, "/v1/agent/check/register", data=json.dumps(body))

    def deregister_check(self, check_id: str) -> None:
        """Take a check away; not there is fine."""
        self._transport.put(_json_or_nothing, f"/v1/agent/check/deregister/{check_id}")

    def enable_maintenance(self, service_id: str, reason: str) -> None:
        """Take a service out. Consul keeps the first reason when it is out already: read it back.

        :raises NotFound: the service is not registered here.
        """
        if not self._api.agent.service.maintenance(service_id, "true", reason=reason):
            raise NotFound(f"service {service_id} is not registered on this host; run: svcagent register")

    def disable_maintenance(self, service_id: str) -> None:
        """Put a service back. Consul does not ask whose maintenance it is: the caller must have.

        :raises NotFound: the service is not registered here.
        """
        if not self._api.agent.service.maintenance(service_id, "false"):
            raise NotFound(f"service {service_id} is not registered on this host; run: svcagent register")

    def enable_node_maintenance(self, reason: str) -> None:
        """Take every service of this host out."""
        self._api.agent.maintenance("true", reason=reason)

    def disable_node_maintenance(self) -> None:
        """Lift the host's maintenance."""
        self._api.agent.maintenance("false")

    # ------------------------------------------------------------ the catalog

    def instances(self, service: str, index: int | None = None, wait: float = 0.0) -> tuple[int, tuple[Instance, ...]]:
        """All instances of a service, read from the leader. An empty answer may also be a missing ``node:read``.

        With ``index`` (of an earlier answer) it waits up to ``wait`` seconds for a change.
        """
        params: list[tuple[str, Any]] = [("consistent", "1")]
        if index is not None:
            params += [("index", index), ("wait", _wait(wait))]
        new_index, raw = self._transport.get(_json_indexed, f"/v1/health/service/{service}", params)
        return int(new_index), tuple(Instance.parse(entry) for entry in raw or ())

    def is_node_known(self, node: str) -> bool:
        """Is there a node of this name in the catalog of the agent's own datacenter?"""
        raw = self._transport.get(_json, f"/v1/catalog/node/{node}")
        return bool(raw)

    # ------------------------------------------------------------ KV and sessions

    def kv_get(
        self, key: str, index: int | None = None, wait: float = 0.0, *, consistent: bool = False
    ) -> tuple[int, KvPair | None]:
        """A key, or None. With ``index`` (of an earlier answer) it waits up to ``wait`` seconds for a change."""
        new_index, raw = self._api.kv.get(
            key, index=index, wait=_wait(wait), consistency="consistent" if consistent else None
        )
        if raw is None:
            return int(new_index), None
        return int(new_index), KvPair(
            key=raw["Key"],
            value=raw["Value"] or b"",
            flags=raw["Flags"],
            session=raw.get("Session"),
            modify_index=raw["ModifyIndex"],
        )

    def kv_put(self, key: str, value: str, **how: Any) -> bool:
        """Write a key. ``how``: ``flags``, and ``cas``, ``acquire`` or ``release``, whose refusal is False."""
        return bool(self._api.kv.put(key, value, **how))

    def kv_delete(self, key: str, cas: int | None = None) -> bool:
        """Delete a key; with ``cas`` only if it was not modified since that index, False if it was."""
        return bool(self._api.kv.delete(key, cas=cas))

    def create_session(self, name: str, ttl: int) -> str:
        """A session that lives as long as it is renewed every ``ttl`` seconds (it may take twice that to die).

        It is bound to no check: a flapping node check would end it in the middle of a reload.
        """
        return str(self._api.session.create(name=name, checks=[], ttl=ttl))

    def renew_session(self, session: str) -> bool:
        """Keep a session alive; False if it exists no more."""
        raw = self._transport.put(_json, f"/v1/session/renew/{session}")
        return bool(raw)

    def destroy_session(self, session: str) -> None:
        """End a session; gone already is fine."""
        self._api.session.destroy(session)

    def session_holder(self, session: str) -> str | None:
        """``name on node`` of a session, or None if it exists no more."""
        raw = self._transport.get(_json, f"/v1/session/info/{session}")
        return f"{raw[0]['Name'] or 'a session'} on {raw[0]['Node']}" if raw else None


def _json_or_nothing(response: Any) -> None:
    """The agent's writes answer with an empty body."""


def _weights(raw: dict[str, int] | None) -> tuple[int, int]:
    return (raw["Passing"], raw["Warning"]) if raw else (1, 1)


def _wait(seconds: float) -> str:
    """Consul takes a wait of nothing for its default of five minutes."""
    return f"{max(seconds, 0.001):.3f}s"


def _maintained(check: CheckState) -> str:
    """The id of the service that a maintenance check holds out; its ServiceID is set on some agents only."""
    return check.id.removeprefix(SERVICE_MAINTENANCE) if check.id.startswith(SERVICE_MAINTENANCE) else ""


def _dns_address(listening: list[str], http_address: str) -> tuple[str, int] | None:
    """Where the agent's DNS can be asked over TCP, from ``DNSAddrs`` (``tcp://127.0.0.1:8600``, ``udp://…``)."""
    for entry in listening:
        parts = urlsplit(entry)
        if parts.scheme == "tcp" and parts.hostname and parts.port:
            host = parts.hostname
            if host in ("0.0.0.0", "::"):  # noqa: S104  # compared with, not bound to
                host = urlsplit(http_address).hostname or "127.0.0.1"
            return host, parts.port
    return None
