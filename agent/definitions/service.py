"""A service in Consul's own format."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from agent.definitions.checks import Check
from agent.definitions.faults import Finding, InvalidValue, shown
from agent.definitions.strict_model import (
    BOOLEAN,
    TEXT,
    TOKEN_REFUSAL,
    ListOf,
    MapOf,
    ObjectOf,
    Refusal,
    StrictModel,
    always,
    optional,
    required,
    rule,
    whole,
)
from agent.definitions.values import HOST, IDENTIFIER, LABEL, PORT

OWN_MARK = "svcagent"
"""The prefix of svcagent's own meta keys."""

META_PAIRS = 64
META_KEY_LENGTH = 128
META_VALUE_LENGTH = 512
"""Consul's limits: pairs, bytes of a key, bytes of a value."""

MOST_CHECKS = 30
"""The limit per service: svcagent's mark names each check, and must fit into a meta value while all are replaced."""

UNSUPPORTED_KEYS = ("kind", "proxy", "connect", "namespace", "socketpath", "locality")
_UNSUPPORTED = always("svcagent does not register proxies, mesh services or namespaces", "remove it")


# By this name, Consul finds its servers.
_not_consul = rule(lambda value: value.lower() != "consul", "is reserved for Consul's servers", "choose another name")


def _meta(value: dict[str, str]) -> dict[str, str]:
    if len(value) > META_PAIRS - 1:
        raise InvalidValue(
            f"{len(value)} pairs are too many",
            f"write at most {META_PAIRS - 1}: Consul stores {META_PAIRS}, and svcagent uses one",
        )
    for key, item in value.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", key) or len(key) > META_KEY_LENGTH:
            raise InvalidValue(
                f"Consul refuses the key {shown(key)}",
                f"write at most {META_KEY_LENGTH} letters, digits, dashes and underscores",
            )
        if key.lower().startswith(("consul-", OWN_MARK)):
            raise InvalidValue(f"the key {shown(key)} is reserved", "choose another prefix")
        size = len(item.encode(errors="surrogatepass"))
        if size > META_VALUE_LENGTH:
            raise InvalidValue(
                f"the value of {shown(key)} is {size} bytes long", f"write at most {META_VALUE_LENGTH} bytes"
            )
    return value


_tag = rule(lambda value: value and value.isprintable(), "is not a valid tag", "write at least one printable character")


class TaggedAddress(StrictModel):
    """The service's address in one network."""

    example = '{"address": "10.0.0.7"}'

    address: str = required(HOST, "An IP address or host name.")
    port: int | None = optional(PORT, "The service's port in that network.")

    def fields(self) -> dict[str, Any]:
        return {"Address": self.address} | ({} if self.port is None else {"Port": self.port})


class NamedPort(StrictModel):
    """One of several ports of a service."""

    example = '{"name": "http", "port": 8080, "default": true}'

    name: str = required(LABEL, "The name of the port, which Consul DNS looks up.")
    port: int = required(PORT, "The port that clients connect to.")
    default: bool = optional(BOOLEAN, "Use this port for clients that name none.", False)

    def fields(self) -> dict[str, Any]:
        return {"Name": self.name, "Port": self.port, "Default": self.default}


def _ports(value: tuple[NamedPort, ...]) -> tuple[NamedPort, ...]:
    for name, times in Counter(one.name for one in value).items():
        if times > 1:
            raise InvalidValue(f"{shown(name)} is the name of {times} ports", "give each port a different name")
    if sum(one.default for one in value) != 1:
        raise InvalidValue("exactly one port must be the default", 'write "default": true in one of them')
    return value


def _networks(value: dict[str, TaggedAddress]) -> dict[str, TaggedAddress]:
    for key in value:
        if not key or not key.isprintable():
            raise InvalidValue(f"the key {shown(key)} is not the name of a network", 'write it like "lan" or "wan"')
    return value


class Weights(StrictModel):
    """The instance's weights in SRV answers."""

    example = '{"passing": 10, "warning": 1}'

    passing: int = optional(whole(minimum=1, maximum=65535), "While it is passing.", 1)
    warning: int = optional(whole(minimum=0, maximum=65535), "While it is warning.", 1)


class Service(StrictModel):
    """One service instance on this host, and its checks."""

    example = '{"name": "web", "port": 8080}'

    refused: ClassVar[Mapping[str, Refusal]] = {"token": TOKEN_REFUSAL} | dict.fromkeys(UNSUPPORTED_KEYS, _UNSUPPORTED)

    name: str = required(LABEL.also(_not_consul), "The name that clients look up.")
    id: str = optional(IDENTIFIER.also(_not_consul), "The instance's ID, unique on the host; the name if left out.", "")
    tags: tuple[str, ...] = optional(ListOf(TEXT.also(_tag)), "Labels that clients can filter by.", ())
    port: int | None = optional(PORT, "The port that clients connect to.")
    ports: tuple[NamedPort, ...] | None = optional(
        ListOf(ObjectOf(NamedPort), _ports), "Several ports instead of one. Consul 1.22 and later."
    )
    address: str | None = optional(HOST, "The address for clients; the node's own if left out.")
    meta: dict[str, str] = optional(MapOf(TEXT, _meta), "Key-value pairs for clients.", {})
    tagged_addresses: dict[str, TaggedAddress] = optional(
        MapOf(ObjectOf(TaggedAddress), _networks), "Addresses for other networks: lan, wan, …", {}
    )
    weights: Weights = optional(ObjectOf(Weights), "The instance's weights in SRV answers.", Weights())
    enable_tag_override: bool = optional(BOOLEAN, "Let others change the tags in the catalog.", False)
    check: Check | None = optional(ObjectOf(Check), "Consul's old form for a single check; it is added to the checks.")
    checks: tuple[Check, ...] = optional(ListOf(ObjectOf(Check)), "The health checks; all must pass.", ())

    @classmethod
    def across(cls, given: Mapping[str, object]) -> Iterator[Finding]:
        """Refuse both a port and several ports, and too many checks."""
        if "port" in given and "ports" in given:
            yield Finding("ports", '"port" and "ports" are both in one service', "keep one of them")
        checks = given.get("checks", ())
        count = len(checks) + ("check" in given) if isinstance(checks, tuple) else 0
        if count > MOST_CHECKS:
            remedy = f"write at most {MOST_CHECKS}, or combine several in one check"
            yield Finding("checks", f"{count} checks are too many", remedy)

    @classmethod
    def completed(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields with the service's ID and all checks, each with an ID and a name.

        A computed ID includes the kind. Otherwise, for the same ID with another kind, Consul would keep running the old
        check next to the new one.
        """
        service_id = given.get("id") or given["name"]
        single: Check | None = given.get("check")
        seen: Counter[str | None] = Counter()
        identified = []
        for check in (*(() if single is None else (single,)), *given.get("checks", ())):
            kind = check.kind_if_any()
            seen[kind] += 1
            nth = f":{seen[kind]}" if seen[kind] > 1 else ""
            own = {
                "id": check.id or f"service:{service_id}:{kind}{nth}",
                "name": check.name or f"Service '{given['name']}' check",
            }
            identified.append(check.replace(**own))
        return {**given, "id": service_id, "checks": tuple(identified)}

    def registration(self) -> dict[str, Any]:
        """Return the body for ``PUT /v1/agent/service/register``.

        Optional fields that were left out are omitted, except for the ID of every check: Consul would number the checks
        in order, and moving a check would give its status to another one.
        """
        body: dict[str, Any] = {
            "ID": self.id,
            "Name": self.name,
            "Tags": list(self.tags),
            "Meta": dict(self.meta),
            "Weights": {"Passing": self.weights.passing, "Warning": self.weights.warning},
            "EnableTagOverride": self.enable_tag_override,
            "Checks": [{"CheckID": check.id, **check.fields()} for check in self.checks],
        }
        if self.port is not None:
            body["Port"] = self.port
        if self.ports is not None:
            body["Ports"] = [one.fields() for one in self.ports]
        if self.address:
            body["Address"] = self.address
        if self.tagged_addresses:
            body["TaggedAddresses"] = {name: tagged.fields() for name, tagged in self.tagged_addresses.items()}
        return body
