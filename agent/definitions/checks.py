"""Health checks of every kind that Consul has.

Consul accepts fields that a kind does not use, and ignores them; here each is a fault.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from agent.definitions import durations
from agent.definitions.faults import Finding, InvalidValue, listed, shown
from agent.definitions.strict_model import (
    BOOLEAN,
    TEXT,
    TOKEN_REFUSAL,
    ListOf,
    MapOf,
    Refusal,
    StrictModel,
    always,
    choice,
    optional,
    rule,
    whole,
)
from agent.definitions.values import (
    COMMAND,
    CONTAINER_NAME,
    COUNT,
    DURATION_TEXT,
    HOST_PORT,
    HTTP_URL,
    IDENTIFIER,
    NON_EMPTY,
    at_least,
    host_port,
    not_empty,
)

Kind = Literal["http", "tcp", "udp", "grpc", "h2ping", "ttl", "args", "docker", "alias_service", "alias_node"]

KIND_OF: Mapping[str, Kind] = {
    "http": "http",
    "tcp": "tcp",
    "udp": "udp",
    "grpc": "grpc",
    "h2ping": "h2ping",
    "ttl": "ttl",
    "docker_container_id": "docker",
    "args": "args",
    "alias_service": "alias_service",
    "alias_node": "alias_node",
}
"""The field that determines a check's kind. Of two fields that may occur together, the first one here decides."""

ALLOWED_TOGETHER = ({"docker_container_id", "args"}, {"alias_service", "alias_node"})

RUN_BY_CONSUL = frozenset({"http", "tcp", "udp", "grpc", "h2ping", "args", "docker"})

USED_BY: Mapping[str, frozenset[str]] = {
    "interval": RUN_BY_CONSUL,
    "timeout": RUN_BY_CONSUL,
    "method": frozenset({"http"}),
    "header": frozenset({"http"}),
    "body": frozenset({"http"}),
    "disable_redirects": frozenset({"http"}),
    "tls_skip_verify": frozenset({"http", "tcp", "grpc", "h2ping"}),
    "tls_server_name": frozenset({"http", "tcp", "grpc", "h2ping"}),
    "tcp_use_tls": frozenset({"tcp"}),
    "grpc_use_tls": frozenset({"grpc"}),
    "h2ping_use_tls": frozenset({"h2ping"}),
    "shell": frozenset({"docker"}),
    "success_before_passing": RUN_BY_CONSUL,
    "failures_before_warning": RUN_BY_CONSUL,
    "failures_before_critical": RUN_BY_CONSUL,
    "output_max_size": RUN_BY_CONSUL | {"ttl"},
}
"""The kinds that use a field. All kinds use a field that is not listed here."""

DEFAULT_TIMEOUT = 10.0
"""Consul's default timeout of HTTP, TCP and gRPC checks, in seconds."""

LARGEST_OUTPUT = 1 << 20
"""In bytes. Consul allocates that much at each run of a command, and stores the output on its servers."""

_RESERVED_IDS = ("_service_maintenance", "_node_maintenance", "serfHealth")


# Consul would treat the status of a check with one of its maintenance IDs as maintenance.
_check_id = rule(
    lambda value: not value.startswith(_RESERVED_IDS), "is a CheckID that Consul reserves", "choose another ID"
)
_method = rule(lambda value: re.fullmatch(r"[A-Z]+", value), "is not an HTTP method", 'write it like "GET" or "HEAD"')


def _grpc(value: str) -> str:
    address, slash, service = value.partition("/")
    host_port(address)
    if slash and not re.fullmatch(r"[A-Za-z0-9_.\-/]+", service):
        raise InvalidValue(f"{shown(value)} is not host:port/service", 'write it like "127.0.0.1:9090/my.Service"')
    return value


def _header(value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    for name, lines in value.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise InvalidValue(f"{shown(name)} is not the name of an HTTP header", 'write it like "Authorization"')
        if any(not line.isprintable() for line in lines):
            raise InvalidValue(f"the header {shown(name)} contains a control character", "remove it")
    return value


class Check(StrictModel):
    """One health check of a service."""

    example = '{"http": "http://127.0.0.1:8080/", "interval": "10s"}'

    spellings: ClassVar[Mapping[str, str]] = {"checkid": "id", "scriptargs": "args"}
    refused: ClassVar[Mapping[str, Refusal]] = {
        "osservice": lambda given: InvalidValue(
            "Consul runs os_service checks on Windows only",
            f'write {{"args": ["systemctl", "is-active", "--quiet", {shown(given["osservice"])}], "interval": "10s"}}',
        ),
        "script": lambda given: InvalidValue(
            "Consul no longer supports script checks", f"write {_replacement_of(given)} instead"
        ),
        "serviceid": always("a check always belongs to the service that contains it", "remove it"),
        "token": TOKEN_REFUSAL,
    }

    id: str = optional(
        IDENTIFIER.also(_check_id),
        "The CheckID, unique on the host; made from the service's ID and the check's kind if left out.",
        "",
    )
    name: str = optional(TEXT, "The check's display name; Consul's default if left out.", "")
    http: str | None = optional(HTTP_URL, "A URL; passing for status 2xx, warning for 429, else critical.")
    method: str | None = optional(TEXT.also(_method), "The HTTP method; GET if left out.")
    header: dict[str, tuple[str, ...]] = optional(
        MapOf(ListOf(TEXT), _header), "HTTP request headers, a list of values each.", {}
    )
    body: str | None = optional(TEXT, "The HTTP request's body.")
    disable_redirects: bool = optional(BOOLEAN, "Do not follow redirects. Consul 1.12 and later.", False)
    tls_skip_verify: bool = optional(BOOLEAN, "Accept any certificate of the service.", False)
    tls_server_name: str | None = optional(NON_EMPTY, "The server name for TLS (SNI). Consul 1.9 and later.")
    tcp: str | None = optional(HOST_PORT, "host:port; passing while it accepts connections.")
    tcp_use_tls: bool = optional(
        BOOLEAN, "Also complete a TLS handshake. Consul 1.14.10, 1.15.6, 1.16.2 and later releases of each.", False
    )
    udp: str | None = optional(HOST_PORT, "host:port; passing unless it is refused. Consul 1.13 and later.")
    grpc: str | None = optional(
        TEXT.also(_grpc), "host:port, or host:port/service; checked with gRPC's health checking protocol."
    )
    grpc_use_tls: bool = optional(BOOLEAN, "Use TLS for the gRPC check.", False)
    h2ping: str | None = optional(HOST_PORT, "host:port; an HTTP/2 ping. Consul 1.10 and later.")
    h2ping_use_tls: bool | None = optional(BOOLEAN, "Ping over TLS; true if left out. Consul 1.11 and later.")
    ttl: str | None = optional(DURATION_TEXT, "The service must report its status at least this often.")
    args: tuple[str, ...] | None = optional(
        COMMAND, "A command; exit code 0 is passing, 1 warning, anything else critical."
    )
    docker_container_id: str | None = optional(CONTAINER_NAME, "Run the command inside this container.")
    shell: str | None = optional(NON_EMPTY, "The shell that runs the command inside the container.")
    alias_service: str | None = optional(IDENTIFIER.also(not_empty), "Follow the health of the service with this ID.")
    alias_node: str | None = optional(
        NON_EMPTY,
        "Follow the health of this node, or of alias_service on it. "
        "Consul 1.8's agent crashes when the catalog does not know the node.",
    )
    interval: str | None = optional(DURATION_TEXT.also(at_least("1s")), "The time between two runs; 1s or more.")
    timeout: str | None = optional(DURATION_TEXT, "The time limit of a run.")
    notes: str | None = optional(TEXT, "A note for operators.")
    status: str | None = optional(
        choice("passing", "warning", "critical"), "The status until the first run; critical if left out."
    )
    deregister_critical_service_after: str | None = optional(
        DURATION_TEXT.also(at_least("1m")),
        "Deregister the service when the check has been critical for this long; 1m or more.",
    )
    success_before_passing: int | None = optional(COUNT, "Successes in a row before it is passing.")
    failures_before_warning: int | None = optional(
        COUNT, "Failures in a row before it is warning. Consul 1.11 and later."
    )
    failures_before_critical: int | None = optional(COUNT, "Failures in a row before it is critical.")
    output_max_size: int | None = optional(whole(minimum=1, maximum=LARGEST_OUTPUT), "Bytes of output to keep.")

    @property
    def kind(self) -> Kind:
        kind = self.kind_if_any()
        if kind is None:
            raise AttributeError("a check of no kind; validation refuses it")
        return kind

    def kind_if_any(self) -> Kind | None:
        """Return the kind, or None for a check that validation is about to refuse."""
        return next((kind for field, kind in KIND_OF.items() if getattr(self, field) is not None), None)

    @property
    def interval_seconds(self) -> float:
        """The time between two runs; 0.0 for the kinds that Consul does not run (TTL, alias)."""
        return 0.0 if self.interval is None else durations.seconds(self.interval)

    @property
    def timeout_seconds(self) -> float:
        return DEFAULT_TIMEOUT if self.timeout is None else durations.seconds(self.timeout)

    def fields(self) -> dict[str, Any]:
        """Return the check in the API's spelling, without its ID, whose spelling differs between calls."""
        given = {name: getattr(self, field) for field, name in API_NAMES.items() if field in self.given}
        # False is the default of every switch but this one: Consul pings over TLS unless the field says otherwise.
        is_plain = {"H2PingUseTLS": False} if self.h2ping_use_tls is False else {}
        return {name: _plain(value) for name, value in given.items() if value not in ("", None, False, {})} | is_plain

    def registration(self) -> dict[str, Any]:
        """Return the body for ``PUT /v1/agent/check/register``, without ``ServiceID``.

        The ID is ``ID`` there and ``CheckID`` in a service's registration; Consul answers 400 to the wrong one.
        """
        return {"ID": self.id, **self.fields()}

    @classmethod
    def across(cls, given: Mapping[str, object]) -> Iterator[Finding]:
        if not given.keys().isdisjoint(("script", "osservice")):
            return  # they have their own faults
        makers = [field for field in KIND_OF if field in given]
        if not makers:
            if given.keys() <= cls.keys.keys():  # an unknown key, which has its own fault, may be meant as the type
                yield Finding("", "the check has no type", f"add {listed(KIND_OF)}")
            return
        if len(makers) > 1 and set(makers) not in ALLOWED_TOGETHER:
            yield Finding("", f"{' and '.join(map(shown, makers))} are in one check", "make them separate checks")
            return
        kind = KIND_OF[makers[0]]
        if kind == "docker" and "args" not in given:
            yield Finding("args", "missing", "add the command to run inside the container")
        if kind in RUN_BY_CONSUL and "interval" not in given:
            yield Finding("interval", "missing", 'add how often to check, like "interval": "10s"')
        yield from _unused(kind, given)
        before_warning, before_critical = given.get("failures_before_warning"), given.get("failures_before_critical", 0)
        if isinstance(before_warning, int) and isinstance(before_critical, int) and before_warning > before_critical:
            yield Finding(
                "failures_before_warning",
                f"{before_warning} is more than failures_before_critical, which is {before_critical}",
                f"write {before_critical} or less, or raise failures_before_critical",
            )


_CAPITALS = frozenset({"grpc", "http", "id", "tcp", "tls", "ttl", "udp"})


def _api_name(field: str) -> str:
    return "".join(word.upper() if word in _CAPITALS else word.capitalize() for word in field.split("_"))


API_NAMES: Mapping[str, str] = {
    **{field: _api_name(field) for field in Check.keys if field != "id"},
    "h2ping": "H2PING",
    "h2ping_use_tls": "H2PingUseTLS",
}
"""The name of each field in Consul's API."""


def _unused(kind: Kind, given: Mapping[str, object]) -> Iterator[Finding]:
    for field, kinds in USED_BY.items():
        if field in given and kind not in kinds:
            yield Finding(field, f"a check of type {shown(kind)} does not use it", "remove it")
    if kind == "tcp" and given.get("tcp_use_tls") is not True:
        for field in ("tls_server_name", "tls_skip_verify"):
            if field in given:
                remedy = 'add "tcp_use_tls": true, or remove it'
                yield Finding(field, 'a check of type "tcp" without TLS does not use it', remedy)


def _plain(value: object) -> object:
    """Return JSON's own types, so that a sent value compares equal to the value that Consul returns."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _replacement_of(given: Mapping[str, object]) -> str:
    """Return the check to write for an old script check: HTTP if the command contains a URL."""
    script, every = given["script"], given.get("interval", "10s")
    command = script if isinstance(script, str) else ""
    url = re.search(r"https?://[^\s'\"<>|;]+", command)
    if url is not None:
        return f'{{"http": {shown(url[0])}, "interval": {shown(every)}}}'
    return f'{{"args": ["/bin/sh", "-c", {shown(command or "…")}], "interval": {shown(every)}}}'
