"""A Consul agent that plays recorded answers of a release that no package has.

What svcagent's calls change is kept here as Consul keeps it: services, checks, maintenance, keys, sessions. What
differs from release to release comes from ``tests/recorded/consul-<release>.json``, each answer with its source.
Scenarios that run against it also run against a real agent, so that both answer alike.
"""

import base64
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.http import QuietHandler, serving

DIRECTORY = Path(__file__).resolve().parents[1] / "recorded"
RELEASES = tuple(file.stem.removeprefix("consul-") for file in sorted(DIRECTORY.glob("consul-*.json")))
NODE = "recorded"
MAINTENANCE = "_service_maintenance:"
LONGEST_WAIT = 30.0
"""Seconds after which a blocking query is answered in any case."""


class Refused(Exception):
    def __init__(self, status: int, body: str) -> None:
        super().__init__(body)
        self.status, self.body = status, body


def recording(release: str) -> dict[str, Any]:
    """Return what was recorded of a release."""
    found: dict[str, Any] = json.loads((DIRECTORY / f"consul-{release}.json").read_text())
    return found


class RecordedAgent:
    """One agent, which is its own server."""

    def __init__(self, release: str) -> None:
        self.recording = recording(release)
        self.asked: list[str] = []
        self.fail_next: str = ""
        """The name of the recorded answer that the next request gets."""
        self.is_filtering = False
        """True while the token does not show everything."""
        self._services: dict[str, dict[str, Any]] = {}
        self._checks: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, dict[str, Any]] = {}
        self._sessions: dict[str, dict[str, Any]] = {}
        self._index = 10
        self._changed = threading.Condition()

    # ------------------------------------------------------------ answering

    def answer(self, method: str, path: str, query: Mapping[str, str], body: str) -> tuple[int, str, dict[str, str]]:
        """Return status, body and headers of one request."""
        with self._changed:
            self.asked.append(f"{method} {path}")
            try:
                if name := self.fail_next:
                    self.fail_next = ""
                    self._refuse(name)
                if "index" in query:
                    wait = min(float(query.get("wait", "300s").rstrip("s")), LONGEST_WAIT)
                    self._changed.wait_for(lambda: self._index > int(query["index"]), wait)
                found = self._route(method, path)(query, body)
            except Refused as refused:
                return refused.status, refused.body, self._headers()
            if method != "GET":
                self._changed.notify_all()
        text = "" if found is None else json.dumps(found)
        return 200, text, self._headers()

    def _headers(self) -> dict[str, str]:
        filtered = self.recording["answers"]["filtered"]["headers"] if self.is_filtering else {}
        return {"Content-Type": "application/json", "X-Consul-Index": str(self._index), **filtered}

    def _refuse(self, name: str, **values: str) -> None:
        answer = self.recording["answers"][name]
        raise Refused(answer["status"], answer["body"].format(**values))

    def _route(self, method: str, path: str) -> Callable[[Mapping[str, str], str], Any]:
        for pattern, call in _ROUTES:
            if found := re.fullmatch(pattern, f"{method} {path}"):
                return lambda query, body: call(self, *found.groups(), query, body)
        raise Refused(404, "")

    def _change(self) -> int:
        self._index += 1
        return self._index

    # ------------------------------------------------------------ the agent

    def agent_self(self, _query: Mapping[str, str], _body: str) -> Any:
        config = {"NodeName": NODE, "Datacenter": "dc1", "Version": self.recording["version"]}
        return {
            "Config": config,
            "DebugConfig": {"DNSDomain": "consul.", "DNSAddrs": []},
            "Member": {"Addr": "127.0.0.1"},
        }

    def services(self, _query: Mapping[str, str], _body: str) -> Any:
        return self._services

    def checks(self, _query: Mapping[str, str], _body: str) -> Any:
        return self._checks

    def service(self, service_id: str, _query: Mapping[str, str], _body: str) -> Any:
        if service_id not in self._services:
            self._refuse("read_of_an_absent_service", id=service_id)
        return {**self._services[service_id], "ContentHash": "0"}

    def register_service(self, _query: Mapping[str, str], body: str) -> Any:
        """Create or update it, and its checks."""
        told = json.loads(body)
        self._services[told["ID"]] = {
            "ID": told["ID"],
            "Service": told["Name"],
            "Tags": told.get("Tags") or [],
            "Meta": told.get("Meta") or {},
            "Port": told.get("Port", 0),
            "Address": told.get("Address", ""),
            "TaggedAddresses": told.get("TaggedAddresses") or {},
            "Weights": told.get("Weights") or {"Passing": 1, "Warning": 1},
            "EnableTagOverride": told.get("EnableTagOverride", False),
            "Datacenter": "dc1",
        }
        for check in told.get("Checks", ()):
            self._add_check(check["CheckID"], check, told["ID"])
        self._change()

    def deregister_service(self, service_id: str, _query: Mapping[str, str], _body: str) -> Any:
        if self._services.pop(service_id, None) is None:
            self._refuse("write_to_an_absent_service", id=service_id)
        self._checks = {one: check for one, check in self._checks.items() if check["ServiceID"] != service_id}
        self._change()

    def register_check(self, _query: Mapping[str, str], body: str) -> Any:
        told = json.loads(body)
        service_id = told.get("ServiceID", "")
        if service_id and service_id not in self._services:
            self._refuse("check_of_an_absent_service", id=service_id)
        self._add_check(told["ID"], told, service_id)
        self._change()

    def deregister_check(self, check_id: str, _query: Mapping[str, str], _body: str) -> Any:
        if self._checks.pop(check_id, None) is None:
            self._refuse("write_to_an_absent_check", id=check_id)
        self._change()

    def maintenance(self, service_id: str, query: Mapping[str, str], _body: str) -> Any:
        """Enable or disable it; enabled again it keeps its reason."""
        if service_id not in self._services:
            self._refuse("write_to_an_absent_service", id=service_id)
        check_id = f"{MAINTENANCE}{service_id}"
        if query["enable"] == "false":
            self._checks.pop(check_id, None)
        elif check_id not in self._checks:
            notes = query.get("reason", "")
            check = {"Name": "Service Maintenance Mode", "Notes": notes, "Status": "critical", "Type": "maintenance"}
            self._add_check(check_id, check, service_id)
        self._change()

    def _add_check(self, check_id: str, told: Mapping[str, Any], service_id: str) -> None:
        before = self._checks.get(check_id, {"Status": told.get("Status", "critical")})
        self._checks[check_id] = {
            "Node": NODE,
            "CheckID": check_id,
            "Name": told["Name"],
            "Status": before["Status"],
            "Notes": told.get("Notes", ""),
            "Output": "",
            "ServiceID": service_id,
            "ServiceName": self._services.get(service_id, {}).get("Service", ""),
            "Type": told.get("Type", "ttl" if "TTL" in told else ""),
        }

    # ------------------------------------------------------------ the catalog

    def health(self, name: str, _query: Mapping[str, str], _body: str) -> Any:
        alive = {
            "Node": NODE,
            "CheckID": "serfHealth",
            "Name": "Serf Health Status",
            "Status": "passing",
            "ServiceID": "",
        }
        return [
            {
                "Node": {"Node": NODE, "Address": "127.0.0.1"},
                "Service": one,
                "Checks": [alive, *(check for check in self._checks.values() if check["ServiceID"] == one["ID"])],
            }
            for one in self._services.values()
            if one["Service"].lower() == name.lower()
        ]

    def node_health(self, node: str, _query: Mapping[str, str], _body: str) -> Any:
        return [*self._checks.values()] if node == NODE else []

    # ------------------------------------------------------------ keys and sessions

    def read_key(self, key: str, query: Mapping[str, str], _body: str) -> Any:
        """A key, a tree, or the names of keys."""
        self._require_key(key)
        below = sorted(one for one in self._keys if one.startswith(key))
        if "keys" in query:
            separator = query.get("separator", "")
            names = [_cut(one, key, separator) for one in below]
            return _found(list(dict.fromkeys(names)))
        found = below if "recurse" in query else [one for one in below if one == key]
        return _found([self._keys[one] for one in found])

    def write_key(self, key: str, query: Mapping[str, str], body: str) -> Any:
        """Write a key, with check-and-set or as a lock."""
        self._require_key(key)
        there = self._keys.get(key)
        if "cas" in query and int(query["cas"]) != (there["ModifyIndex"] if there else 0):
            return False
        if "acquire" in query and not self._may_lock(key, query["acquire"]):
            return False
        self._set(key, body, int(query.get("flags", 0)), query.get("acquire"))
        return True

    def delete_key(self, key: str, query: Mapping[str, str], _body: str) -> Any:
        self._require_key(key)
        there = self._keys.get(key)
        if "cas" in query and there is not None and there["ModifyIndex"] != int(query["cas"]):
            return False
        if self._keys.pop(key, None) is not None:
            self._change()
        return True

    def transaction(self, _query: Mapping[str, str], body: str) -> Any:
        operations = [one["KV"] for one in json.loads(body)]
        refused = [place for place, one in enumerate(operations) if not self._may(one)]
        if refused:
            errors = {"Errors": [{"OpIndex": place, "What": "refused"} for place in refused]}
            raise Refused(409, json.dumps(errors))
        for one in operations:
            if one["Verb"] in ("delete", "delete-cas"):
                self._keys.pop(one["Key"], None)
                self._change()
            elif one["Verb"] != "check-session":
                value = base64.b64decode(one.get("Value") or "").decode()
                self._set(one["Key"], value, one.get("Flags", 0), one.get("Session"))
        return {"Results": [], "Errors": None}

    def create_session(self, _query: Mapping[str, str], body: str) -> Any:
        made = str(uuid.uuid4())
        self._sessions[made] = {"ID": made, "Name": json.loads(body or "{}").get("name", ""), "Node": NODE}
        self._change()
        return {"ID": made}

    def renew_session(self, session: str, _query: Mapping[str, str], _body: str) -> Any:
        if session not in self._sessions:
            self._refuse("renewal_of_an_absent_session", id=session)
        return [self._sessions[session]]

    def destroy_session(self, session: str, _query: Mapping[str, str], _body: str) -> Any:
        """End it; the keys that it holds are released."""
        self._sessions.pop(session, None)
        for one in self._keys.values():
            if one.get("Session") == session:
                del one["Session"]
                one["ModifyIndex"] = self._change()
        return True

    def session(self, session: str, _query: Mapping[str, str], _body: str) -> Any:
        return [self._sessions[session]] if session in self._sessions else []

    def sessions(self, node: str, _query: Mapping[str, str], _body: str) -> Any:
        return [*self._sessions.values()] if node == NODE else []

    def _require_key(self, key: str) -> None:
        refusal = self.recording["answers"].get("key_with_other_characters")
        if refusal is not None and not re.fullmatch(refusal["pattern"], key):
            raise Refused(refusal["status"], refusal["body"])

    def _may_lock(self, key: str, session: str) -> bool:
        return session in self._sessions and self._keys.get(key, {}).get("Session") in (None, session)

    def _may(self, one: Mapping[str, Any]) -> bool:
        there = self._keys.get(one["Key"])
        match one["Verb"]:
            case "lock":
                return self._may_lock(one["Key"], one["Session"])
            case "cas":
                return bool((there["ModifyIndex"] if there else 0) == one.get("Index", 0))
            case "delete-cas":
                return bool(there is None or there["ModifyIndex"] == one.get("Index", 0))
            case "check-session":
                return bool(there is not None and there.get("Session") == one["Session"])
            case _:
                return True

    def _set(self, key: str, value: str, flags: int, session: str | None) -> None:
        index, there = self._change(), self._keys.get(key)
        holder = session or (there or {}).get("Session")
        self._keys[key] = {
            "Key": key,
            "Value": base64.b64encode(value.encode()).decode(),
            "Flags": flags,
            "CreateIndex": there["CreateIndex"] if there else index,
            "ModifyIndex": index,
            **({"Session": holder} if holder else {}),
        }


def _found(some: list[Any]) -> list[Any]:
    if not some:
        raise Refused(404, "")
    return some


def _cut(key: str, prefix: str, separator: str) -> str:
    if not separator:
        return key
    head, found, _rest = key.removeprefix(prefix).partition(separator)
    return f"{prefix}{head}{found}"


_ROUTES: tuple[tuple[str, Callable[..., Any]], ...] = (
    (r"GET /v1/agent/self", RecordedAgent.agent_self),
    (r"GET /v1/agent/services", RecordedAgent.services),
    (r"GET /v1/agent/checks", RecordedAgent.checks),
    (r"GET /v1/agent/service/(.+)", RecordedAgent.service),
    (r"PUT /v1/agent/service/register", RecordedAgent.register_service),
    (r"PUT /v1/agent/service/deregister/(.+)", RecordedAgent.deregister_service),
    (r"PUT /v1/agent/service/maintenance/(.+)", RecordedAgent.maintenance),
    (r"PUT /v1/agent/check/register", RecordedAgent.register_check),
    (r"PUT /v1/agent/check/deregister/(.+)", RecordedAgent.deregister_check),
    (r"GET /v1/health/service/(.+)", RecordedAgent.health),
    (r"GET /v1/health/node/(.+)", RecordedAgent.node_health),
    (r"GET /v1/kv/(.*)", RecordedAgent.read_key),
    (r"PUT /v1/kv/(.+)", RecordedAgent.write_key),
    (r"DELETE /v1/kv/(.+)", RecordedAgent.delete_key),
    (r"PUT /v1/txn", RecordedAgent.transaction),
    (r"PUT /v1/session/create", RecordedAgent.create_session),
    (r"PUT /v1/session/renew/(.+)", RecordedAgent.renew_session),
    (r"PUT /v1/session/destroy/(.+)", RecordedAgent.destroy_session),
    (r"GET /v1/session/info/(.+)", RecordedAgent.session),
    (r"GET /v1/session/node/(.+)", RecordedAgent.sessions),
)


@contextmanager
def recorded_agent(release: str) -> Iterator[tuple[str, RecordedAgent]]:
    """Run such an agent on a port of its own; its address, and the agent."""
    agent = RecordedAgent(release)

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            status, text, headers = agent.answer(self.command, unquote(parts.path), query, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_PUT = do_DELETE = handle_any  # the names that the base class calls

    with serving(Handler) as address:
        yield address, agent
