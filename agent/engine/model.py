"""Docker's objects as plain data for other packages. No I/O, and no Docker SDK."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agent.data import dataclass

Inspect = Mapping[str, Any]
"""A JSON document of the Engine's API."""

HEALTH_OUTPUT_LENGTH = 200
LONG_AGO = datetime.min.replace(tzinfo=UTC)

DEFAULT_STOP_TIMEOUT = 10.0
"""Seconds between SIGTERM and SIGKILL if the container sets none (the Engine's own default)."""


@dataclass(frozen=True)
class Container:
    id: str
    name: str
    image_id: str
    image_ref: str
    """The image as it was named when the container was created."""
    is_running: bool
    exit_code: int
    restart_count: int
    started_at: str
    """RFC 3339, as Docker gives it; `0001-01-01T00:00:00Z` if it was never started."""
    health: str | None
    """``healthy``, ``starting``, ``unhealthy``; None without a HEALTHCHECK."""
    network_mode: str
    pid: int
    """In the Engine's PID namespace; 0 if it does not run."""
    stop_timeout: float | None
    """Seconds; None if the container sets none."""
    restart_policy: str
    """As ``docker run --restart`` takes it: ``no``, ``always``, ``unless-stopped``, ``on-failure:3``."""
    health_output: str = ""
    """The last output of its HEALTHCHECK, in one line."""
    status: str = ""
    """``created``, ``running``, ``paused``, ``restarting``, ``removing``, ``exited`` or ``dead``."""
    oom_killed: bool = False
    start_error: str = ""
    """Why Docker could not start it the last time; empty if it could."""

    @classmethod
    def of(cls, inspect: Inspect) -> "Container":
        """Parse the Engine's answer to ``GET /containers/<id>/json``."""
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
    """The old container did not stop on its stop signal; Docker killed it after the stop timeout."""


@dataclass(frozen=True)
class Fetched:
    """An image that svcagent pulled to deploy it."""

    image: str
    """The reference to it, as the definition wrote it."""
    digest: str
    """The registry's."""
    image_id: str
    """Docker's own ID of the image."""


@dataclass(frozen=True)
class PullProgress:
    """The progress of a pull. The sums grow while the registry's layers become known."""

    layers_done: int
    layers: int
    bytes_done: int
    bytes_total: int


def moment(text: str | None) -> datetime:
    """Parse RFC 3339, with up to nine decimals; no text and the year 1 mean `LONG_AGO`. Raise `ValueError`."""
    if not text:
        return LONG_AGO
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:  # the offset leads to a year below 1
        return LONG_AGO


def policy_text(policy: Inspect) -> str:
    """Return the Engine's RestartPolicy document in the form of ``docker run --restart``."""
    name = policy.get("Name") or "no"
    count = policy.get("MaximumRetryCount") or 0
    return f"{name}:{count}" if name == "on-failure" and count else name


def policy_document(text: str) -> dict[str, Any]:
    """Return the inverse of `policy_text`."""
    name, _, count = text.partition(":")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}
