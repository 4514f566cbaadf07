"""Whether a container is stopped, and whether an operator stopped it. Pure.

Docker does not report who stopped a container, so its state decides:

- ``docker stop`` ends a program by its stop signal or, if that is ignored, by SIGKILL after the stop timeout. A program
  that handles the signal exits with 0 or another status.
- Docker restarts what ends by itself under ``always`` and ``unless-stopped``, and what fails under ``on-failure`` until
  its retries are used up. A container that exited although Docker would have restarted it was stopped by an operator.
- A kill by the kernel for lack of memory, a failed start, and an error status that nothing would restart are crashes.

A program that ends by itself with status 0, and that Docker does not restart, looks like a stopped one. It counts as
stopped by an operator: svcagent reports it, and does not start it against an operator's will.
"""

import re
import signal

from agent.data import dataclass
from agent.engine.model import Container

STOP_CODES = frozenset({0, 128 + 2, 128 + 3, 128 + 9, 128 + 15})
"""Exit statuses of programs that were asked to end: 0, or by SIGINT, SIGQUIT, SIGKILL or SIGTERM."""


@dataclass(frozen=True)
class StoppedContainer:
    """A container that does not serve: what is wrong, how to start it, and whether an operator stopped it."""

    what: str
    start: str
    by_hand: bool

    @property
    def remedy(self) -> str:
        return f"to start it, run: {self.start}" if self.start else "create it, for example with docker run"

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def find_stopped(name: str, container: Container | None) -> StoppedContainer | None:
    """Return how the container is stopped; None if it runs, or if Docker restarts it."""
    start = f"docker start {name}"
    if container is None:
        return StoppedContainer(f"container {name} does not exist", "", by_hand=False)
    match container.status:
        case "paused":
            return StoppedContainer(
                f"container {name} is paused (docker pause)", f"docker unpause {name}", by_hand=True
            )
        case "created" if not container.start_error:
            return StoppedContainer(f"container {name} has never been started", start, by_hand=True)
        case "created" | "exited" | "dead":
            by_hand = container.status == "exited" and _is_by_hand(container)
            return StoppedContainer(f"container {name} {_cause(container, by_hand=by_hand)}", start, by_hand)
    return None


def is_stop_signal(number: str, configured: str | None) -> bool:
    """True if a signal asks a container's program to end: its stop signal, or one of `STOP_CODES`.

    ``configured``: the stop signal in any form that Docker accepts, such as ``SIGINT``, ``INT``, ``2`` or ``RTMIN+3``.
    """
    found = re.fullmatch(r"(?:SIG)?([A-Z0-9]+)([+-][0-9]+)?", (configured or "").upper())
    known = signal.Signals.__members__.get(f"SIG{found[1]}") if found else None
    stop = configured if found is None or known is None else str(known + int(found[2] or 0))
    return number == stop or (number.isdigit() and 128 + int(number) in STOP_CODES)


def _is_by_hand(container: Container) -> bool:
    if container.oom_killed or container.start_error:
        return False
    policy, _, retries = container.restart_policy.partition(":")
    if policy in ("always", "unless-stopped") or container.exit_code in STOP_CODES:
        return True
    return policy == "on-failure" and (not retries or container.restart_count < int(retries))


def _cause(container: Container, *, by_hand: bool) -> str:
    if container.start_error:
        return f"is stopped: it could not be started ({container.start_error})"
    if container.oom_killed:
        return "is stopped: it was killed because it ran out of memory"
    if not by_hand:
        return f"is stopped: it exited with status {container.exit_code}"
    if container.exit_code == 0 and container.restart_policy.partition(":")[0] not in ("always", "unless-stopped"):
        return "ended with status 0; svcagent treats it as stopped by an operator"
    return f"was stopped by an operator (exit status {container.exit_code})"
