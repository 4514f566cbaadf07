"""What a reload and a recovery print while they run and when they end."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

import click

from agent import logs
from agent.cli.options import current
from agent.cli.output import show_document, show_line, show_trouble, show_warning
from agent.engine import PullProgress
from agent.reload import Event, Phase, Result, Step


def show_result(result: Result) -> int:
    """How a reload ended; its exit code."""
    if current().as_json:
        show_document(dataclasses.asdict(result))
    if result.error:
        show_trouble(result.error, service=result.service, reload=result.id, outcome=result.outcome)
    elif result.outcome == "reloaded":
        seconds = sum(step["seconds"] for step in result.steps)
        show_line(f"{result.service} runs {result.wanted} on {result.node} after {seconds:.1f} s", "green")
    elif sys.stdout.isatty():
        remark = f" ({result.remark})" if result.remark else ""
        show_line(f"{result.service} runs {result.wanted} of {result.image} already{remark}", "green")
    return result.exit_code


def tell_repaired(results: Sequence[Result]) -> int:
    """What was left behind by processes that died, and what became of it; the worst exit code."""
    for result in results:
        if result.outcome == "recovered":
            died = f"the reload {result.id} had died" if result.id else "a reload had died"
            said = f"{died} and is put right; the instance is ready and in service again"
            show_warning(f"{result.service}: {said}", service=result.service, reload=result.id)
        for line in (result.error or "").splitlines():
            show_warning(line, service=result.service, reload=result.id)
    return max((result.exit_code for result in results), default=0)


class Printer:
    """A line a step, from the first that does something: cron mails whatever is printed.

    A terminal that is gone, a pager that was quit or a log on a full disk must not stop a reload half-way: what cannot
    be printed is not.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._reload = ""
        self._percent = -1

    def tell(self, event: Event) -> None:
        """One event of a reload."""
        self.tell_quietly(event)
        if event.step is not Step.CHECK and event.phase is Phase.END:
            with suppress(OSError):
                show_line(f"{event.step:<10} {event.seconds:7.2f} s")

    def tell_quietly(self, event: Event) -> None:
        """One event of a recovery: for the log, but for what a person should know."""
        self._reload = event.reload
        is_note = event.phase is Phase.NOTE
        logs.log(
            event.text,
            level=logs.WARNING if is_note and logs.is_for_machines() else logs.INFO,
            service=self._service,
            reload=event.reload,
            step=event.step,
            phase=event.phase,
            seconds=round(event.seconds, 3),
            **({"place": event.place} if event.place is not None else {}),
        )
        if is_note and not logs.is_for_machines():
            show_warning(f"{self._service}: {event.text}")

    def tell_pull(self, progress: PullProgress) -> None:
        """How far the pull is, a line for every percent on a terminal or in a log and for every quarter otherwise."""
        percent = 100 * progress.bytes_done // progress.bytes_total if progress.bytes_total else 0
        is_fine = sys.stdout.isatty() or logs.is_for_machines()
        if percent < self._percent + (1 if is_fine else 25):
            return
        self._percent = percent
        if logs.is_for_machines():
            done = dataclasses.asdict(progress)
            logs.log("", service=self._service, reload=self._reload, step=Step.PULL, phase=PROGRESS, **done)
        if not current().quiet and not current().as_json:
            end = "\r" if sys.stdout.isatty() and percent < 100 else "\n"
            megabytes = f"{progress.bytes_done / 1e6:.1f} of {progress.bytes_total / 1e6:.1f} MB"
            text = f"pull {percent:3d}%  {progress.layers_done}/{progress.layers} layers  {megabytes}"
            with suppress(OSError):
                click.echo(f"{text:<40}{end}", nl=False)

    def replay(self, record: Mapping[str, Any]) -> None:
        """What another svcagent logged of a reload as JSON, told as if it were this one's."""
        match record:
            case {"step": str(step), "phase": "progress", **rest}:
                self.tell_pull(PullProgress(**{one.name: rest.get(one.name, 0) for one in fields(PullProgress)}))
            case {"step": str(step), "phase": str(phase), "reload": str(reload), "seconds": float(seconds)}:
                self.tell(Event(Step(step), Phase(phase), seconds, str(record.get("text", "")), reload))
            case {"level": "warning" | "error", "text": str(text)}:
                show_warning(text)


PROGRESS = "progress"
"""The phase of a pull's events in the log."""
