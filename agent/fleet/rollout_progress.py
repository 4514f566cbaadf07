"""The state of a rollout: under way, finished or stuck. No I/O."""

from collections.abc import Callable
from datetime import datetime, timedelta

from agent.data import dataclass
from agent.fleet.agree import HostProgress, progress
from agent.fleet.host_state import HostState, HostStatus, InstanceKey, states_on
from agent.fleet.rollout import Pin
from agent.fleet.view import FleetView

_SAMPLES = 1000


def _always(_moment: datetime) -> bool:
    return True


@dataclass(frozen=True)
class RolloutProgress:
    """A service's rollout, as far as it is known at ``now``.

    ``awaited`` are the instances that could take a new image, ``held_out`` those in an operator's maintenance, ``down``
    those on hosts that are down. ``suspects`` are the instances whose reload disappeared (`agent.fleet.suspect`). Hosts
    do not continue before an image has ``min_age`` (counted from the pin; the image is older) or while ``is_open`` is
    False (outside the service's windows).
    """

    service: str
    view: FleetView
    awaited: frozenset[InstanceKey]
    now: datetime
    stuck_after: timedelta
    held_out: frozenset[InstanceKey] = frozenset()
    min_age: timedelta = timedelta()
    is_open: Callable[[datetime], bool] = _always
    down: frozenset[InstanceKey] = frozenset()
    suspects: tuple[HostState, ...] = ()

    @property
    def pin(self) -> Pin | None:
        """The pin, if it is readable."""
        found = self.view.pin
        return None if found is None or found.problem else found

    @property
    def host_progress(self) -> HostProgress:
        return progress(self.pin, self.view.hosts, self.awaited) if self.pin else HostProgress()

    @property
    def is_incomplete(self) -> bool:
        """True if hosts have yet to take the digest. False for a quarantined digest, which no host takes."""
        return self.pin is not None and bool(self.host_progress.missing) and self.pin.digest not in self.view.quarantine

    @property
    def stalled_for(self) -> timedelta:
        """The time without progress, except when none was expected.

        Progress means that a host took the digest or is taking it. Hosts write times by their own clocks; a time far in
        the future does not count, or the rollout would never be stuck.
        """
        moments = [
            state.since
            for state in self.view.hosts.values()
            if self.pin and (state.digest == self.pin.digest or state.state == HostStatus.RELOADING)
        ]
        if self.pin and self.pin.since:
            moments.append(self.pin.since + self.min_age)
        moved = [one for one in moments if one is not None and one - self.now <= max(self.stuck_after, self.min_age)]
        return _open_time(max(moved), self.now, self.is_open) if moved else self.stuck_after

    @property
    def is_stuck(self) -> bool:
        return self.is_incomplete and self.is_open(self.now) and self.stalled_for >= self.stuck_after

    def is_reloading(self, node: str) -> bool:
        """True if that host is reloading and has not been at the same step for too long."""
        return any(
            state.state == HostStatus.RELOADING
            and state.since is not None
            and self.now - state.since < self.stuck_after
            for state in states_on(self.view.hosts, node)
        )


def _open_time(begin: datetime, end: datetime, is_open: Callable[[datetime], bool]) -> timedelta:
    """Return approximately how much of the period was inside the windows."""
    step = max(end - begin, timedelta()) / _SAMPLES
    return step * sum(is_open(begin + step * (number + 0.5)) for number in range(_SAMPLES))
