"""Run the daemon's plans by APScheduler's asyncio scheduler, as its triggers.

The event loop's clock ignores changes of the wall clock and stops while the machine is suspended. So `look_at_clock`
must be called regularly: missed jobs then run once, immediately, and all is planned again after the clock was set back.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from apscheduler.job import Job
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from agent.clock import Clock
from agent.logs import WARNING, log, log_bug
from agent.maintenance import length

CLOCK_JITTER = timedelta(minutes=1)
"""A smaller clock change is an adjustment, and a smaller delay is due to a busy machine."""
AFTER_A_BUG = timedelta(hours=1)


class Plan(Protocol):
    def after(self, moment: datetime) -> datetime | None:
        """Return the first time later than ``moment``; None if there is none."""


class PlanTrigger(BaseTrigger):  # type: ignore[misc]  # it ships no types
    """A plan as an APScheduler trigger. It always counts from now, so that missed runs do not accumulate."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime | None:
        """Return the first time after now; after a bug, in an hour."""
        try:
            return self.plan.after(now)
        except Exception as error:  # noqa: BLE001 - a bug in one plan must not stop the others
            log_bug(f"the next run of {self.plan} cannot be computed; please report this bug", error)
            return now + AFTER_A_BUG


class Scheduler:
    """Calls ``run`` on the event loop with the ID of each due job. An exception in one job stops no other."""

    def __init__(self, clock: Clock, run: Callable[[str], None]) -> None:
        self._clock = clock
        self._run = run
        self._ahead = self._wall_ahead()
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
        )

    def start(self) -> None:
        """Start. The event loop must be running."""
        self._scheduler.start()

    def replace(self, plans: Mapping[str, Plan]) -> None:
        """Set the jobs. A job with an unchanged plan keeps its next run; a due job still runs."""
        now = self._clock.now()
        there = {job.id: job for job in self._scheduler.get_jobs()}
        for gone in there.keys() - plans.keys():
            self._scheduler.remove_job(gone)
        for job_id, plan in plans.items():
            job = there.get(job_id)
            if job is None or job.trigger.plan != plan:
                trigger = PlanTrigger(plan)
                run = None if job is None else job.next_run_time
                self._scheduler.add_job(
                    self._fire,
                    trigger,
                    args=(job_id,),
                    id=job_id,
                    replace_existing=True,
                    next_run_time=run if run is not None and run <= now else trigger.get_next_fire_time(None, now),
                )

    def next_runs(self) -> dict[str, datetime]:
        """Return the next run of each job, without jobs that will never run."""
        return {job.id: job.next_run_time for job in self._scheduler.get_jobs() if job.next_run_time is not None}

    def look_at_clock(self) -> None:
        """Run what was missed while the machine was suspended or the clock was set. Plan again if it was set back.

        ``_ahead`` is the maximum since the last planning, so that small adjustments add up.
        """
        ahead, now = self._wall_ahead(), self._clock.now()
        back = self._ahead - ahead
        if back > CLOCK_JITTER:
            log(f"the clock was set back by {length(back)}; the next runs were recomputed", level=WARNING)
            for job in self._scheduler.get_jobs():
                job.modify(next_run_time=job.trigger.get_next_fire_time(None, now))
        if not timedelta() <= back <= CLOCK_JITTER:
            self._ahead = ahead
        self._log_missed(now)
        self._scheduler.wakeup()

    def shutdown(self) -> None:
        self._scheduler.shutdown(wait=False)

    async def _fire(self, job_id: str) -> None:
        """Run a job. This is a coroutine because APScheduler would call a function in a thread."""
        try:
            self._run(job_id)
        except Exception as error:  # noqa: BLE001 - a bug in one job must not keep the others from running
            log_bug(f"cannot start the due job {job_id}", error)

    def _log_missed(self, now: datetime) -> None:
        missed: list[Job] = [
            job for job in self._scheduler.get_jobs() if job.next_run_time and now - job.next_run_time > CLOCK_JITTER
        ]
        if missed:
            late = length(now - missed[0].next_run_time)
            log(
                f"runs were missed by up to {late}, because the clock was set or the process or machine was suspended; "
                "one run replaces them now",
                level=WARNING,
                jobs=", ".join(job.id for job in missed),
            )

    def _wall_ahead(self) -> timedelta:
        """Return how far wall time is ahead of monotonic time. A delay between the readings can only reduce it."""
        return timedelta(seconds=self._clock.now().timestamp() - self._clock.monotonic())
