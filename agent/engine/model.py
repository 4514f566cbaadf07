"""What other rooms get to see of Docker, as plain data. No I/O, and no Docker SDK."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agent.data import dataclass

Inspect = Mapping[str, Any]
"""A JSON document as the Engine's API gives it."""

HEALTH_OUTPUT_LENGTH = 200
LONG_AGO = datetime.min.replace(tzinfo=UTC)

DEFAULT_STOP_TIMEOUT = 10.0
"""Seconds between SIGTERM and SIGKILL where the container does not say (the Engine's own default)."""


@dataclass(frozen=True)
class Container:
    """A container at the moment it was looked at."""

    id: str
    name: str
    image_id: str
    image_ref: str
    """The image as whoever made the container named it."""
    is_running: bool
    exit_code: int
    restart_count: int
    started_at: str
    """RFC 3339, as Docker gives it; `0001-01-01T00:00:00Z` when it was never started."""
    health: str | None
    """``healthy``, ``starting``, ``unhealthy``; None without a HEALTHCHECK."""
    network_mode: str
    pid: int
    """In the Engine's PID namespace; 0 when not running."""
    stop_timeout: float | None
    """Seconds; None when the container does not say."""
    restart_policy: str
    """As ``docker run --restart`` takes it: ``no``, ``always``, ``unless-stopped``, ``on-failure:3``."""
    health_output: str = ""
    """What its HEALTHCHECK said last, in one line."""
    status: str = ""
    """``created``, ``running``, ``paused``, ``restarting``, ``removing``, ``exited`` or ``dead``."""
    oom_killed: bool = False
    start_error: str = ""
    """Why Docker could not start it the last time; empty if it could."""

    @classmethod
    def of(cls, inspect: Inspect) -> "Container":
        """Read the Engine's answer to ``GET /containers/<id>/json``."""
        state, config, host = inspect["State"], inspect["Config"], inspect["HostConfig"]
        health_log = (state.get("Health") or {}).get("Log") or [{}]
        health = (state.get("Health") or {}).get("Status")
        return cls(
            id=inspect["Id"],
            name=inspect["Name"].removeprefix("/"),
            image_id=inspect["Image"],
            image_ref=config["Image"],
            # Docker reports a container that waits for its next restart as running.
            is_running=bool(state["Running"]) and not state.get("Restarting", False),
            exit_code=state["ExitCode"],
            restart_count=inspect.get("RestartCount", 0),
            started_at=state["StartedAt"],
            health=None if health in (None, "", "none") else health,
            network_mode=host["NetworkMode"],
            pid=state["Pid"],
            stop_timeout=config.get("StopTimeout"),
            restart_policy=policy_text(host.get("RestartPolicy") or {}),
            health_output=" ".join(str(health_log[-1].get("Output") or "").split())[:HEALTH_OUTPUT_LENGTH],
            status=state.get("Status") or "",
            oom_killed=bool(state.get("OOMKilled")),
            start_error=" ".join(str(state.get("Error") or "").split())[:HEALTH_OUTPUT_LENGTH],
        )


@dataclass(frozen=True)
class Replacement:
    """What `Engine.replace` did, and how long its steps took."""

    old_id: str
    new_id: str
    stop_seconds: float
    start_seconds: float
    was_killed: bool
    """The old one did not stop on its stop signal; Docker killed it when the stop timeout was over."""


@dataclass(frozen=True)
class Fetched:
    """An image that svcagent brought to this host to deploy it."""

    image: str
    """The reference that stood for it, as the definition wrote it."""
    digest: str
    """The registry's."""
    image_id: str
    """Docker's own ID of the image."""


@dataclass(frozen=True)
class PullProgress:
    """How far a pull is. Sums grow while the registry's layers become known."""

    layers_done: int
    layers: int
    bytes_done: int
    bytes_total: int


def moment(text: str | None) -> datetime:
    """RFC 3339, with an offset and up to nine digits of a second; long ago for nothing, and for the year 1.

    :raises ValueError: it is not a time.
    """
    if not text:
        return LONG_AGO
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:  # the offset leads out of the calendar
        return LONG_AGO


def policy_text(policy: Inspect) -> str:
    """The Engine's RestartPolicy document, as ``docker run --restart`` takes it."""
    name = policy.get("Name") or "no"
    count = policy.get("MaximumRetryCount") or 0
    return f"{name}:{count}" if name == "on-failure" and count else name


def policy_document(text: str) -> dict[str, Any]:
    """The inverse of `policy_text`."""
    name, _, count = text.partition(":")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}
