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
        raise InvalidValue(f"{shown(value)} is pinned to a digest", "write the tag to follow, like web:latest")
    if value.startswith("sha256:") or re.fullmatch(r"[0-9a-f]{64}", value):
        raise InvalidValue(
            f"{shown(value)} is an image ID, which registries do not know", "write the image's name and tag"
        )
    try:
        _, tag = repository_and_tag(value)
    except ValueError:
        raise InvalidValue(
            f"{shown(value)} is not an image name", 'write it like "registry.example.com/web:latest"'
        ) from None
    return value if tag else f"{value}:latest"


def _schedule(value: str) -> str:
    given = value.split()
    if len(given) != len(_CRON_FIELDS):
        raise InvalidValue(f"{shown(value)} is not a cron schedule", 'write five fields, like "*/10 * * * *"')
    if _cron_fires(value):
        return value
    for place, (name, least, most) in enumerate(_CRON_FIELDS):
        alone = ["*"] * len(given)
        alone[place] = given[place]
        if not _cron_fires(" ".join(alone)):
            numbers = [int(number) for number in re.findall(r"[0-9]{1,9}", given[place])]
            wrong = next((number for number in numbers if not least <= number <= most), None)
            problem = f"{shown(given[place])} is not valid" if wrong is None else f"{wrong} is out of range"
            raise InvalidValue(f"{name} {problem} ({least}-{most})", 'write five fields, like "*/10 * * * *"')
    raise InvalidValue(f"{shown(value)} never occurs", "write a day of the month that exists in the month")


_CRON_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7))
"""The fields of a cron schedule, each with its range."""


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
            "write a Consul KV key of letters, digits and , . _ - / ? & = (Consul 1.21.5 refuses others), without a "
            'slash at either end, like "web_reload"; use the same prefix for every consul lock',
        )
    if parts[0] == OWN_PREFIX and not (len(parts) == 2 or (len(parts) == 3 and parts[2] == LOCK_FOLDER)):
        raise InvalidValue(
            f"{shown(value)} is reserved for svcagent's documents",
            f'write "{OWN_PREFIX}/<service>/{LOCK_FOLDER}" or leave the key out',
        )
    return value


def _windows(value: tuple[Window, ...]) -> tuple[Window, ...]:
    if not value:
        raise InvalidValue("the list is empty", "add a window, or leave the key out to allow reloads at any time")
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
    remedy = 'write a number of other instances, like 1, or a percentage of them, like "50%"'
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return MinHealthy(value=value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}%", value, re.ASCII) and int(value[:-1]) <= 100:
        return MinHealthy(value=int(value[:-1]), is_percent=True)
    raise InvalidValue(f"{shown(value)} is neither a number of instances nor a percentage", remedy)


_MIN_HEALTHY = ValueType(
    None,
    _min_healthy,
    anyOf=[{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^([0-9]|[1-9][0-9]|100)%$"}],
)


class Drain(StrictModel):
    """How clients are drained, in seconds."""

    example = '{"max": "30s"}'

    min: float = optional(
        SECONDS, "Wait at least this long after DNS and health answers no longer contain the service.", 0.0
    )
    max: float = optional(SECONDS, "Stop waiting after this long; the restart then cuts open connections.", 30.0)
    connections: bool = optional(BOOLEAN, "Wait until all client connections are closed.", True)

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

    example = '{"timeout": "120s"}'

    timeout: float = optional(POSITIVE_SECONDS, "Roll back when it is not ready after this long.", 120.0)
    successes: int = optional(POSITIVE, "Rounds in a row in which every check must succeed.", 3)
    interval: float = optional(POSITIVE_SECONDS, "The time between two rounds.", 0.05)
    warmup: tuple[str, ...] = optional(ListOf(HTTP_URL), "URLs to request once before clients return.", ())
    warmup_timeout: float = optional(POSITIVE_SECONDS, "The time limit of each of these requests.", 60.0)


class Settle(StrictModel):
    """How long a returned instance must stay healthy under traffic, in seconds."""

    example = '{"canary": "10s", "each": "1s"}'

    canary: float = optional(
        SECONDS, "On the first host of a version; that one also waits until Consul has run each check once.", 10.0
    )
    each: float = optional(SECONDS, "On every further host.", 1.0)


class Hooks(StrictModel):
    """The operator's commands around a reload, run without a shell."""

    example = '{"after_restart": ["/usr/local/bin/warm-up"]}'

    before_drain: tuple[str, ...] | None = optional(COMMAND, "Run before the drain; if it fails, nothing is changed.")
    after_drain: tuple[str, ...] | None = optional(
        COMMAND, "Run after the drain; if it fails, the service returns to clients unchanged."
    )
    after_restart: tuple[str, ...] | None = optional(
        COMMAND, "Run after the new instance has started; if it fails, the reload is rolled back."
    )
    after_return: tuple[str, ...] | None = optional(
        COMMAND, "Run after the new instance has returned to clients; a failure is only a warning."
    )
    on_failure: tuple[str, ...] | None = optional(
        COMMAND, "Run after the reload has failed; a failure is only a warning."
    )
    timeout: float = optional(POSITIVE_SECONDS, "The time limit of each command.", 60.0)


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
    """Which image to follow, what to restart, and how."""

    example = '{"image": "registry.example.com/web:latest", "container": "web"}'

    extra_schema: ClassVar[Schema] = {
        "oneOf": [
            {"required": ["image", "container"], "properties": {"restart": False, "restart_timeout": False}},
            {"required": ["restart"], "properties": dict.fromkeys(CONTAINER_KEYS, False)},
        ]
    }

    image: str = optional(TEXT.also(_image), "The image to follow, by name and tag; the tag is latest if left out.", "")
    container: str = optional(CONTAINER_NAME, "The container to recreate with that image.", "")
    restart: tuple[str, ...] | None = optional(
        COMMAND, "A command that restarts a service without an image; it runs at every reload, without a shell."
    )
    restart_timeout: float = optional(POSITIVE_SECONDS, "The time limit of that command.", 120.0)
    schedule: str | None = optional(
        TEXT.also(_schedule), "When to look for a new image: five cron fields, with cron's own weekday numbers."
    )
    timezone: str | None = optional(
        TEXT.also(_timezone), "The time zone of schedule and windows; the host's own if left out."
    )
    jitter: float = optional(
        SECONDS,
        "Delay each run by up to this long, so that hosts do not query the registry together; constant per host.",
        0.0,
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
        "How many other instances must be passing before this one is drained: a number, or a percentage of all "
        "instances seen in the last 24 hours, even if no longer in the catalog. A percentage above 0 requires at "
        "least one. Set 0 for a service on one host.",
        MinHealthy(value=1),
    )
    drain: Drain = optional(ObjectOf(Drain), "How clients are drained.", Drain())
    ready: Ready = optional(ObjectOf(Ready), "When the new instance counts as ready.", Ready())
    settle: Settle = optional(
        ObjectOf(Settle),
        "How long the new instance must stay healthy in service before the old one is removed and the "
        "next host may begin.",
        Settle(),
    )
    hooks: Hooks = optional(ObjectOf(Hooks), "The operator's commands to run during a reload.", Hooks())
    pull_timeout: float = optional(
        POSITIVE_SECONDS,
        "Abort a download of the image that makes no progress for this long; unpacking may take ten times as long.",
        PULL_SECONDS,
    )
    stop_timeout: float | None = optional(
        SECONDS, "How long the container may take to stop; its own setting, at most 10m, if left out."
    )
    rollback: bool = optional(BOOLEAN, "Restore the old container if the new one does not become ready.", True)
    keep_images: int = optional(POSITIVE, "How many images of this name to keep.", 2)
    tag_file: Path | None = optional(ABSOLUTE_PATH, "A file to which the deployed tag is written.")
    min_age: float = optional(SECONDS, "Defer an image that was built less than this long ago.", 0.0)

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
                        key, 'applies to a container, and a service with "restart" has none', 'remove it or "restart"'
                    )
            return
        if "restart_timeout" in given:
            yield Finding("restart_timeout", 'requires "restart"', 'add "restart", or remove it')
        if "restart" in given:
            return  # null, which has its own fault
        if "image" not in given and "container" not in given:
            if not given.keys() <= cls.keys.keys():
                return  # an unknown key, which has its own fault, may be meant
            yield Finding(
                "",
                'neither "image" nor "restart" is given',
                'add "image" and "container", or "restart" for a service without a container',
            )
            return
        for key, what in (
            ("image", "the image to follow"),
            ("container", "the container to recreate"),
        ):
            if key not in given:
                yield Finding(key, "missing", f'add "{key}": {what}')
