"""What a reload and a recovery print while they run and when they end."""

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from agent.cli.options import current
from agent.cli.output import log, show_document, show_line, show_warning
from agent.engine import PullProgress
from agent.reload import Event, Phase, Result, Step


def show_result(result: Result) -> int:
    """How a reload ended; its exit code."""
    if current().as_json:
        show_document(dataclasses.asdict(result))
    if result.error:
        for line in result.error.splitlines():
            click.secho(f"svcagent: {line}", fg="red", err=True)
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
            show_warning(f"{result.service}: {died} and is put right; the instance is ready and in service again")
        for line in (result.error or "").splitlines():
            show_warning(line)
    return max((result.exit_code for result in results), default=0)


class Printer:
    """A line a step, from the first that does something: cron mails whatever is printed.

    A terminal that is gone, a pager that was quit or a log on a full disk must not stop a reload half-way: what cannot
    be printed is not.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._percent = -1

    def tell(self, event: Event) -> None:
        """One event of a reload."""
        self.tell_quietly(event)
        if event.step is not Step.CHECK and event.phase is Phase.END:
            with suppress(OSError):
                show_line(f"{event.step:<10} {event.seconds:7.2f} s")

    def tell_quietly(self, event: Event) -> None:
        """One event of a recovery: for the log, but for what a person should know."""
        seconds = f"{event.seconds:.3f}"
        with suppress(OSError):
            log(service=self._service, step=event.step, phase=event.phase, seconds=seconds, text=event.text)
        if event.phase is Phase.NOTE:
            show_warning(f"{self._service}: {event.text}")

    def tell_pull(self, progress: PullProgress) -> None:
        """How far the pull is, a line for every percent on a terminal and for every quarter otherwise."""
        percent = 100 * progress.bytes_done // progress.bytes_total if progress.bytes_total else 0
        step = 1 if sys.stdout.isatty() else 25
        if percent >= self._percent + step:
            self._percent = percent
            end = "\r" if sys.stdout.isatty() and percent < 100 else "\n"
            if not current().quiet and not current().as_json:
                megabytes = f"{progress.bytes_done / 1e6:.1f} of {progress.bytes_total / 1e6:.1f} MB"
                text = f"pull {percent:3d}%  {progress.layers_done}/{progress.layers} layers  {megabytes}"
                with suppress(OSError):
                    click.echo(f"{text:<40}{end}", nl=False)
