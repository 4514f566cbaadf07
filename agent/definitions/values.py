"""Types of single values, shared by the models. Each refuses what Consul, Docker or DNS would refuse or misread."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.definitions import durations
from agent.definitions.faults import Finding, InvalidValue, kind_of, shown
from agent.definitions.strict_model import BAD, TEXT, ListOf, Location, ValueType, path_of, rule, whole, wrong_type
from agent.text import without_credentials

HOW_TO_WRITE_A_DURATION = 'write a number with a unit, like "10s" or "1m30s"'

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_AUTHORITY = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(:[0-9]*)?")
_DOCKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")


def duration(value: object) -> float:
    """Return the seconds of duration text of any sign."""
    if not isinstance(value, str):
        raise InvalidValue(f"{shown(value)} is {kind_of(value)}, not a duration", HOW_TO_WRITE_A_DURATION)
    try:
        return durations.seconds(value)
    except durations.InvalidDuration:
        raise InvalidValue(f"{shown(value)} is not a duration", HOW_TO_WRITE_A_DURATION) from None


def _not_negative(value: float) -> float:
    if value < 0:
        raise InvalidValue(f'"{durations.text(value)}" must not be negative', 'write "0s" or more')
    return value


def _positive(value: float) -> float:
    if value <= 0:
        raise InvalidValue(f'"{durations.text(value)}" must be greater than 0', 'write it like "10s"')
    return value


def _positive_text(value: object) -> object:
    _positive(duration(value))
    return value


_DURATION = r"^[+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$"

SECONDS = ValueType(None, duration, _not_negative, type="string", pattern=_DURATION)
"""A duration that may be zero, in seconds."""

POSITIVE_SECONDS = ValueType(None, duration, _positive, type="string", pattern=_DURATION)
"""A duration longer than zero, in seconds."""

DURATION_TEXT = ValueType(None, _positive_text, type="string", pattern=_DURATION)
"""A duration longer than zero, kept as the text that Consul gets."""


def at_least(shortest: str) -> Callable[[str], str]:
    """Return a check for a `DURATION_TEXT` that Consul would silently raise to its own minimum."""

    def check(value: str) -> str:
        if durations.seconds(value) < durations.seconds(shortest):
            raise InvalidValue(f"{shown(value)} is shorter than Consul's minimum", f'write "{shortest}" or more')
        return value

    return check


label = rule(
    lambda value: _LABEL.fullmatch(value) and len(value) <= 63,
    "cannot be looked up in DNS",
    "write at most 63 letters, digits, dashes and underscores, without a dash at either end",
)
"""Accept one DNS label that both Consul's DNS and the resolvers of clients look up; Consul registers any other too.

Consul warns about underscores, but resolves them. It also resolves a dash at either end, which resolvers refuse.
"""


def identifier(value: str) -> str:
    """Accept a service ID or CheckID that can be printed, typed and addressed. Empty means left out, as for Consul."""
    if not value.isprintable() or value != value.strip():
        raise InvalidValue(
            f"{shown(value)} is not a valid ID", "write printable characters, without spaces around them"
        )
    if value and not is_addressable(value):
        raise InvalidValue(
            f"{shown(value)} is not a valid ID: Consul's API cannot address it",
            'write no part between slashes that is empty, "." or ".."',
        )
    return value


def is_addressable(path: str) -> bool:
    """True if no part between slashes is empty, ``.`` or ``..``; a slash at the end may be there.

    Go's router cleans a path after decoding it, so ``a/../b`` would address ``b``, another service (Consul 1.8). Other
    characters are safe in requests: all except the slash, which Consul accepts, are quoted.
    """
    return {"", ".", ".."}.isdisjoint(path.removesuffix("/").split("/"))


not_empty = rule(str.strip, "is empty", "write a value, or leave the key out")


def host(value: str) -> str:
    import ipaddress  # 5 ms, for the few definitions that give an address

    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST.fullmatch(value) or re.fullmatch(r"[0-9.]+", value):
            raise InvalidValue(
                f"{shown(value)} is neither an IP address nor a host name", 'write it like "10.0.0.7"'
            ) from None
    return value


# An address that means every host's own: Consul refuses to publish it.
_not_every_address = rule(
    lambda value: value.strip("0.:"), "is a wildcard address", "write the address that clients should use"
)


def file_path(value: object) -> Path:
    if not isinstance(value, str):
        raise InvalidValue(
            f"{shown(value)} is {kind_of(value)}, not a path", 'write it in quotes, like "/var/lib/web/tag"'
        )
    if not value.strip() or not value.isprintable():
        raise InvalidValue(f"{shown(value)} is not a path", 'write it like "/var/lib/web/tag"')
    return Path(value)


_absolute = rule(Path.is_absolute, "is a relative path", "write an absolute path")


def http_url(value: str) -> str:
    """Accept an absolute URL that the probes of Consul and svcagent can both request."""
    try:
        parts = urlsplit(value)
        # Python takes the 8080 of "[::1]8080" for a part of the host, and uses port 80.
        is_host_port = _AUTHORITY.fullmatch(parts.netloc.rpartition("@")[2])
        is_usable = parts.scheme in {"http", "https"} and parts.hostname and is_host_port and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise InvalidValue(
            f"{shown(value)} is not an http or https URL", 'write it in full, like "http://127.0.0.1:8080/hc"'
        )
    if not value.isprintable() or " " in value:
        raise InvalidValue(f"{shown(value)} contains a space or a control character", "escape it, like %20")
    return value


def host_port(value: str) -> str:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:/\s]+)):([0-9]{1,9})", value)
    if found is None:
        raise InvalidValue(f"{shown(value)} is not host:port", 'write it like "127.0.0.1:8080" or "[::1]:8080"')
    if not 1 <= int(found[3]) <= 65535:
        raise InvalidValue(f"port {found[3]} is out of range", "write a port from 1 to 65535")
    host(found[1] or found[2])
    return value


def _command(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not value[0].strip():
        raise InvalidValue(
            "the command is empty", 'write the program and its arguments, like ["/usr/local/bin/check", "-v"]'
        )
    if len(words := value[0].split()) > 1:
        raise InvalidValue(
            f"{shown(value[0])} is not a program", f"write each word as an item: {shown([*words, *value[1:]])}"
        )
    if any("\0" in argument for argument in value):
        raise InvalidValue("an argument contains a NUL character", "remove it")
    return value


class _CommandType(ListOf):
    def read(self, value: Any, at: Location, found: list[Finding]) -> Any:
        if not isinstance(value, str) or not value.strip():
            return super().read(value, at, found)
        safe = without_credentials(value)
        try:
            words = shlex.split(safe)
        except ValueError:  # an open quotation mark
            words = safe.split()
        found.append(Finding(path_of(at), wrong_type(safe, tuple, is_secret=False).problem, f"write {shown(words)}"))
        return BAD


container = rule(
    _DOCKER_NAME.fullmatch,
    "is not a container name",
    "write two or more letters, digits, _ . or -, beginning with a letter or digit",
)

LABEL = TEXT.also(label)
IDENTIFIER = TEXT.also(identifier)
NON_EMPTY = TEXT.also(not_empty)
HOST = TEXT.also(host, _not_every_address)
HTTP_URL = TEXT.also(http_url)
HOST_PORT = TEXT.also(host_port)
CONTAINER_NAME = TEXT.also(container)
COMMAND = _CommandType(TEXT, _command)
"""A program and its arguments, run without a shell."""
FILE_PATH = ValueType(None, file_path, type="string", minLength=1)
ABSOLUTE_PATH = ValueType(None, file_path, _absolute, type="string", pattern="^/")
PORT = whole(minimum=1, maximum=65535)
MOST = 2**31 - 1
"""The largest number that every program it is passed to can hold."""
COUNT = whole(minimum=0, maximum=MOST)
POSITIVE = whole(minimum=1, maximum=MOST)


class Secret:
    """Text that messages and tracebacks do not show."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other.reveal()

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(…)"


SECRET = TEXT.also(Secret)
