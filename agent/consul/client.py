"""The local Consul agent's API, as far as svcagent needs it, in its own types.

Every method raises `ConsulUnreachable` (nothing known), `OutcomeUnknown` (a write without an answer), `Denied` or
`Rejected`; nothing is told by a return value of False.
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
"""Seconds of one blocking query; Consul adds a sixteenth. Some builds of 1.22 cut every answer off after 30 s."""

MOST_OPERATIONS = 64
"""Of one transaction, before Consul 1.14 (128 since)."""

# A TTL check that nobody renews fails when its time is over, which a maintenance does anyway; until then no log line.
NEVER = "87600h"


class Consul:
    """One connection to the local agent. Not for use by two threads at once: see `another`."""

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
        """A second connection to the same agent, for another thread."""
        other = Consul(self._settings)
        other._transport.failures.node = self._transport.failures.node
        return other

    def close(self) -> None:
        """Give the connection back."""
        self._transport.close()

    def hang_up(self) -> None:
        """Cut off what another thread waits for on this connection; there it fails. The one call for two threads."""
        self._transport.hang_up()

    def stay_connected(self, seconds: float) -> None:
        """Keep a connection on which nothing is asked, for that time.

        :raises ConsulUnreachable: there is no connecting, or the agent ended it.
        """
        self._transport.stay_connected(seconds)

    # ------------------------------------------------------------ the agent

    def agent_self(self) -> AgentSelf:
        """Who the local agent is. Its DNS address is the one it listens on, or its HTTP address where that is any."""
        found = self._transport.get(
            _then(lambda raw: _parse_self(raw, self._settings.address), shapes.SELF), "/v1/agent/self"
        )
        self._transport.failures.node = found.node
        return found

    def services(self, expected: Mapping[str, str] | None = None) -> dict[str, LocalService]:
        """The first half of `services_and_checks`."""
        return self.services_and_checks(expected)[0]

    def services_and_checks(
        self, expected: Mapping[str, str] | None = None
    ) -> tuple[dict[str, LocalService], dict[str, CheckState]]:
        """Every service that the token may see, by id, each with its checks; and every check by id, the node's too.

        Consul leaves out the others without a word (1.8). ``expected``, names by id, are those whose absence means
        something to the caller.

        :raises Denied: an expected service is there, hidden from the token.
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
        """Consul's hash of one service's definition; None if it is not registered here. Only the agent is asked.

        With ``known``, an earlier hash, it waits up to ``wait`` seconds for another one, or for the service to go.
        """
        params = [("hash", known), ("wait", _wait(wait))] if known else []
        return self._transport.get(_parse_hash, f"/v1/agent/service/{service_id}", params)

    def checks(self) -> dict[str, CheckState]:
        """Every check of the local agent by id, maintenance included."""
        return self._transport.get(
            _then(
                lambda raw: {check_id: CheckState.parse(check) for check_id, check in raw.items()},
                {"*": shapes.CHECK},
            ),
            "/v1/agent/checks",
        )

    def register_service(self, body: dict[str, Any]) -> None:
        """Create or update a service, keeping its maintenance.

        ``replace-existing-checks`` would delete the maintenance check with the others (Consul 1.8), so it is never
        sent: the caller deregisters checks that are no longer wanted one by one.
        """
        if not self._transport.put(_is_there, "/v1/agent/service/register", data=json.dumps(body)):
            raise _not_registered(str(body["ID"]))

    def deregister_service(self, service_id: str) -> None:
        """Take a service away with its checks. One that is not there is fine: 404 from 1.9 on, 200 or 500 before."""
        try:
            self._transport.put(_is_there, f"/v1/agent/service/deregister/{service_id}")
        except ServerFailed:
            if self._has_service(service_id):
                raise

    def register_check(self, body: dict[str, Any]) -> None:
        """Create or update one check.

        :raises NotFound: the service that it belongs to is not registered here (404, or 500 in Consul 1.8).
        """
        service_id = body.get("ServiceID", "")
        try:
            is_there = self._transport.put(_is_there, "/v1/agent/check/register", data=json.dumps(body))
        except ServerFailed:
            if is_there := not service_id or self._has_service(service_id):
                raise
        if not is_there:
            raise _not_registered(service_id)

    def deregister_check(self, check_id: str) -> None:
        """Take a check away. One that is not there is fine, as with `deregister_service`."""
        try:
            self._transport.put(_is_there, f"/v1/agent/check/deregister/{check_id}")
        except ServerFailed:
            if check_id in self.checks():
                raise

    def enable_maintenance(self, service_id: str, reason: str) -> None:
        """Take a service out. Consul keeps the first reason when it is out already: read it back.

        :raises NotFound: the service is not registered here.
        """
        self._set_maintenance(service_id, "true", reason)

    def disable_maintenance(self, service_id: str) -> None:
        """Put a service back. Consul does not ask whose maintenance it is: the caller must have.

        :raises NotFound: the service is not registered here.
        """
        self._set_maintenance(service_id, "false")

    def enable_node_maintenance(self, reason: str) -> None:
        """Take every service of this host out."""
        self._api.agent.maintenance("true", reason=reason)

    def disable_node_maintenance(self) -> None:
        """Lift the host's maintenance."""
        self._api.agent.maintenance("false")

    def rewrite_maintenance(self, service_id: str, reason: str) -> None:
        """Give a maintenance that is on another reason; with no ``service_id`` the host's.

        Enabling again keeps the first reason, and lifting it before has a moment in service. But a maintenance is a
        check with a reserved ID, and registering a check over another keeps its status: one write, failing all the
        while. Consul recognises its maintenance by the ID alone, so everybody's tools lift it as before (Consul 1.8).
        A check needs a type to be registered: a TTL that does not run out. If the maintenance was lifted just before,
        this puts it on.
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
        """Is it there, seen or not? The one question about services that Consul does not answer by leaving out."""
        path = f"/v1/agent/service/{service_id}"
        try:
            return self._transport.get(_is_there, path)
        except Denied:
            # Consul says which service, but not what it is called; rules go by name.
            raise self._transport.failures.lacking("GET", f"/v1/agent/service/{name or service_id}") from None

    # ------------------------------------------------------------ the catalog

    def instances(self, service: str, index: int | None = None, wait: float = 0.0) -> tuple[int, tuple[Instance, ...]]:
        """All instances of a service that the token may see, read from the leader.

        With ``index`` (of an earlier answer) it waits up to ``wait`` seconds for a change.

        :raises Denied: the token does not show all of them, or there are none, and the token could not have seen them
            on this host either.
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
            # Where some of them are shown, the service may be read, and the nodes of the others may not.
            raise self._transport.failures.lacking("GET", "/v1/health/node/" if found[1] else path)
        return found

    def _assert_may_read_nodes(self) -> None:
        """Without ``node:read`` health answers are empty, not refused. This host's own node has checks if visible."""
        if not self._may_read_nodes:
            path = f"/v1/health/node/{self._transport.failures.node or self.agent_self().node}"
            if not self._transport.get(_then(list, shapes.CHECKS), path, [("consistent", "1")]):
                raise self._transport.failures.lacking("GET", path)
            self._may_read_nodes = True

    def node_checks(self, node: str, index: int | None = None, wait: float = 0.0) -> tuple[int, dict[str, CheckState]]:
        """All checks of a host and its services by id, read from the leader; empty without ``node:read``.

        With ``index`` (of an earlier answer) it waits up to ``wait`` seconds for a change.
        """
        params: list[tuple[str, Any]] = [("consistent", "1")]
        if index is not None:
            params += [("index", index), ("wait", _wait(wait))]
        return self._transport.get(_parse_node_checks, f"/v1/health/node/{node}", params)

    def is_node_known(self, node: str) -> bool:
        """Is there a node of this name in the catalog of the agent's own datacenter?"""
        return self._whole(lambda answer: bool(_json(answer)), f"/v1/catalog/node/{node}")

    # ------------------------------------------------------------ KV and sessions

    def kv_get(
        self, key: str, index: int | None = None, wait: float = 0.0, *, consistent: bool = False
    ) -> tuple[int, KvPair | None]:
        """A key, or None. With ``index`` (of an earlier answer) it waits up to ``wait`` seconds for a change."""
        new, pairs = self._transport.get(_parse_tree, f"/v1/kv/{key}", _kv_params(index, wait, consistent=consistent))
        return new, pairs[0] if pairs else None

    def kv_tree(
        self, prefix: str, index: int | None = None, wait: float = 0.0, *, consistent: bool = False
    ) -> tuple[int, tuple[KvPair, ...]]:
        """Every key below a prefix (``…/``), in order, by one request. ``index`` and ``wait`` as in `kv_get`.

        :raises Denied: the token does not show all of them, or there is nothing, and the token could not have seen it.
        """
        params = [("recurse", "1"), *_kv_params(index, wait, consistent=consistent)]
        found = self._whole(_parse_tree, f"/v1/kv/{prefix}", params)
        if not found[1]:
            self._assert_may_read_keys(prefix)
        return found

    def kv_keys(self, prefix: str, separator: str = "", *, partly: bool = False) -> tuple[str, ...]:
        """The keys below a prefix (``…/``), in order, without their values; with ``separator`` up to the next one.

        ``partly``: those that the token shows are enough.

        :raises Denied: as for `kv_tree`.
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
        """Without ``key:read`` Consul leaves keys out of a tree without a word; of one key it says so (1.8)."""
        if prefix not in self._readable_prefixes:
            self.kv_get(prefix)
            self._readable_prefixes.add(prefix)

    def kv_transaction(self, *operations: KvOperation) -> bool:
        """All of them in one write, or none: then False, for what one of them would have refused alone.

        A lock that is held, or closed after its holder's death, or whose session is gone; a key that was modified;
        another session's key. Which of these it was, only Consul's words say: look.
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
        """Write a key. ``how``: ``flags``, and ``cas``, ``acquire`` or ``release``, whose refusal is False."""
        return bool(self._api.kv.put(key, value, **how))

    def kv_delete(self, key: str, cas: int | None = None) -> bool:
        """Delete a key; with ``cas`` only if it was not modified since that index, False if it was."""
        return bool(self._api.kv.delete(key, cas=cas))

    def create_session(self, name: str, ttl: int, *, behaviour: str = "release") -> str:
        """A session that lives as long as it is renewed every ``ttl`` seconds (it may take twice that to die).

        It is bound to no check: a flapping node check would end it in the middle of a reload. ``behaviour`` is what
        becomes of the keys that it holds when it ends: ``release`` or ``delete``.
        """
        return str(self._api.session.create(name=name, checks=[], ttl=ttl, behavior=behaviour))

    def renew_session(self, session: str) -> bool:
        """Keep a session alive; False if it exists no more.

        A server that has just become leader says so of sessions that it has not read of yet (Consul 1.8). A consistent
        read waits for that, or is refused.
        """
        path = f"/v1/session/renew/{session}"
        if self._transport.put(_is_there, path):
            return True
        return self.session(session) is not None and self._transport.put(_is_there, path)

    def destroy_session(self, session: str) -> None:
        """End a session; gone already is fine."""
        self._api.session.destroy(session)

    def session(self, session: str) -> Session | None:
        """A session, or None if it exists no more.

        :raises Denied: the token may not see it (session:read). Consul before 1.11 does not say so: then None.
        """
        found = self._whole(_parse_sessions, f"/v1/session/info/{session}", [("consistent", "1")])
        return found[0] if found else None

    def node_sessions(self, node: str) -> tuple[Session, ...]:
        """The living sessions of a node.

        :raises Denied: the token may not see them (session:read). Consul before 1.11 does not say so: then none.
        """
        return self._whole(_parse_sessions, f"/v1/session/node/{node}", [("consistent", "1")])

    def _whole(self, parse: Callable[[Answer], T], path: str, params: list[tuple[str, Any]] | None = None) -> T:
        """Read a list, all of it.

        :raises Denied: Consul says that it left out what the token may not see.
        """

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
    """The answer's JSON, which has that shape; null counts as an empty list (Go writes it for one)."""
    found = _json(answer)
    if found is None and isinstance(shape, list):
        return []
    require(found, shape)
    return found


def _parse_hash(answer: Answer) -> str | None:
    return None if answer.code == 404 else str(_checked(answer, {"ContentHash": str})["ContentHash"])


def _then(parse: Callable[[Any], T], shape: Shape) -> Callable[[Answer], T]:
    """Read the answer's JSON inside the request, where a wrong shape is reported as such (see `Transport`)."""
    return lambda answer: parse(_checked(answer, shape))


def _index(answer: Answer) -> int:
    """The index to wait from, which Consul writes as an unsigned number of 64 bits."""
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
    """Older agents have the setting among the others, newer ones (1.12) in a section for TLS."""
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
    """The keys of a transaction that were refused, each with Consul's words."""
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
    """Consul takes a wait of nothing for its default of five minutes."""
    return f"{min(max(seconds, 0.001), LONGEST_WAIT):.3f}s"


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
