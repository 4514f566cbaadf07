"""The part of the local Consul agent's API that svcagent uses, with svcagent's own types.

Every method raises `ConsulUnreachable` (nothing is known), `OutcomeUnknown` (a write got no response), `Denied` or
`Rejected`. No method returns False for such an error.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from agent.consul import answers as shapes
from agent.consul.connection import is_filtered
from agent.consul.failures import TRANSACTION, ServerFailed
from agent.consul.model import (
    NODE_MAINTENANCE,
    SERVICE_MAINTENANCE,
    AgentSelf,
    CheckState,
    Instance,
    KvOperation,
    KvPair,
    LocalService,
    Session,
)
from agent.consul.transport import Transport
from agent.definitions import ConsulSettings
from agent.errors import Denied, NotFound
from agent.http import Answer
from agent.shapes import Shape, require

if TYPE_CHECKING:
    from agent.consul.api import Api

T = TypeVar("T")

LONGEST_WAIT = 25.0
"""Seconds of one blocking query. Consul adds a sixteenth; some builds of 1.22 cut off every response after 30 s."""

MOST_OPERATIONS = 64
"""Operations of one transaction before Consul 1.14 (128 since)."""

# The TTL of a rewritten maintenance check. It never expires in practice, so Consul logs no expiry.
NEVER = "87600h"


class Consul:
    """One connection to the local agent. It must not be used by two threads at a time; see `another`."""

    def __init__(self, settings: ConsulSettings) -> None:
        self._settings = settings
        self._transport = Transport(settings)
        self._may_read_nodes = False
        self._readable_prefixes: set[str] = set()

    @cached_property
    def _api(self) -> "Api":
        from agent.consul.api import Api  # slow to import, and not needed to register

        return Api(self._transport)

    def another(self) -> "Consul":
        """Return a second connection to the same agent, for another thread."""
        other = Consul(self._settings)
        other._transport.failures.node = self._transport.failures.node
        return other

    def close(self) -> None:
        self._transport.close()

    def hang_up(self) -> None:
        """Abort the request that another thread waits for on this connection. No other method is thread-safe."""
        self._transport.hang_up()

    def stay_connected(self, seconds: float) -> None:
        """Keep an idle connection open for ``seconds``. Raise `ConsulUnreachable` if it fails or ends."""
        self._transport.stay_connected(seconds)

    # ------------------------------------------------------------ the agent

    def agent_self(self) -> AgentSelf:
        """Return the local agent's facts. A wildcard DNS address is replaced by the host of the HTTP address."""
        found = self._transport.get(
            _then(lambda raw: _parse_self(raw, self._settings.address), shapes.SELF), "/v1/agent/self"
        )
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
        services = self._transport.get(
            _then(lambda raw: _parse_services(raw, by_service), shapes.SERVICES), "/v1/agent/services"
        )
        for service_id, name in (expected or {}).items():
            if service_id not in services:
                self._has_service(service_id, name)
        return services, checks

    def service_hash(self, service_id: str, known: str = "", wait: float = 0.0) -> str | None:
        """Return the agent's own hash of one service's definition; None if it is not registered here.

        With ``known``, an earlier hash, wait up to ``wait`` seconds for a change or deregistration.
        """
        params = [("hash", known), ("wait", _wait(wait))] if known else []
        return self._transport.get(_parse_hash, f"/v1/agent/service/{service_id}", params)

    def checks(self) -> dict[str, CheckState]:
        """Return every check of the local agent by id, maintenance included."""
        return self._transport.get(
            _then(
                lambda raw: {check_id: CheckState.parse(check) for check_id, check in raw.items()},
                {"*": shapes.CHECK},
            ),
            "/v1/agent/checks",
        )

    def register_service(self, body: dict[str, Any]) -> None:
        """Create or update a service and keep its maintenance.

        ``replace-existing-checks`` would also delete the maintenance check (Consul 1.8), so it is never sent. The
        caller deregisters each check that is no longer wanted.
        """
        if not self._transport.put(_is_there, "/v1/agent/service/register", data=json.dumps(body)):
            raise _not_registered(str(body["ID"]))

    def deregister_service(self, service_id: str) -> None:
        """Deregister a service and its checks. An absent service is no error (404 from 1.9 on, 200 or 500 before)."""
        try:
            self._transport.put(_is_there, f"/v1/agent/service/deregister/{service_id}")
        except ServerFailed:
            if self._has_service(service_id):
                raise

    def register_check(self, body: dict[str, Any]) -> None:
        """Create or update one check. Raise `NotFound` if its service is not registered here (404; 500 in 1.8)."""
        service_id = body.get("ServiceID", "")
        try:
            is_there = self._transport.put(_is_there, "/v1/agent/check/register", data=json.dumps(body))
        except ServerFailed:
            if is_there := not service_id or self._has_service(service_id):
                raise
        if not is_there:
            raise _not_registered(service_id)

    def deregister_check(self, check_id: str) -> None:
        """Deregister a check. An absent check is no error, as in `deregister_service`."""
        try:
            self._transport.put(_is_there, f"/v1/agent/check/deregister/{check_id}")
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
        critical throughout. Consul recognises maintenance by the check ID alone, so every tool can still disable it
        (Consul 1.8). A check needs a type to be registered, hence a TTL that does not expire. If the maintenance was
        disabled just before, this call enables it.
        """
        check_id = f"{SERVICE_MAINTENANCE}{service_id}" if service_id else NODE_MAINTENANCE
        name = f"{'Service' if service_id else 'Node'} Maintenance Mode"
        body = {"ID": check_id, "Name": name, "Notes": reason, "Status": "critical", "TTL": NEVER}
        self.register_check(body | ({"ServiceID": service_id} if service_id else {}))

    def _set_maintenance(self, service_id: str, enable: str, reason: str | None = None) -> None:
        try:
            is_there = self._api.agent.service.maintenance(service_id, enable, reason=reason)
        except ServerFailed:
            if is_there := self._has_service(service_id):
                raise
        if not is_there:
            raise _not_registered(service_id)

    def _has_service(self, service_id: str, name: str = "") -> bool:
        """True if the service is registered, even if hidden from the token. No other endpoint distinguishes this."""
        path = f"/v1/agent/service/{service_id}"
        try:
            return self._transport.get(_is_there, path)
        except Denied:
            # Rules go by the service's name; Consul's error names the id only.
            raise self._transport.failures.lacking("GET", f"/v1/agent/service/{name or service_id}") from None

    # ------------------------------------------------------------ the catalog

    def instances(self, service: str, index: int | None = None, wait: float = 0.0) -> tuple[int, tuple[Instance, ...]]:
        """Return all instances of a service, read from the leader.

        With ``index`` (of an earlier response), wait up to ``wait`` seconds for a change.

        :raises Denied: the token does not show all instances, or there are none and it could not see one on this host.
        """
        params: list[tuple[str, Any]] = [("consistent", "1")]
        if index is not None:
            params += [("index", index), ("wait", _wait(wait))]
        path = f"/v1/health/service/{service}"
        is_whole, found = self._transport.get(
            lambda answer: (not is_filtered(answer), _parse_instances(answer)), path, params
        )
        if not found[1]:
            self._assert_may_read_nodes()
        if not is_whole:
            # If some instances are shown, the token lacks node:read for the others, not service:read.
            raise self._transport.failures.lacking("GET", "/v1/health/node/" if found[1] else path)
        return found

    def _assert_may_read_nodes(self) -> None:
        """Raise Denied without ``node:read``: health responses are then empty. A visible own node has checks."""
        if not self._may_read_nodes:
            path = f"/v1/health/node/{self._transport.failures.node or self.agent_self().node}"
            if not self._transport.get(_then(list, shapes.CHECKS), path, [("consistent", "1")]):
                raise self._transport.failures.lacking("GET", path)
            self._may_read_nodes = True

    def node_checks(self, node: str, index: int | None = None, wait: float = 0.0) -> tuple[int, dict[str, CheckState]]:
        """Return all checks of a host and its services by id, read from the leader; empty without ``node:read``.

        With ``index`` (of an earlier response), wait up to ``wait`` seconds for a change.
        """
        params: list[tuple[str, Any]] = [("consistent", "1")]
        if index is not None:
            params += [("index", index), ("wait", _wait(wait))]
        return self._transport.get(_parse_node_checks, f"/v1/health/node/{node}", params)

    def is_node_known(self, node: str) -> bool:
        """True if the agent's own datacenter has a node of this name."""
        return self._whole(lambda answer: bool(_json(answer)), f"/v1/catalog/node/{node}")

    # ------------------------------------------------------------ KV and sessions

    def kv_get(
        self, key: str, index: int | None = None, wait: float = 0.0, *, consistent: bool = False
    ) -> tuple[int, KvPair | None]:
        """Return a key, or None. With ``index`` (of an earlier response), wait up to ``wait`` seconds for a change."""
        new, pairs = self._transport.get(_parse_tree, f"/v1/kv/{key}", _kv_params(index, wait, consistent=consistent))
        return new, pairs[0] if pairs else None

    def kv_tree(
        self, prefix: str, index: int | None = None, wait: float = 0.0, *, consistent: bool = False
    ) -> tuple[int, tuple[KvPair, ...]]:
        """Return every key below a prefix (``…/``) in order, by one request. ``index`` and ``wait`` are as in `kv_get`.

        :raises Denied: the token does not show all keys, or there are none and the token could not see any.
        """
        params = [("recurse", "1"), *_kv_params(index, wait, consistent=consistent)]
        found = self._whole(_parse_tree, f"/v1/kv/{prefix}", params)
        if not found[1]:
            self._assert_may_read_keys(prefix)
        return found

    def kv_keys(self, prefix: str, separator: str = "", *, partly: bool = False) -> tuple[str, ...]:
        """Return the names of the keys below a prefix (``…/``) in order; with ``separator``, up to its next one.

        With ``partly``, the keys that the token may see are enough.

        :raises Denied: as in `kv_tree`.
        """
        params: list[tuple[str, Any]] = [("keys", "1")]
        if separator:
            params.append(("separator", separator))
        read = self._transport.get if partly else self._whole
        found = read(_parse_keys, f"/v1/kv/{prefix}", params)
        if not found:
            self._assert_may_read_keys(prefix)
        return found

    def _assert_may_read_keys(self, prefix: str) -> None:
        """Raise Denied without ``key:read``: Consul omits keys from a tree silently, but refuses a single key (1.8)."""
        if prefix not in self._readable_prefixes:
            self.kv_get(prefix)
            self._readable_prefixes.add(prefix)

    def kv_transaction(self, *operations: KvOperation) -> bool:
        """Apply all operations in one write. Return False if Consul refused one, and with it all.

        Reasons are: the lock is held, in its lock-delay, or its session is gone; the key was modified; another session
        holds the key. Only Consul's message tells which, so read the key to find out.
        """
        if len(operations) > MOST_OPERATIONS:
            raise ValueError(f"{len(operations)} operations do not fit into one transaction of Consul before 1.14")
        body = [{"KV": _operation(one)} for one in operations]
        errors = self._transport.put(partial(_parse_refusals, operations), TRANSACTION, data=json.dumps(body))
        for key, said in errors:
            if error := self._transport.failures.denied_in_transaction(key, said):
                raise error
        return not errors

    def kv_put(self, key: str, value: str, **how: Any) -> bool:
        """Write a key. ``how``: ``flags``, and ``cas``, ``acquire`` or ``release``; False if Consul refuses these."""
        return bool(self._api.kv.put(key, value, **how))

    def kv_delete(self, key: str, cas: int | None = None) -> bool:
        """Delete a key. With ``cas``, return False if the key was modified since that index."""
        return bool(self._api.kv.delete(key, cas=cas))

    def create_session(self, name: str, ttl: int, *, behaviour: str = "release") -> str:
        """Create a session and return its id. It must be renewed every ``ttl`` seconds; expiry may take twice that.

        The session has no checks: a flapping node check would end it during a reload. ``behaviour`` is what happens to
        its keys when it ends: ``release`` or ``delete``.
        """
        return str(self._api.session.create(name=name, checks=[], ttl=ttl, behavior=behaviour))

    def renew_session(self, session: str) -> bool:
        """Renew a session. Return False if it no longer exists.

        A new leader also denies sessions that it has not loaded yet (Consul 1.8). A consistent read waits for them or
        fails.
        """
        path = f"/v1/session/renew/{session}"
        if self._transport.put(_is_there, path):
            return True
        return self.session(session) is not None and self._transport.put(_is_there, path)

    def destroy_session(self, session: str) -> None:
        """End a session. An absent session is no error."""
        self._api.session.destroy(session)

    def session(self, session: str) -> Session | None:
        """Return a session, or None. Raise `Denied` without session:read (before Consul 1.11: return None)."""
        found = self._whole(_parse_sessions, f"/v1/session/info/{session}", [("consistent", "1")])
        return found[0] if found else None

    def node_sessions(self, node: str) -> tuple[Session, ...]:
        """Return a node's living sessions. Raise `Denied` without session:read (before Consul 1.11: return none)."""
        return self._whole(_parse_sessions, f"/v1/session/node/{node}", [("consistent", "1")])

    def _whole(self, parse: Callable[[Answer], T], path: str, params: list[tuple[str, Any]] | None = None) -> T:
        """Read a complete list. Raise `Denied` if Consul reports that it omitted what the token may not see."""

        def parse_whole(answer: Answer) -> T:
            if is_filtered(answer):
                raise self._transport.failures.lacking("GET", path)
            return parse(answer)

        return self._transport.get(parse_whole, path, params)


def _not_registered(service_id: str) -> NotFound:
    return NotFound(f"service {service_id} is not registered on this host; run: svcagent register")


def _is_there(answer: Answer) -> bool:
    return answer.code != 404


def _json(answer: Answer) -> Any:
    if answer.code == 404:
        raise LookupError("not found, where something always is")
    return answer.json


def _checked(answer: Answer, shape: Shape) -> Any:
    """Return the response's JSON if it has that shape. null counts as an empty list: Go writes nil slices so."""
    found = _json(answer)
    if found is None and isinstance(shape, list):
        return []
    require(found, shape)
    return found


def _parse_hash(answer: Answer) -> str | None:
    return None if answer.code == 404 else str(_checked(answer, {"ContentHash": str})["ContentHash"])


def _then(parse: Callable[[Any], T], shape: Shape) -> Callable[[Answer], T]:
    """Return a callback that checks and parses the JSON inside the request, where `Transport` reports a wrong shape."""
    return lambda answer: parse(_checked(answer, shape))


def _index(answer: Answer) -> int:
    """Return the index of a blocking query, an unsigned number of 64 bits."""
    found = int(answer.headers["X-Consul-Index"])
    if not 0 <= found < 1 << 64:
        raise ValueError("an index out of range")
    return found


def _kv_params(index: int | None, wait: float, *, consistent: bool) -> list[tuple[str, Any]]:
    waiting = [] if index is None else [("index", index), ("wait", _wait(wait))]
    return [*waiting, *([("consistent", "1")] if consistent else [])]


def _parse_self(raw: Any, http_address: str) -> AgentSelf:
    debug = raw["DebugConfig"]
    return AgentSelf(
        node=raw["Config"]["NodeName"],
        datacenter=raw["Config"]["Datacenter"],
        domain=debug["DNSDomain"].strip(".") or "consul",
        dns=_dns_address(debug.get("DNSAddrs") or [], http_address),
        version=raw["Config"]["Version"],
        address=debug.get("AdvertiseAddrLAN") or (raw.get("Member") or {}).get("Addr") or "",
        is_running_scripts=bool(debug.get("EnableRemoteScriptChecks")),
        is_tls_used_for_checks=_uses_agent_tls(debug),
    )


def _uses_agent_tls(debug: Mapping[str, Any]) -> bool:
    """True if ``enable_agent_tls_for_checks`` is on. Since 1.12 it is in a TLS section, before that at the top."""
    section = debug.get("TLS") or {}
    return bool(debug.get("EnableAgentTLSForChecks") or section.get("EnableAgentTLSForChecks"))


def _parse_services(raw: Any, by_service: Mapping[str, list[CheckState]]) -> dict[str, LocalService]:
    return {
        one["ID"]: LocalService(
            id=one["ID"],
            name=one["Service"],
            tags=tuple(one.get("Tags") or ()),
            port=one["Port"],
            address=one.get("Address") or "",
            meta=one.get("Meta") or {},
            checks=tuple(by_service.get(one["ID"], ())),
            weights=_weights(one.get("Weights")),
            ports=tuple((named["Name"], named["Port"], bool(named.get("Default"))) for named in one.get("Ports") or ()),
            tagged_addresses={
                name: (tagged["Address"], tagged.get("Port") or 0)
                for name, tagged in (one.get("TaggedAddresses") or {}).items()
            },
            is_tag_override_enabled=bool(one.get("EnableTagOverride")),
        )
        for one in raw.values()
    }


def _parse_instances(answer: Answer) -> tuple[int, tuple[Instance, ...]]:
    return _index(answer), tuple(Instance.parse(entry) for entry in _checked(answer, shapes.INSTANCES))


def _parse_node_checks(answer: Answer) -> tuple[int, dict[str, CheckState]]:
    found = _checked(answer, shapes.CHECKS)
    return _index(answer), {check["CheckID"]: CheckState.parse(check) for check in found}


def _parse_tree(answer: Answer) -> tuple[int, tuple[KvPair, ...]]:
    raw = _checked(answer, shapes.PAIRS) if answer.code != 404 else ()
    return _index(answer), tuple(
        KvPair(
            key=one["Key"],
            value=base64.b64decode(one.get("Value") or ""),
            flags=one["Flags"],
            session=one.get("Session"),
            modify_index=one["ModifyIndex"],
            create_index=one["CreateIndex"],
        )
        for one in raw
    )


def _parse_keys(answer: Answer) -> tuple[str, ...]:
    return tuple(_checked(answer, [str])) if answer.code != 404 else ()


def _parse_sessions(answer: Answer) -> tuple[Session, ...]:
    found = _checked(answer, shapes.SESSIONS)
    return tuple(Session(one["ID"], one.get("Name") or "", one["Node"]) for one in found)


def _parse_refusals(operations: Sequence[KvOperation], answer: Answer) -> list[tuple[str, str]]:
    """Return the keys that a transaction refused, each with Consul's message."""
    found = _checked(answer, shapes.TRANSACTION).get("Errors") or []
    return [(operations[one["OpIndex"]].key, one["What"]) for one in found]


def _operation(one: KvOperation) -> dict[str, Any]:
    value = None if one.value is None else base64.b64encode(one.value.encode()).decode()
    found = {
        "Verb": one.verb,
        "Key": one.key,
        "Value": value,
        "Flags": one.flags,
        "Index": one.index,
        "Session": one.session,
    }
    return {name: field for name, field in found.items() if field is not None}


def _weights(raw: dict[str, int] | None) -> tuple[int, int]:
    return (raw["Passing"], raw["Warning"]) if raw else (1, 1)


def _wait(seconds: float) -> str:
    """Format a wait. Consul takes a wait of zero for its default of five minutes."""
    return f"{min(max(seconds, 0.001), LONGEST_WAIT):.3f}s"


def _maintained(check: CheckState) -> str:
    """Return the id of the service that a maintenance check belongs to. Only some agents set its ServiceID."""
    return check.id.removeprefix(SERVICE_MAINTENANCE) if check.id.startswith(SERVICE_MAINTENANCE) else ""


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
