"""The reload section of a definition: how a service is reloaded when its image has changed."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import ClassVar, TypeAlias

from agent.data import dataclass
from agent.definitions import durations
from agent.definitions.faults import Finding, InvalidValue, shown
from agent.definitions.image_name import repository_and_tag
from agent.definitions.strict_model import BOOLEAN, TEXT, ListOf, ObjectOf, Schema, StrictModel, ValueType, optional
from agent.definitions.values import (
    ABSOLUTE_PATH,
    COMMAND,
    CONTAINER_NAME,
    HTTP_URL,
    POSITIVE,
    POSITIVE_SECONDS,
    SECONDS,
)
from agent.definitions.windows import WINDOW, Window

OWN_PREFIX = "svcagent"
"""The folder in Consul KV with svcagent's documents."""

LOCK_FOLDER = "lock"

_KEY = re.compile(r"[A-Za-z0-9,._/?&=-]+")
"""What every release of Consul accepts as a key. A prefix is not escaped, because `consul lock` needs the same one."""

PULL_SECONDS = 60.0
"""The default time that a pull may make no progress, in seconds."""


def _image(value: str) -> str:
    if "@" in value:
        raise InvalidValue(
            f"{shown(value)} names one digest for ever", "write the tag that is to be followed, like web:latest"
        )
    if value.startswith("sha256:") or re.fullmatch(r"[0-9a-f]{64}", value):
        raise InvalidValue(
            f"{shown(value)} is an image's ID, which no registry knows", "write the image's name and tag"
        )
    try:
        _, tag = repository_and_tag(value)
    except ValueError:
        raise InvalidValue(
            f"{shown(value)} is not the name of an image", 'write it like "registry.example.com/web:latest"'
        ) from None
    return value if tag else f"{value}:latest"


def _schedule(value: str) -> str:
    problem, remedy = f"{shown(value)} is not a cron schedule", 'write five fields, like "*/10 * * * *"'
    if len(value.split()) != 5:
        raise InvalidValue(problem, remedy)
    if not _cron_fires(value):
        raise InvalidValue(problem, f"{remedy}, each within its range and together on a day that exists")
    return value


@cache
def _cron_fires(expression: str) -> bool:
    """True if cronsim accepts the expression and it matches some time."""
    from datetime import UTC, datetime

    from cronsim import CronSim, CronSimError  # only for those who have a schedule

    try:
        next(CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration):
        return False
    return True


def _timezone(value: str) -> str:
    from zoneinfo import ZoneInfo  # only for those who name one

    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise InvalidValue(
            f"{shown(value)} is not a time zone of this host", 'write it like "Europe/Berlin" or "UTC"'
        ) from None
    return value


def _lock(value: str) -> str:
    parts = value.split("/")
    if not _KEY.fullmatch(value) or ".." in value or not {"", ".", ".lock"}.isdisjoint(parts):
        raise InvalidValue(
            f"{shown(value)} is not a lock prefix",
            "write a key of Consul KV without slashes around it, of letters, digits and , . _ - / ? & = only (Consul "
            '1.21.5 refuses others), like "web_reload", and the same for every consul lock on it',
        )
    if parts[0] == OWN_PREFIX and not (len(parts) == 2 or (len(parts) == 3 and parts[2] == LOCK_FOLDER)):
        raise InvalidValue(
            f"{shown(value)} is where svcagent keeps its own documents",
            f'write "{OWN_PREFIX}/<service>/{LOCK_FOLDER}" or leave it out',
        )
    return value


def _windows(value: tuple[Window, ...]) -> tuple[Window, ...]:
    if not value:
        raise InvalidValue("the list is empty", "add a window, or leave it out: then a reload may begin at any time")
    return value


@dataclass(frozen=True)
class MinHealthy:
    """How many of the other instances must be passing: a number or a percentage."""

    value: int
    is_percent: bool = False

    def needed(self, others: int) -> int:
        """Return how many of that number of other instances must pass.

        A percentage is rounded up. Above 0 it needs at least one instance, even if no other one is known: an empty
        catalog does not prove that this host may leave clients without any.
        """
        if not self.is_percent:
            return self.value
        return max(math.ceil(others * self.value / 100), min(self.value, 1))

    def __str__(self) -> str:
        return f"{self.value}%" if self.is_percent else str(self.value)


def _min_healthy(value: object) -> MinHealthy:
    remedy = 'write a number of other instances, like 1, or a share of them, like "50%"'
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return MinHealthy(value=value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}%", value, re.ASCII) and int(value[:-1]) <= 100:
        return MinHealthy(value=int(value[:-1]), is_percent=True)
    raise InvalidValue(f"{shown(value)} is neither a number of instances nor a share", remedy)


_MIN_HEALTHY = ValueType(
    None,
    _min_healthy,
    anyOf=[{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^([0-9]|[1-9][0-9]|100)%$"}],
)


class Drain(StrictModel):
    """How clients are given time to leave, in seconds."""

    min: float = optional(SECONDS, "Wait at least this long after the service is out of DNS and health answers.", 0.0)
    max: float = optional(SECONDS, "Cut what is still connected after this long.", 30.0)
    connections: bool = optional(BOOLEAN, "Wait until no client is connected any more.", True)

    @classmethod
    def across(cls, given: Mapping[str, object]) -> Iterator[Finding]:
        least, most = (_known_seconds(given.get(name, default)) for name, default in (("min", 0.0), ("max", 30.0)))
        if least is not None and most is not None and most < least:
            limit = f'"{durations.text(most)}"' + ("" if "max" in given else " (the default)")
            yield Finding("max", f"{limit} is shorter than drain.min", f'write "{durations.text(least)}" or more')


def _known_seconds(value: object) -> float | None:
    """Return seconds, or None for a value that has its own fault."""
    if isinstance(value, float):
        return value if abs(value) * 1e9 <= durations.LONGEST else None
    try:
        known = durations.seconds(value) if isinstance(value, str) else None
    except durations.InvalidDuration:
        return None
    return None if known is None or known < 0 else known


class Ready(StrictModel):
    """When the new instance counts as ready, times in seconds."""

    timeout: float = optional(POSITIVE_SECONDS, "Roll back when it is not ready after this long.", 120.0)
    successes: int = optional(POSITIVE, "Rounds in a row in which every check must succeed.", 3)
    interval: float = optional(POSITIVE_SECONDS, "The time between two rounds.", 0.05)
    warmup: tuple[str, ...] = optional(ListOf(HTTP_URL), "URLs to be asked once before clients come back.", ())
    warmup_timeout: float = optional(POSITIVE_SECONDS, "How long each of these may take to answer.", 60.0)


class Settle(StrictModel):
    """How long a returned instance must stay healthy under traffic, in seconds."""

    canary: float = optional(
        SECONDS, "On the first host of a version; that one also waits until Consul has run each check once.", 10.0
    )
    each: float = optional(SECONDS, "On every further host.", 1.0)


class Hooks(StrictModel):
    """Commands of the operator's own around a reload, without a shell."""

    before_drain: tuple[str, ...] | None = optional(
        COMMAND, "Run before clients are sent away; if it fails, nothing is changed."
    )
    after_drain: tuple[str, ...] | None = optional(
        COMMAND, "Run when no client is left; if it fails, the service returns unchanged."
    )
    after_restart: tuple[str, ...] | None = optional(
        COMMAND, "Run when the new instance has been started; if it fails, the reload is rolled back."
    )
    after_return: tuple[str, ...] | None = optional(
        COMMAND, "Run when clients are back on the new instance; if it fails, that is a warning."
    )
    on_failure: tuple[str, ...] | None = optional(
        COMMAND, "Run when the reload has failed; if it fails too, that is a warning."
    )
    timeout: float = optional(POSITIVE_SECONDS, "How long each may take.", 60.0)


@dataclass(frozen=True)
class ContainerRestart:
    """Replace the container when the image has a newer digest.

    Times are in seconds. ``stop_timeout`` None means the container's own, ``min_age`` 0 an image of any age.
    """

    image: str
    container: str
    pull_timeout: float
    stop_timeout: float | None
    rollback: bool
    keep_images: int
    tag_file: Path | None
    min_age: float


CONTAINER_KEYS = tuple(field.name for field in fields(ContainerRestart))
"""Keys that have no meaning for a service that is restarted by a command."""


@dataclass(frozen=True)
class CommandRestart:
    """Run a command at each reload: there is no image that could be newer, and no old version to roll back to."""

    argv: tuple[str, ...]
    timeout: float


Strategy: TypeAlias = ContainerRestart | CommandRestart


class ReloadSection(StrictModel):
    """What to follow, what to restart, and how gently."""

    extra_schema: ClassVar[Schema] = {
        "oneOf": [
            {"required": ["image", "container"], "properties": {"restart": False, "restart_timeout": False}},
            {"required": ["restart"], "properties": dict.fromkeys(CONTAINER_KEYS, False)},
        ]
    }

    image: str = optional(TEXT.also(_image), "The image to follow, by name and tag; the tag is latest if left out.", "")
    container: str = optional(CONTAINER_NAME, "The container to recreate from the image.", "")
    restart: tuple[str, ...] | None = optional(
        COMMAND, "A command that restarts a service without an image; it runs at every reload, without a shell."
    )
    restart_timeout: float = optional(POSITIVE_SECONDS, "How long that command may take.", 120.0)
    schedule: str | None = optional(
        TEXT.also(_schedule), "When to look for a new image: five cron fields, with cron's own weekday numbers."
    )
    timezone: str | None = optional(
        TEXT.also(_timezone), "The time zone of schedule and windows; the host's own if left out."
    )
    jitter: float = optional(
        SECONDS, "Look up to this much later, so that hosts do not ask at one moment; always the same on one host.", 0.0
    )
    windows: tuple[Window, ...] = optional(
        ListOf(WINDOW, _windows),
        'When a reload may begin: times of day, with days or without, like "Mon-Fri 22:00-06:00". '
        "At any time if left out.",
        (),
    )
    lock: str | None = optional(
        TEXT.also(_lock),
        "The prefix of the lock in Consul KV, as consul lock takes it; by default svcagent/<service>/lock.",
    )
    max_parallel: int = optional(POSITIVE, "How many hosts may reload concurrently.", 1)
    min_healthy: MinHealthy = optional(
        _MIN_HEALTHY,
        "How many of the other instances must be passing: a number, or a percentage of those known within "
        "the last day, in the catalog or not. A percentage above 0 needs at least one.",
        MinHealthy(value=1),
    )
    drain: Drain = optional(ObjectOf(Drain), "How clients are given time to leave.", Drain())
    ready: Ready = optional(ObjectOf(Ready), "When the new instance counts as ready.", Ready())
    settle: Settle = optional(
        ObjectOf(Settle),
        "How long the new instance must stay healthy in service before the old one is removed and the "
        "next host may begin.",
        Settle(),
    )
    hooks: Hooks = optional(ObjectOf(Hooks), "Commands of your own to run on the way.", Hooks())
    pull_timeout: float = optional(
        POSITIVE_SECONDS,
        "Abort a download of the image that makes no progress for this long; unpacking may take ten times as long.",
        PULL_SECONDS,
    )
    stop_timeout: float | None = optional(
        SECONDS, "How long the container may take to stop; its own setting, at most 10m, if left out."
    )
    rollback: bool = optional(BOOLEAN, "Put the old container back when the new one does not become ready.", True)
    keep_images: int = optional(POSITIVE, "How many images of this name to keep.", 2)
    tag_file: Path | None = optional(ABSOLUTE_PATH, "A file that gets the tag deployed.")
    min_age: float = optional(SECONDS, "Leave an image that was built less than this ago for later.", 0.0)

    @property
    def strategy(self) -> Strategy:
        if self.restart is not None:
            return CommandRestart(self.restart, self.restart_timeout)
        return ContainerRestart(**{key: getattr(self, key) for key in CONTAINER_KEYS})

    def lock_prefix(self, service_name: str) -> str:
        """Return the lock's prefix in Consul KV.

        Consul compares service names without case, so the default has the name in lower case. It is a separate folder
        below the service's, because a semaphore is read with everything below its prefix.
        """
        return self.lock or f"{OWN_PREFIX}/{service_name.lower()}/{LOCK_FOLDER}"

    @classmethod
    def across(cls, given: Mapping[str, object]) -> Iterator[Finding]:
        if given.get("restart") is not None:
            for key in CONTAINER_KEYS:
                if key in given:
                    yield Finding(
                        key, 'belongs to a container, and a service with "restart" has none', 'remove it or "restart"'
                    )
            return
        if "restart_timeout" in given:
            yield Finding("restart_timeout", 'there is no "restart" that it could limit', "remove it")
        if "restart" in given:
            return  # null, which has its own fault
        if "image" not in given and "container" not in given:
            yield Finding(
                "",
                "says neither what image to follow nor how to restart",
                'add "image" and "container", or "restart" for a service without a container',
            )
            return
        for key, what in (
            ("image", "the image to follow"),
            ("container", "the container to recreate from the image"),
        ):
            if key not in given:
                yield Finding(key, "missing", f'add "{key}": {what}')
