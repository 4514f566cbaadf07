"""APScheduler's table of jobs, read by a clock of ours. When a job is due is its plan's; what it does is its owner's.

Its owner calls `tick` at least once a second and is told what is due there and then: so a clock that was set, a machine
that was asleep and a process that was stopped are noticed within a second of their end.

- What was missed meanwhile is run once, at once: runs are coalesced, and none is dropped for being late.
- A clock that is set back by more than `JITTER_OF_CLOCKS` plans everything anew by what it shows now; set back by less,
  nothing is run twice.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.base import BaseTrigger

from agent.clock import Clock

JITTER_OF_CLOCKS = timedelta(minutes=1)
"""As far as a clock is steered without anybody meaning another time of day."""


class Plan(Protocol):
    """When something is due."""

    def after(self, moment: datetime) -> datetime | None:
        """The first time later than ``moment``; None for never again."""


class _Trigger(BaseTrigger):  # type: ignore[misc]  # it ships no types
    """A plan, as APScheduler asks for it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        return self.plan.after(now if previous_fire_time is None else max(now, previous_fire_time))


class Scheduler(BaseScheduler):  # type: ignore[misc]  # it ships no types
    """``run`` gets the id of each job that is due."""

    def __init__(self, clock: Clock, run: Callable[[str], None]) -> None:
        super().__init__(
            timezone=UTC,
            executors={"default": DebugExecutor()},  # in the thread of `tick`: a job only says what is due
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
        )
        self._clock = clock
        self._run = run
        self._ahead = self._wall_ahead()
        self.start()

    def replace(self, plans: Mapping[str, Plan]) -> None:
        """These are the jobs from now on; one whose plan is the same keeps its next run."""
        now = self._clock.now()
        there = {job.id: job.trigger.plan for job in self.get_jobs()}
        for gone in there.keys() - plans.keys():
            self.remove_job(gone)
        for job_id, plan in plans.items():
            if job_id not in there or there[job_id] != plan:
                self.add_job(
                    self._run,
                    _Trigger(plan),
                    args=(job_id,),
                    id=job_id,
                    replace_existing=True,
                    next_run_time=plan.after(now),
                )

    def next_runs(self) -> dict[str, datetime]:
        """By job; those that will never run are left out."""
        return {job.id: job.next_run_time for job in self.get_jobs() if job.next_run_time is not None}

    def tick(self) -> None:
        """Run what is due."""
        now = self._clock.now()
        ahead = self._wall_ahead()
        was_set_back, self._ahead = self._ahead - ahead > JITTER_OF_CLOCKS, ahead
        if was_set_back:
            for job in self.get_jobs():
                job.modify(next_run_time=job.trigger.plan.after(now))
        for job in self._lookup_jobstore("default").get_due_jobs(now):
            due = job.next_run_time
            job.modify(next_run_time=job.trigger.get_next_fire_time(due, now))
            self._lookup_executor("default").submit_job(job, [due])

    def wakeup(self) -> None:
        """Nothing sleeps here: `tick` is called all the time."""

    def shutdown(self, wait: bool = True) -> None:
        """Run nothing any more."""
        super().shutdown(wait)

    def _wall_ahead(self) -> timedelta:
        """By how much the time of day is ahead of the clock that never jumps."""
        return timedelta(seconds=self._clock.now().timestamp() - self._clock.monotonic())
