"""When what is due: each service's reload, and what the daemon does now and then. Pure.

The expression means what it means to Debian's cron, clock changes included (cronsim): what runs at set times runs once
in the night that has an hour twice, and right after the hour that is skipped; what runs every so many minutes goes on
by time passed. (Where clocks skip midnight itself, as in Cairo, what goes by minutes may run at 01:00 for 00:00.) Runs
outside the windows are left out.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from agent.definitions import Definition, Window, durations
from agent.errors import SvcagentError, Unforeseen
from agent.logs import log_bug
from agent.reload import verdict, zone

CONVERGENCE = "convergence"
CNAMES = "cname sync"
RELOAD_JOB = "reload "
"""Jobs; that of a reload ends with the service's ID."""

MOST_CLOSED = 100
"""So many runs in a row that fall into no window, and none is thought to: windows repeat weekly, and even 29 February
is each day of the week within the ten times that it comes in forty years."""

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Schedule:
    """Five fields of cron, on a clock of that zone, ``offset`` later, and only in the windows (always, without any)."""

    expression: str
    zone: tzinfo
    offset: timedelta = timedelta()
    windows: tuple[Window, ...] = ()

    def after(self, moment: datetime) -> datetime | None:
        """The first run later than ``moment``, in UTC; None if there is none, ever."""
        from cronsim import CronSim  # only for those who have a schedule

        earliest = moment.astimezone(UTC)
        for _closed in range(MOST_CLOSED):
            for due in CronSim(self.expression, (earliest - self.offset).astimezone(self.zone)):
                # In UTC: Python compares times of one zone by the wall, where an hour comes twice.
                run = due.astimezone(UTC) + self.offset
                if run > earliest:
                    break
            else:
                return None
            found = verdict(self.windows, self.zone, run)
            if found.opens_at is None:
                return run
            earliest = max(run, found.opens_at.astimezone(UTC) - _SECOND)
        return None

    def runs(self, moment: datetime) -> Iterator[datetime]:
        """All runs later than ``moment``, in their order."""
        run = self.after(moment)
        while run is not None:
            yield run
            run = self.after(run)

    def why_never(self) -> str:
        """What to say where `after` finds none, and what to do about it."""
        late = f", {durations.text(self.offset.total_seconds())} later by its jitter," if self.offset else ""
        windows = ", ".join(window.text for window in self.windows)
        return f'no run of "{self.expression}"{late} falls into its windows ({windows}); change reload.schedule or them'


@dataclass(frozen=True)
class Every:
    """Once in ``seconds``, ``offset`` after the full ones."""

    seconds: float
    offset: timedelta = timedelta()

    def after(self, moment: datetime) -> datetime:
        """The first run later than ``moment``."""
        passed = (moment - self.offset).timestamp() // self.seconds + 1
        return datetime.fromtimestamp(passed * self.seconds, UTC) + self.offset


def schedule_of(definition: Definition, host: str, environ: Mapping[str, str]) -> Schedule | None:
    """A definition's, None if it has none: then it is reloaded when somebody asks for it.

    ``host``: the name that the kernel has for it, which is there when Consul is not.

    :raises SvcagentError: the host's own time zone is needed, and cannot be told.
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
    """All that is due on this host now and then, by job; and by service, why its schedule cannot be kept."""
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
        except Exception as error:  # noqa: BLE001 - the schedules of the other services have to be kept
            unplanned[one.service.id] = f"its schedule cannot be kept: {Unforeseen.of(error, 'reading it')}"
            log_bug(f"{one.service.id}: {unplanned[one.service.id]}", error)
            continue
        if schedule is not None:
            plans[f"{RELOAD_JOB}{one.service.id}"] = schedule
    return plans, unplanned


def spread(seconds: float, *names: str) -> timedelta:
    """A part of so many seconds that is always the same for these names, and another one for others.

    Hosts that would all ask at once ask one after another, and each can tell when it will.
    """
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    return timedelta(milliseconds=int(1000 * seconds * share))
