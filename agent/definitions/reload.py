"""How a service is reloaded when its image has changed."""

import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from agent.definitions import durations
from agent.definitions.faults import Finding, Wrong, shown
from agent.definitions.part import Part, Refusal, always
from agent.definitions.values import AbsolutePath, ContainerName, HttpUrl, Positive, PositiveSeconds, Seconds

OWN_PREFIX = "svcagent"
"""Where svcagent keeps its documents in Consul KV."""

NOT_YET = frozenset({"restart", "windows", "hooks", "minage"})
"""Promised keys, folded, that this version would ignore."""

_IMAGE = re.compile(
    r"(?P<name>((?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\])(:[0-9]+)?/)?"
    r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
)
_NOT_CARRIED_OUT = "not carried out by this version of svcagent"


def _image(value: str) -> str:
    if "@" in value:
        raise Wrong(
            f"{shown(value)} names one digest for ever", "write the tag that is to be followed, like web:latest"
        )
    if value.startswith("sha256:") or re.fullmatch(r"[0-9a-f]{64}", value):
        raise Wrong(f"{shown(value)} is an image's ID, which no registry knows", "write the image's name and tag")
    found = _IMAGE.fullmatch(value)
    if found is None:
        raise Wrong(f"{shown(value)} is not the name of an image", 'write it like "registry.example.com/web:latest"')
    return value if found["tag"] else f"{value}:latest"


def _schedule(value: str) -> str:
    problem, remedy = f"{shown(value)} is not a cron schedule", 'write five fields, like "*/10 * * * *"'
    if len(value.split()) != 5:
        raise Wrong(problem, remedy)
    if not _cron_fires(value):
        raise Wrong(problem, f"{remedy}, each within its range and together on a day that exists")
    return value


@cache
def _cron_fires(expression: str) -> bool:
    """Is this an expression that cronsim understands, and that comes true some day?"""
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
        raise Wrong(
            f"{shown(value)} is not a time zone of this host", 'write it like "Europe/Berlin" or "UTC"'
        ) from None
    return value


def _lock(value: str) -> str:
    parts = value.split("/")
    if not value.isprintable() or not all(part.strip() for part in parts) or ".lock" in parts:
        raise Wrong(
            f"{shown(value)} is not a lock prefix",
            'write a key of Consul KV without slashes around it, like "web_reload"',
        )
    if parts[0] == OWN_PREFIX and len(parts) != 2:
        raise Wrong(
            f"{shown(value)} is where svcagent keeps its own documents",
            f'write "{OWN_PREFIX}/<service>" or leave it out',
        )
    return value


class MinHealthy(Part):
    """How many of the other instances must be passing: a number of them, or a share."""

    value: int = Field(ge=0)
    is_percent: bool = False

    def needed(self, others: int) -> int:
        """Of so many other instances, how many must pass; a share is rounded up."""
        return math.ceil(others * self.value / 100) if self.is_percent else self.value

    def __str__(self) -> str:
        return f"{self.value}%" if self.is_percent else str(self.value)


def _min_healthy(value: object) -> MinHealthy:
    remedy = 'write a number of other instances, like 1, or a share of them, like "50%"'
    if isinstance(value, MinHealthy):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return MinHealthy(value=value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}%", value, re.ASCII) and int(value[:-1]) <= 100:
        return MinHealthy(value=int(value[:-1]), is_percent=True)
    raise Wrong(f"{shown(value)} is neither a number of instances nor a share", remedy)


_MIN_HEALTHY_SCHEMA = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^([0-9]|[1-9][0-9]|100)%$"}]
}


class Drain(Part):
    """How clients are given time to leave, in seconds."""

    min: Seconds = Field(0.0, description="Wait at least this long after the service is out of DNS and health answers.")
    max: Seconds = Field(30.0, description="Cut what is still connected after this long.")
    connections: bool = Field(True, description="Wait until no client is connected any more.")

    @classmethod
    def across(cls, given: Mapping[str, object]) -> Iterator[Finding]:
        """The limit may not come before the minimum."""
        least, most = (_known_seconds(given.get(name, default)) for name, default in (("min", 0.0), ("max", 30.0)))
        if least is not None and most is not None and most < least:
            limit = f'"{durations.text(most)}"' + ("" if "max" in given else " (the default)")
            yield Finding("max", f"{limit} is shorter than drain.min", f'write "{durations.text(least)}" or more')


def _known_seconds(value: object) -> float | None:
    """Seconds, or None for what is a fault of its own."""
    if isinstance(value, float):
        return value if abs(value) * 1e9 <= durations.LONGEST else None
    try:
        known = durations.seconds(value) if isinstance(value, str) else None
    except durations.NotADuration:
        return None
    return None if known is None or known < 0 else known


class Ready(Part):
    """When the new instance counts as ready, times in seconds."""

    timeout: PositiveSeconds = Field(120.0, description="Roll back when it is not ready after this long.")
    successes: Positive = Field(3, description="Rounds in a row in which every check must succeed.")
    interval: PositiveSeconds = Field(0.05, description="The time between two rounds.")
    warmup: tuple[HttpUrl, ...] = Field((), description="URLs to be asked once before clients come back.")


class Reload(Part):
    """What to follow, what to recreate, and how gently."""

    # Ignoring these silently would be dangerous: an unheeded window restarts a service at noon.
    refused: ClassVar[Mapping[str, Refusal]] = dict.fromkeys(NOT_YET, always(_NOT_CARRIED_OUT, "remove it"))

    image: Annotated[str, AfterValidator(_image)] = Field(
        description="The image to follow, by name and tag; the tag is latest if left out."
    )
    container: ContainerName = Field(description="The container to be made anew from the image.")
    schedule: Annotated[str, AfterValidator(_schedule)] | None = Field(
        None, description="When to look for a new image: five cron fields, with cron's own weekday numbers."
    )
    timezone: Annotated[str, AfterValidator(_timezone)] | None = Field(
        None, description="The time zone of the schedule; the host's own if left out."
    )
    jitter: Seconds = Field(0.0, description="Look up to this much later, by chance, so that hosts do not ask at once.")
    lock: Annotated[str, AfterValidator(_lock)] | None = Field(
        None,
        description="The prefix of the lock in Consul KV, as consul lock takes it; svcagent/<service> if left out.",
    )
    max_parallel: Positive = Field(1, description="How many hosts may reload at once.")
    min_healthy: Annotated[MinHealthy, BeforeValidator(_min_healthy), WithJsonSchema(_MIN_HEALTHY_SCHEMA)] = Field(
        MinHealthy(value=1),
        description="How many of the other instances must be passing: a number, or a percentage of them.",
    )
    drain: Drain = Field(Drain(), description="How clients are given time to leave.")
    ready: Ready = Field(Ready(), description="When the new instance counts as ready.")
    stop_timeout: Seconds | None = Field(
        None, description="How long the container may take to stop; its own setting if left out."
    )
    rollback: bool = Field(True, description="Put the old container back when the new one does not become ready.")
    keep_images: Positive = Field(2, description="How many images of this name to keep.")
    tag_file: AbsolutePath | None = Field(None, description="A file that gets the tag deployed.")

    def lock_prefix(self, service_name: str) -> str:
        """Where the lock stands in Consul KV."""
        return self.lock or f"{OWN_PREFIX}/{service_name}"

    @classmethod
    def across(cls, given: Mapping[str, Any]) -> Iterator[Finding]:
        """Reloading several hosts at once is promised, and not there yet."""
        parallel = given.get("max_parallel")
        if isinstance(parallel, int) and not isinstance(parallel, bool) and parallel > 1:
            yield Finding("max_parallel", f"more than 1 is {_NOT_CARRIED_OUT}", "remove it")
