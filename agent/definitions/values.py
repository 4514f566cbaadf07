"""Types for single values, shared by the models: each refuses what Consul, Docker or DNS would refuse or misread."""

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from agent.definitions import durations
from agent.definitions.faults import Wrong, kind_of, shown

HOW_TO_WRITE_A_DURATION = 'write a number with a unit, like "10s" or "1m30s"'

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_DOCKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")


def duration(value: object) -> float:
    """Seconds, for duration text of any sign."""
    if not isinstance(value, str):
        raise Wrong(f"{shown(value)} is {kind_of(value)}, not a duration", HOW_TO_WRITE_A_DURATION)
    try:
        return durations.seconds(value)
    except durations.NotADuration:
        raise Wrong(f"{shown(value)} is not a duration", HOW_TO_WRITE_A_DURATION) from None


def _seconds(value: object, info: ValidationInfo) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and info.context is None else duration(value)  # type: ignore[arg-type]  # is_number


def _not_negative(value: float) -> float:
    if value < 0:
        raise Wrong(f'"{durations.text(value)}" is less than nothing', 'write "0s" or more')
    return value


def _positive(value: float) -> float:
    if value <= 0:
        raise Wrong(f'"{durations.text(value)}" is no time at all', "write more than zero")
    return value


def _positive_text(value: object) -> object:
    _positive(duration(value))
    return value


_DURATION_SCHEMA = {"type": "string", "pattern": r"^[+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$"}

Seconds = Annotated[
    float, BeforeValidator(_seconds), AfterValidator(_not_negative), WithJsonSchema({**_DURATION_SCHEMA})
]
"""A duration that may be zero, in seconds."""

PositiveSeconds = Annotated[
    float, BeforeValidator(_seconds), AfterValidator(_positive), WithJsonSchema({**_DURATION_SCHEMA})
]
"""A duration longer than zero, in seconds."""

DurationText = Annotated[str, BeforeValidator(_positive_text), WithJsonSchema({**_DURATION_SCHEMA})]
"""A duration longer than zero, kept as Consul is told it."""


def at_least(shortest: str) -> AfterValidator:
    """For a `DurationText` that Consul silently raises to its own minimum."""

    def check(value: str) -> str:
        if durations.seconds(value) < durations.seconds(shortest):
            raise Wrong(f"{shown(value)} is shorter than Consul's minimum", f'write "{shortest}" or more')
        return value

    return AfterValidator(check)


def label(value: str) -> str:
    """Accept one DNS label that Consul's DNS and the resolvers of clients look up; Consul registers any other too.

    Consul warns about underscores, but resolves them. It also resolves a dash at either end, which resolvers refuse.
    """
    if not _LABEL.fullmatch(value) or len(value) > 63:
        raise Wrong(
            f"{shown(value)} cannot be looked up in DNS",
            "write at most 63 letters, digits, dashes and underscores, without a dash at either end",
        )
    return value


def identifier(value: str) -> str:
    """A service ID or CheckID: what can be printed and typed. Empty is left out, as it is for Consul."""
    if not value.isprintable() or value != value.strip():
        raise Wrong(f"{shown(value)} cannot be an ID", "write printable characters, without spaces around them")
    return value


def not_empty(value: str) -> str:
    """Text that says something."""
    if not value.strip():
        raise Wrong(f"{shown(value)} is empty", "write something, or leave it out")
    return value


def host(value: str) -> str:
    """An IP address or host name."""
    import ipaddress  # 5 ms, for the few definitions that give an address

    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST.fullmatch(value) or re.fullmatch(r"[0-9.]+", value):
            raise Wrong(
                f"{shown(value)} is neither an IP address nor a host name", 'write it like "10.0.0.7"'
            ) from None
    return value


def _not_every_address(value: str) -> str:
    """Consul refuses to tell clients an address that means whichever host they are on."""
    if value.strip("0.:") == "":
        raise Wrong(f"{shown(value)} stands for every address", "write the address that clients should use")
    return value


def file_path(value: object, info: ValidationInfo) -> Path:
    """A path, absolute or not."""
    if isinstance(value, Path) and info.context is None:
        return value
    if not isinstance(value, str):
        raise Wrong(f"{shown(value)} is {kind_of(value)}, not a path", 'write it in quotes, like "/var/lib/web/tag"')
    if not value.strip() or not value.isprintable():
        raise Wrong(f"{shown(value)} is not a path", 'write it like "/var/lib/web/tag"')
    return Path(value)


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        raise Wrong(f"{shown(str(value))} depends on where svcagent is started", "write the path from / on")
    return value


def http_url(value: str) -> str:
    """An absolute URL that the probes of Consul and svcagent can both ask."""
    try:
        parts = urlsplit(value)
        is_usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise Wrong(f"{shown(value)} is not an http or https URL", 'write it in full, like "http://127.0.0.1:8080/hc"')
    if not value.isprintable() or " " in value:
        raise Wrong(f"{shown(value)} holds a space or a control character", "escape it, like %20")
    return value


def host_port(value: str) -> str:
    """``host:port``, an IPv6 address in brackets."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})", value)
    if found is None or not 1 <= int(found[3]) <= 65535:
        raise Wrong(f"{shown(value)} is not host:port", 'write it like "127.0.0.1:8080" or "[::1]:8080"')
    host(found[1] or found[2])
    return value


def _command(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not value[0].strip():
        raise Wrong("the command is empty", 'write the program and its arguments, like ["/usr/local/bin/check", "-v"]')
    if any("\0" in argument for argument in value):
        raise Wrong("an argument holds a NUL character", "no program can be given one: remove it")
    return value


def container(value: str) -> str:
    """A name that Docker gives to containers."""
    if not _DOCKER_NAME.fullmatch(value):
        raise Wrong(
            f"{shown(value)} is not a container name",
            "write two or more letters, digits, _ . or -, beginning with a letter or digit",
        )
    return value


Label = Annotated[str, AfterValidator(label)]
Identifier = Annotated[str, AfterValidator(identifier)]
Filled = Annotated[str, AfterValidator(not_empty)]
Host = Annotated[str, AfterValidator(host), AfterValidator(_not_every_address)]
HttpUrl = Annotated[str, AfterValidator(http_url)]
HostPort = Annotated[str, AfterValidator(host_port)]
ContainerName = Annotated[str, AfterValidator(container)]
Command = Annotated[tuple[str, ...], AfterValidator(_command)]
"""A program and its arguments; no shell sees them."""
FilePath = Annotated[Path, BeforeValidator(file_path), WithJsonSchema({"type": "string", "minLength": 1})]
AbsolutePath = Annotated[
    Path,
    BeforeValidator(file_path),
    AfterValidator(_absolute),
    WithJsonSchema({"type": "string", "pattern": "^/"}),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
