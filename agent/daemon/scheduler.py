"""APScheduler's table of jobs, read by a clock of ours. When a job is due is its plan's; what it does is its owner's.

Its owner calls `tick` at least once a second and is told what is due there and then: so a clock that was set, a machine
that was asleep and a process that was stopped are noticed within a second of their end.

- What was missed meanwhile is run once, at once, and told: runs are coalesced, and none is dropped for being late.
- A clock that is set back by more than `JITTER_OF_CLOCKS` plans everything anew by what it shows now; set back by less,
  nothing is run twice.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from apscheduler.executors.debug import DebugExecutor
from apscheduler.job import Job
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.base import BaseTrigger

from agent.clock import Clock
from agent.logs import WARNING, log, log_bug
from agent.maintenance import length

JITTER_OF_CLOCKS = timedelta(minutes=1)
"""As far as a clock is steered without anybody meaning another time of day."""

AFTER_A_BUG = timedelta(hours=1)

WORTH_TELLING = timedelta(minutes=1)
"""A run that is as late as this was missed; less is a busy machine."""


class Plan(Protocol):
    """When something is due."""

    def after(self, moment: datetime) -> datetime | None:
        """The first time later than ``moment``; None for never again."""


class _Trigger(BaseTrigger):  # type: ignore[misc]  # it ships no types
    """A plan, as APScheduler asks for it: for what comes after now, so that what was missed is not counted up."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime | None:
        return _next(self.plan, now)


class Scheduler(BaseScheduler):  # type: ignore[misc]  # it ships no types
    """``run`` gets the id of each job that is due, in the thread of `tick`: it only sets work going.

    What it raises is logged, and keeps no other job, and no later run, from its time.
    """

    def __init__(self, clock: Clock, run: Callable[[str], None]) -> None:
        self._store = MemoryJobStore()
        super().__init__(
            timezone=UTC,
            jobstores={"default": self._store},
            executors={"default": DebugExecutor()},  # unused: `tick` calls; the default would start a thread pool
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
        )
        self._clock = clock
        self._run = run
        self._ahead = self._wall_ahead()
        self.start()

    def replace(self, plans: Mapping[str, Plan]) -> None:
        """These are the jobs from now on. One with the same plan keeps its next run; one that is due runs."""
        now = self._clock.now()
        there = {job.id: job for job in self.get_jobs()}
        for gone in there.keys() - plans.keys():
            self.remove_job(gone)
        for job_id, plan in plans.items():
            job = there.get(job_id)
            if job is None or job.trigger.plan != plan:
                self.add_job(
                    self._run,
                    _Trigger(plan),
                    args=(job_id,),
                    id=job_id,
                    replace_existing=True,
                    next_run_time=job.next_run_time if job is not None and _is_due(job, now) else _next(plan, now),
                )

    def next_runs(self) -> dict[str, datetime]:
        """By job; those that will never run are left out."""
        return {job.id: job.next_run_time for job in self.get_jobs() if job.next_run_time is not None}

    def tick(self) -> None:
        """Run what is due."""
        now = self._clock.now()
        self._notice_set_clock(now)
        due: list[Job] = self._store.get_due_jobs(now)
        if due and (late := now - due[0].next_run_time) > WORTH_TELLING:
            log(
                f"up to {length(late)} late, as the clock was set or this process or machine stood still: what was "
                "missed is run once, now",
                level=WARNING,
                jobs=", ".join(job.id for job in due),
            )
        for job in due:
            run_time = job.next_run_time
            job.modify(next_run_time=job.trigger.get_next_fire_time(run_time, now))
            self._start_job(job.id)

    def wakeup(self) -> None:
        """Nothing sleeps here: `tick` is called all the time."""

    def shutdown(self, wait: bool = True) -> None:
        """Run nothing any more."""
        super().shutdown(wait)

    def _start_job(self, job_id: str) -> None:
        """Call the owner's function here instead of through an executor, which logs each failure a second time."""
        try:
            self._run(job_id)
        except Exception as error:  # noqa: BLE001  # a bug in one job must not keep the others from running
            log_bug(f"{job_id} was due and could not be started", error)

    def _notice_set_clock(self, now: datetime) -> None:
        """Plan anew if it was set back. Small steps add up: ``_ahead`` is the most that there was since then."""
        ahead = self._wall_ahead()
        back = self._ahead - ahead
        if back > JITTER_OF_CLOCKS:
            log(f"the clock was set back by {length(back)}: the next runs are planned anew", level=WARNING)
            for job in self.get_jobs():
                job.modify(next_run_time=_next(job.trigger.plan, now))
        if not timedelta() <= back <= JITTER_OF_CLOCKS:
            self._ahead = ahead

    def _wall_ahead(self) -> timedelta:
        """By how much the time of day is ahead of the clock that never jumps.

        Held up between its two readings this tells too little, never too much.
        """
        return timedelta(seconds=self._clock.now().timestamp() - self._clock.monotonic())


def _next(plan: Plan, now: datetime) -> datetime | None:
    """Return when a plan is due next; after a bug, in an hour."""
    try:
        return plan.after(now)
    except Exception as error:  # noqa: BLE001 - a bug in one plan must not stop the others
        log_bug(f"the next run of {plan} cannot be computed; please report this bug", error)
        return now + AFTER_A_BUG


def _is_due(job: Job, now: datetime) -> bool:
    return job.next_run_time is not None and job.next_run_time <= now
