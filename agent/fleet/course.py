"""The course of a rollout: under way, finished, or stuck. Pure."""

from collections.abc import Callable
from datetime import datetime, timedelta

from agent.data import dataclass
from agent.fleet.agree import Progress, progress
from agent.fleet.host_state import HostStanding, HostState, InstanceKey, states_on
from agent.fleet.rollout import Pin
from agent.fleet.view import View

_SAMPLES = 1000


def _always(_moment: datetime) -> bool:
    return True


@dataclass(frozen=True)
class Course:
    """The course of a service's rollout, as far as it is known at ``now``.

    ``awaited`` are the instances that could take a new image, ``held_out`` those that operators keep in
    maintenance, ``down`` those on hosts that are down. ``suspects`` are the instances whose reload has disappeared
    (`agent.fleet.suspect`).
    ``min_age`` and ``is_open`` say when hosts do not go on: before an image is that old (it was made before it was
    pinned), and outside the service's windows.
    """

    service: str
    view: View
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
        """The pin, if there is one that can be read."""
        found = self.view.pin
        return None if found is None or found.problem else found

    @property
    def at(self) -> Progress:
        """The progress of the rollout."""
        return progress(self.pin, self.view.hosts, self.awaited) if self.pin else Progress(frozenset(), frozenset())

    @property
    def is_under_way(self) -> bool:
        """True if hosts are still to take the digest; false for a quarantined one, which no host takes."""
        return self.pin is not None and bool(self.at.missing) and self.pin.digest not in self.view.quarantine

    @property
    def stood_still(self) -> timedelta:
        """Return for how long there was no progress, without the time in which none was expected.

        Progress is a host that took the digest or is taking it now. Hosts write times by their clocks; a time far in
        the future does not count, or the rollout would never be stuck.
        """
        moments = [
            state.since
            for state in self.view.hosts.values()
            if self.pin and (state.digest == self.pin.digest or state.state == HostStanding.RELOADING)
        ]
        if self.pin and self.pin.since:
            moments.append(self.pin.since + self.min_age)
        moved = [one for one in moments if one is not None and one - self.now <= max(self.stuck_after, self.min_age)]
        return _open_time(max(moved), self.now, self.is_open) if moved else self.stuck_after

    @property
    def is_still(self) -> bool:
        """True if the rollout is stuck."""
        return self.is_under_way and self.is_open(self.now) and self.stood_still >= self.stuck_after

    def is_at_it(self, node: str) -> bool:
        """True if a reload of that host is under way, and has not been at the same step for too long."""
        return any(
            state.state == HostStanding.RELOADING
            and state.since is not None
            and self.now - state.since < self.stuck_after
            for state in states_on(self.view.hosts, node)
        )


def _open_time(begin: datetime, end: datetime, is_open: Callable[[datetime], bool]) -> timedelta:
    """Return approximately how much of that time was inside the windows."""
    step = max(end - begin, timedelta()) / _SAMPLES
    return step * sum(is_open(begin + step * (number + 0.5)) for number in range(_SAMPLES))
