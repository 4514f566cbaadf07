"""The local agent: its services, checks and maintenance."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from agent.consul import answers
from agent.consul.base import ConsulApi, checked, is_found, parsed, wait_text
from agent.consul.failures import ServerFailed
from agent.consul.model import (
    SERVICE_MAINTENANCE,
    AgentSelf,
    CheckState,
    LocalService,
    maintenance_check,
    maintenance_check_id,
)
from agent.errors import Denied, NotFound
from agent.http import HttpAnswer


class AgentApi(ConsulApi):
    def agent_self(self) -> AgentSelf:
        """Return the local agent's facts. A wildcard DNS address is replaced by the host of the HTTP address."""
        parse = parsed(partial(AgentSelf.parse, http_address=self._settings.address), answers.SELF)
        found = self._transport.get(parse, "/v1/agent/self")
        self._transport.failures.node = found.node
        return found

    def services(self, expected: Mapping[str, str] | None = None) -> dict[str, LocalService]:
        return self.services_and_checks(expected)[0]

    def services_and_checks(
        self, expected: Mapping[str, str] | None = None
    ) -> tuple[dict[str, LocalService], dict[str, CheckState]]:
        """Return every visible service by id, with its checks, and every visible check by id, including the node's.

        Consul silently omits what the token may not see (1.8). ``expected`` maps ids to names of services whose absence
        matters to the caller.

        :raises Denied: an expected service is registered but hidden from the token.
        """
        checks = self.checks()
        by_service: dict[str, list[CheckState]] = {}
        for check in checks.values():
            by_service.setdefault(check.service_id or _maintained(check), []).append(check)

        def parse(raw: Any) -> dict[str, LocalService]:
            return {one["ID"]: LocalService.parse(one, by_service.get(one["ID"], ())) for one in raw.values()}

        services = self._transport.get(parsed(parse, answers.SERVICES), "/v1/agent/services")
        for service_id, name in (expected or {}).items():
            if service_id not in services:
                self._has_service(service_id, name)
        return services, checks

    def service_hash(self, service_id: str, known: str = "", wait: float = 0.0) -> str | None:
        """Return the agent's own hash of one service's definition; None if it is not registered here.

        With ``known``, an earlier hash, wait up to ``wait`` seconds for a change or deregistration.
        """

        def parse(answer: HttpAnswer) -> str | None:
            return str(checked(answer, {"ContentHash": str})["ContentHash"]) if is_found(answer) else None

        params = [("hash", known), ("wait", wait_text(wait))] if known else []
        return self._transport.get(parse, f"/v1/agent/service/{service_id}", params)

    def checks(self) -> dict[str, CheckState]:
        def parse(raw: Any) -> dict[str, CheckState]:
            return {check_id: CheckState.parse(check) for check_id, check in raw.items()}

        return self._transport.get(parsed(parse, {"*": answers.CHECK}), "/v1/agent/checks")

    def register_service(self, body: dict[str, Any]) -> None:
        """Create or update a service and keep its maintenance.

        ``replace-existing-checks`` would also delete the maintenance check (Consul 1.8), so it is never sent. The
        caller deregisters each check that is no longer wanted.
        """
        if not self._transport.put(is_found, "/v1/agent/service/register", data=json.dumps(body)):
            raise _not_registered(str(body["ID"]))

    def deregister_service(self, service_id: str) -> None:
        """Deregister a service and its checks. An absent service is no error (404 from 1.9 on, 200 or 500 before)."""
        try:
            self._transport.put(is_found, f"/v1/agent/service/deregister/{service_id}")
        except ServerFailed:
            if self._has_service(service_id):
                raise

    def register_check(self, body: dict[str, Any]) -> None:
        """Create or update one check. Raise `NotFound` if its service is not registered here (404; 500 in 1.8)."""
        service_id = body.get("ServiceID", "")
        try:
            exists = self._transport.put(is_found, "/v1/agent/check/register", data=json.dumps(body))
        except ServerFailed:
            if exists := not service_id or self._has_service(service_id):
                raise
        if not exists:
            raise _not_registered(service_id)

    def deregister_check(self, check_id: str) -> None:
        """Deregister a check. An absent check is no error, as in `deregister_service`."""
        try:
            self._transport.put(is_found, f"/v1/agent/check/deregister/{check_id}")
        except ServerFailed:
            if check_id in self.checks():
                raise

    def enable_maintenance(self, service_id: str, reason: str) -> None:
        """Enable a service's maintenance. If it is already on, Consul keeps the first reason: read it back.

        :raises NotFound: the service is not registered here.
        """
        self._set_maintenance(service_id, "true", reason)

    def disable_maintenance(self, service_id: str) -> None:
        """Disable a service's maintenance. The caller must check its owner. Raise `NotFound` without the service."""
        self._set_maintenance(service_id, "false")

    def enable_node_maintenance(self, reason: str) -> None:
        self._api.agent.maintenance("true", reason=reason)

    def disable_node_maintenance(self) -> None:
        self._api.agent.maintenance("false")

    def rewrite_maintenance(self, service_id: str, reason: str) -> None:
        """Replace the reason of an active maintenance: the service's, or the host's if ``service_id`` is empty.

        Enabling it again keeps the first reason, and disabling it first puts the instance into service for a moment.
        But a maintenance is a check with a reserved ID, and registering a check again keeps its status: one write,
        critical throughout. If the maintenance was disabled just before, this call enables it.
        """
        body = {"ID": maintenance_check_id(service_id), **maintenance_check(service_id, reason)}
        self.register_check(body | ({"ServiceID": service_id} if service_id else {}))

    def _set_maintenance(self, service_id: str, enable: str, reason: str | None = None) -> None:
        try:
            exists = self._api.agent.service.maintenance(service_id, enable, reason=reason)
        except ServerFailed:
            if exists := self._has_service(service_id):
                raise
        if not exists:
            raise _not_registered(service_id)

    def _has_service(self, service_id: str, name: str = "") -> bool:
        """True if the service is registered, even if hidden from the token. No other endpoint distinguishes this."""
        path = f"/v1/agent/service/{service_id}"
        try:
            return self._transport.get(is_found, path)
        except Denied:
            # Rules go by the service's name; Consul's error names the id only.
            raise self._transport.failures.lacking("GET", f"/v1/agent/service/{name or service_id}") from None


def _not_registered(service_id: str) -> NotFound:
    return NotFound(
        f"service {service_id} is not registered on this host. To register it, run: svcagent register",
        kind="not-registered",
    )


def _maintained(check: CheckState) -> str:
    """Return the id of the service that a maintenance check belongs to. Only some agents set its ServiceID."""
    return check.id.removeprefix(SERVICE_MAINTENANCE) if check.id.startswith(SERVICE_MAINTENANCE) else ""
