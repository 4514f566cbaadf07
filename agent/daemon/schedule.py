"""The times of each service's reload and of the daemon's regular jobs. No I/O.

Expressions mean the same as in Debian's cron (cronsim), also when clocks change: jobs at fixed times run once in a
night that repeats an hour, and right after a skipped hour; jobs every so many minutes follow elapsed time. (Where
clocks skip midnight itself, as in Cairo, the latter may run at 01:00 for 00:00.) Runs outside the windows are skipped.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from agent.definitions import Definition, Window, durations
from agent.errors import SvcagentError, UnexpectedError
from agent.logs import log_bug
from agent.reload.window import window_state, zone

CONVERGENCE = "convergence"
CNAMES = "cname sync"
RELOAD_JOB = "reload "
"""Job IDs. A reload's is followed by the service's ID."""

MOST_CLOSED = 100
"""After so many consecutive runs outside all windows, none is assumed to fit. Windows repeat weekly, and even 29
February falls on each day of the week within the ten times that it occurs in forty years.
"""

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Schedule:
    """A cron expression in a time zone, shifted by ``offset``, within the windows (always, if there are none)."""

    expression: str
    zone: tzinfo
    offset: timedelta = timedelta()
    windows: tuple[Window, ...] = ()

    def after(self, moment: datetime) -> datetime | None:
        """Return the first run later than ``moment``, in UTC; None if there is none, ever."""
        from cronsim import CronSim  # imported only if there is a schedule

        earliest = moment.astimezone(UTC)
        for _closed in range(MOST_CLOSED):
            for due in CronSim(self.expression, (earliest - self.offset).astimezone(self.zone)):
                # In UTC: Python compares times of one zone by wall clock, where an hour may repeat.
                run = due.astimezone(UTC) + self.offset
                if run > earliest:
                    break
            else:
                return None
            found = window_state(self.windows, self.zone, run)
            if found.opens_at is None:
                return run
            earliest = max(run, found.opens_at.astimezone(UTC) - _SECOND)
        return None

    def runs(self, moment: datetime) -> Iterator[datetime]:
        run = self.after(moment)
        while run is not None:
            yield run
            run = self.after(run)

    def why_never(self) -> str:
        """Return the message for a schedule that never runs, with the remedy."""
        late = f" (plus {durations.text(self.offset.total_seconds())} of jitter)" if self.offset else ""
        windows = ", ".join(window.text for window in self.windows)
        return (
            f'no run of "{self.expression}"{late} is in a window ({windows}). Change reload.schedule or reload.windows'
        )


@dataclass(frozen=True)
class Every:
    """Once in ``seconds``, ``offset`` after whole multiples."""

    seconds: float
    offset: timedelta = timedelta()

    def after(self, moment: datetime) -> datetime:
        passed = (moment - self.offset).timestamp() // self.seconds + 1
        return datetime.fromtimestamp(passed * self.seconds, UTC) + self.offset


def schedule_of(definition: Definition, host: str, environ: Mapping[str, str]) -> Schedule | None:
    """Return a definition's schedule; None if it is reloaded only on request.

    ``host`` is the kernel's host name, known without Consul. Raise `SvcagentError` if the host's time zone is needed
    but unknown.
    """
    reload = definition.reload
    if reload is None or reload.schedule is None:
        return None
    return Schedule(
        reload.schedule,
        zone(reload.timezone, environ),
        spread(reload.jitter, host, definition.service.id),
        reload.windows,
    )


def plans_of(
    definitions: Iterable[Definition], host: str, environ: Mapping[str, str]
) -> tuple[dict[str, Schedule | Every], dict[str, str]]:
    """Return this host's jobs and their plans, and by service why its schedule is unusable."""
    plans: dict[str, Schedule | Every] = {CONVERGENCE: Every(60, spread(60, host, CONVERGENCE))}
    unplanned: dict[str, str] = {}
    for one in definitions:
        if one.cname:
            plans[CNAMES] = Every(300, spread(300, host, CNAMES))
        try:
            schedule = schedule_of(one, host, environ)
        except SvcagentError as error:
            unplanned[one.service.id] = str(error)
            continue
        except Exception as error:  # noqa: BLE001 - the schedules of the other services are still needed
            unplanned[one.service.id] = (
                f"cannot schedule its reloads: {UnexpectedError.of(error, 'reading the schedule')}"
            )
            log_bug(f"{one.service.id}: {unplanned[one.service.id]}", error)
            continue
        if schedule is not None:
            plans[f"{RELOAD_JOB}{one.service.id}"] = schedule
    return plans, unplanned


def spread(seconds: float, *names: str) -> timedelta:
    """Return a fraction of ``seconds`` that is fixed for these names. It staggers hosts predictably."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    return timedelta(milliseconds=int(1000 * seconds * share))
