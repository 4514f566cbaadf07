"""A service in Consul's own format."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from agent.definitions.checks import Check
from agent.definitions.faults import Finding, Wrong, shown
from agent.definitions.part import OWN_TOKEN, Part, Refusal, always
from agent.definitions.values import Host, Identifier, Label, Port

OWN_MARK = "svcagent"
"""What the keys of svcagent's own meta begin with."""

META_PAIRS = 64
META_KEY_LENGTH = 128
META_VALUE_LENGTH = 512
"""Consul's limits: pairs, bytes of a key, bytes of a value."""

MOST_CHECKS = 30
"""Of one service: svcagent's mark names each check, and fits a value of meta even while all are exchanged."""

NOT_CARRIED = ("kind", "proxy", "connect", "namespace", "socketpath", "locality")
_BEYOND = always("svcagent does not register proxies, mesh services or namespaces", "remove it")


def _not_consul(value: str) -> str:
    """Under its own name Consul finds its servers."""
    if value.lower() == "consul":
        raise Wrong(f"{shown(value)} is Consul's own service", "choose another name")
    return value


def _meta(value: dict[str, str]) -> dict[str, str]:
    if len(value) > META_PAIRS - 1:
        raise Wrong(
            f"{len(value)} pairs are too many", f"Consul keeps {META_PAIRS}, and svcagent marks its services with one"
        )
    for key, item in value.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", key) or len(key) > META_KEY_LENGTH:
            raise Wrong(
                f"the key {shown(key)} is refused by Consul",
                f"write at most {META_KEY_LENGTH} letters, digits, dashes and underscores",
            )
        if key.lower().startswith(("consul-", OWN_MARK)):
            raise Wrong(f"the key {shown(key)} is reserved", "choose another beginning")
        if len(item.encode()) > META_VALUE_LENGTH:
            raise Wrong(
                f"the value of {shown(key)} is {len(item.encode())} bytes long", f"Consul keeps {META_VALUE_LENGTH}"
            )
    return value


def _tag(value: str) -> str:
    if not value or not value.isprintable():
        raise Wrong(f"{shown(value)} cannot be a tag", "write at least one printable character")
    return value


class TaggedAddress(Part):
    """Where the service is reached from one sort of network."""

    address: Host = Field(description="An IP address or host name.")
    port: Port | None = Field(None, description="The port there.")

    def fields(self) -> dict[str, Any]:
        """The address in the API's spelling."""
        return {"Address": self.address} | ({} if self.port is None else {"Port": self.port})


class NamedPort(Part):
    """One of several ports of a service."""

    name: Label = Field(description="The name of the port, which Consul DNS looks up.")
    port: Port = Field(description="The port that clients connect to.")
    default: bool = Field(False, description="Give this port to clients that name none.")

    def fields(self) -> dict[str, Any]:
        """The port in the API's spelling."""
        return {"Name": self.name, "Port": self.port, "Default": self.default}


def _ports(value: tuple[NamedPort, ...]) -> tuple[NamedPort, ...]:
    for name, times in Counter(one.name for one in value).items():
        if times > 1:
            raise Wrong(f"{shown(name)} is the name of {times} ports", "give each port a different name")
    if sum(one.default for one in value) != 1:
        raise Wrong("not exactly one of the ports is the default", 'write "default": true in one of them')
    return value


def _networks(value: dict[str, TaggedAddress]) -> dict[str, TaggedAddress]:
    for key in value:
        if not key or not key.isprintable():
            raise Wrong(f"the key {shown(key)} is not the name of a network", 'write it like "lan" or "wan"')
    return value


class Weights(Part):
    """The service's share of the answers to SRV lookups."""

    passing: Annotated[int, Field(ge=1, le=65535)] = Field(1, description="While it is passing.")
    warning: Annotated[int, Field(ge=0, le=65535)] = Field(1, description="While it is warning.")


class Service(Part):
    """One service instance on this host, and its checks."""

    refused: ClassVar[Mapping[str, Refusal]] = {"token": OWN_TOKEN} | dict.fromkeys(NOT_CARRIED, _BEYOND)

    name: Annotated[Label, AfterValidator(_not_consul)] = Field(description="The name that clients look up.")
    id: Annotated[Identifier, AfterValidator(_not_consul)] = Field(
        "", description="The instance's ID, unique on the host; the name if left out.", validate_default=True
    )
    tags: tuple[Annotated[str, AfterValidator(_tag)], ...] = Field((), description="Labels that clients may ask for.")
    port: Port | None = Field(None, description="The port that clients connect to.")
    ports: Annotated[tuple[NamedPort, ...], AfterValidator(_ports)] | None = Field(
        None, description="Several ports in place of one. Consul 1.22 and later."
    )
    address: Host | None = Field(None, description="The address for clients; the node's own if left out.")
    meta: Annotated[dict[str, str], AfterValidator(_meta)] = Field(
        default_factory=dict, description="Pairs of text for clients."
    )
    tagged_addresses: Annotated[dict[str, TaggedAddress], AfterValidator(_networks)] = Field(
        default_factory=dict, description="Addresses for other networks: lan, wan, …"
    )
    weights: Weights = Field(Weights(), description="How much of the SRV lookups' traffic this instance gets.")
    enable_tag_override: bool = Field(False, description="Let others change the tags in the catalog.")
    check: Check | None = Field(None, description="Consul's old form of a single check; joins the checks.", repr=False)
    checks: tuple[Check, ...] = Field((), description="The health checks; all must pass.", validate_default=True)

    @classmethod
    def across(cls, given: Mapping[str, object]) -> Iterator[Finding]:
        """One port or several."""
        if "port" in given and "ports" in given:
            yield Finding("ports", '"port" and "ports" stand in one service', "keep one of them")

    @field_validator("id")
    @classmethod
    def _named_id(cls, value: str, info: ValidationInfo) -> str:
        return value or str(info.data.get("name", ""))

    @field_validator("checks")
    @classmethod
    def _identified(cls, value: tuple[Check, ...], info: ValidationInfo) -> tuple[Check, ...]:
        """All checks, each with an ID and a name of its own.

        The kind is part of a computed ID because Consul, told of another kind under the same ID, goes on running the
        old check beside the new one.
        """
        single: Check | None = info.data.get("check")
        checks = value if single is None else (single, *value)
        if len(checks) > MOST_CHECKS:
            raise Wrong(
                f"{len(checks)} checks are too many", f"write {MOST_CHECKS} at most, or let one ask for several things"
            )
        if "name" not in info.data or not info.data.get("id"):
            return checks
        seen: Counter[str | None] = Counter()
        identified = []
        for check in checks:
            kind = check.kind_if_any()
            seen[kind] += 1
            nth = f":{seen[kind]}" if seen[kind] > 1 else ""
            own = {
                "id": check.id or f"service:{info.data['id']}:{kind}{nth}",
                "name": check.name or f"Service '{info.data['name']}' check",
            }
            identified.append(check.model_copy(update=own))
        return tuple(identified)

    def registration(self) -> dict[str, Any]:
        """The body for ``PUT /v1/agent/service/register``.

        Optional parts that were left out are left out here too, but for the ID of every check: Consul would number
        them in order, and moving a check would hand its status to another.
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
