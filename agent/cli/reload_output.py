"""What a reload and a recovery print while they run and when they end."""

import dataclasses
import functools
import sys
from collections.abc import Sequence

from agent import logs
from agent.cli.options import current
from agent.cli.output import (
    print_warning,
    printing,
    show_bug_of,
    show_document,
    show_line,
    show_problem,
    show_progress,
    show_warning,
)
from agent.engine.model import PullProgress
from agent.outcomes import Outcome
from agent.reload.record import Phase, ReloadResult, StepEvent
from agent.reload.repair import RepairOutput
from agent.reload.steps import Step
from agent.text import quoted_command, short_digest


def show_result(result: ReloadResult) -> int:
    if result.error:
        # A problem that may pass without action needs no alarm.
        level = logs.WARNING if result.outcome in (Outcome.REFUSED, Outcome.INTERRUPTED) else logs.ERROR
        _show_error(result, level=level, exit_code=result.exit_code)
    elif result.outcome is Outcome.RELOADED:
        seconds = sum(step["seconds"] for step in result.steps)
        done = f"runs {short_digest(result.wanted or '')}" if result.wanted else "was restarted"
        show_line(f"{result.service} {done} on {result.node} after {seconds:.1f} s", "green")
    elif result.outcome is Outcome.UP_TO_DATE and result.remark:
        # The newest version is not taken, and nothing else is printed under cron.
        if not current().quiet:
            show_warning(waiting_image(result), service=result.service)
    elif sys.stdout.isatty():
        remark = f" ({result.remark})" if result.remark else ""
        show_line(
            f"{result.service} is up to date: {short_digest(result.wanted or '')} of {result.image}{remark}", "green"
        )
    if current().as_json:
        show_document(dataclasses.asdict(result))
    return result.exit_code


def waiting_image(result: ReloadResult) -> str:
    """Return that the tag's newest image waits, because another one is pinned, and for what."""
    return (
        f"{result.service}: newer image {short_digest(result.newest or '')}; it waits for the rollout of "
        f"{short_digest(result.wanted or '')}: {result.remark}"
    )


def show_rolled_back(result: ReloadResult, where: str) -> None:
    """Print below the failure which version runs after a roll-back. ``where`` says whether it is in service."""
    if not result.image:  # a command restarts it: there is no other version, and perhaps nothing was stopped
        text = f"{result.service}: passes its checks on {result.node} as before, {where}"
    else:
        version = short_digest(result.running or "") or "the version from before"
        text = f"{result.service}: rolled back; {version} runs again on {result.node}, {where}"
    show_warning(text, service=result.service, reload=result.id)


def show_quarantined(result: ReloadResult) -> None:
    """Print below a failure that it quarantined the version, and the remedy."""
    if result.quarantined:
        clear = quoted_command(["svcagent", "quarantine", "clear", result.service, short_digest(result.quarantined)])
        show_warning(
            f"{result.service}: {short_digest(result.quarantined)} is quarantined: no host takes it. Push a "
            "corrected image. "
            f"If the image was not the cause, run: {clear}",
            service=result.service,
            reload=result.id,
        )


def show_recovered(results: Sequence[ReloadResult]) -> int:
    """Print the recoveries of crashed reloads; return the worst exit code."""
    for result in results:
        if result.outcome is Outcome.RECOVERED:
            # It crashed, or failed and could not restore the service then.
            unfinished = f"the unfinished reload {result.id}" if result.id else "an unfinished reload"
            said = f"{unfinished} is recovered; the instance is ready and in service again"
            if result.running and result.wanted:
                is_old = result.running != result.wanted
                how = "rolled back" if is_old else "finished"
                runs = f"{short_digest(result.running or '')} runs{' again' if is_old else ''}, ready and in service"
                said = f"{unfinished} is recovered ({how}): {runs}"
            show_warning(f"{result.service}: {said}", service=result.service, reload=result.id)
        if result.error:
            level = logs.ERROR if result.exit_code else logs.WARNING
            _show_error(result, colour="yellow", level=level, exit_code=result.exit_code or None)
        show_quarantined(result)
    return max((result.exit_code for result in results), default=0)


def _show_error(result: ReloadResult, *, level: int, exit_code: int | None, colour: str = "red") -> None:
    text = result.error or ""
    if result.log_tail:
        text += f"\nThe last lines that it printed:\n{result.log_tail.rstrip()}"
    show_problem(
        text,
        colour=colour,
        level=level,
        service=result.service,
        reload=result.id,
        outcome=result.outcome,
        kind=result.kind or None,
        exit_code=exit_code,
    )


PROGRESS = "progress"

QUARTER = 25
"""Percent of a pull between two lines of the log, or of a file or pipe."""


class Printer:
    """Prints a line for each step, from the first that does something: cron mails all output.

    A terminal shows each step also while it runs. ``has_container``: the definition names a container.
    A closed terminal, a pager that was quit or a full disk must not stop a reload, so output that cannot be written is
    dropped.
    """

    def __init__(self, service: str, *, has_container: bool = True) -> None:
        self._service = service
        self._has_container = has_container
        self._has_failed = False
        self._current = ""
        """The line about the running step."""
        self._drawn = ""
        self._reload = ""
        self._percent_logged = -QUARTER
        self._percent_shown = -1

    def report_event(self, event: StepEvent) -> None:
        self._report(event, self._label(event.step))
        if event.phase in (Phase.END, Phase.FAILED) and event.step is not Step.CHECK:
            end = "  failed" if event.phase is Phase.FAILED else ""
            show_line(f"{self._label(event.step):<10} {event.seconds:7.2f} s{end}")
        self._has_failed = self._has_failed or event.phase is Phase.FAILED

    def report_recovery(self, event: StepEvent) -> None:
        """Log one event of a recovery; print it only if it is a note."""
        self._report(event, f"recovery: {event.step}", recovery=True)

    def _report(self, event: StepEvent, label: str, *, recovery: bool | None = None) -> None:
        self._erase()
        self._log(event, recovery=recovery)
        if event.phase is not Phase.NOTE:
            self._current = f"{label} ..." if event.phase is Phase.BEGIN else ""
        self._draw(self._current)

    def report_pull(self, progress: PullProgress) -> None:
        """Print the progress of the pull: every percent on a terminal, else every quarter, as in the log."""
        percent = 100 * progress.bytes_done // progress.bytes_total if progress.bytes_total else 0
        megabytes = f"{progress.bytes_done / 1e6:.1f} of {progress.bytes_total / 1e6:.1f} MB"
        text = f"pull {percent:3d}%  {progress.layers_done}/{progress.layers} layers  {megabytes}"
        if logs.is_structured() and percent >= self._percent_logged + QUARTER:
            self._percent_logged = percent
            done = dataclasses.asdict(progress)
            logs.log(text, service=self._service, reload=self._reload, step=Step.PULL, phase=PROGRESS, **done)
        is_terminal = sys.stdout.isatty()
        if current().quiet or current().as_json or percent < self._percent_shown + (1 if is_terminal else QUARTER):
            return
        self._percent_shown = percent
        self._erase()
        if is_terminal and percent < 100:
            self._draw(text)
        else:
            show_line(text)

    def _label(self, step: Step) -> str:
        """Return the step's name; after a failure only what was there before can become ready."""
        if step is not Step.READY or not self._has_failed:
            return str(step)
        return f"{step} (old container)" if self._has_container else f"{step} (again)"

    def _draw(self, text: str) -> None:
        """Show a text on a terminal until `_erase`."""
        options = current()
        if text and sys.stdout.isatty() and not options.quiet and not options.as_json:
            self._drawn = text
            with printing():
                show_progress(f"{text}\r")

    def _erase(self) -> None:
        if self._drawn:
            with printing():
                show_progress(" " * len(self._drawn) + "\r")
        self._drawn = ""

    def _log(self, event: StepEvent, *, recovery: bool | None = None) -> None:
        self._reload = event.reload
        fields = {
            "service": self._service,
            "reload": event.reload,
            "step": event.step,
            "phase": event.phase,
            "seconds": round(event.seconds, 3),
            "place": event.place,
            "recovery": recovery,
        }
        is_note = event.phase is Phase.NOTE
        logs.log(event.text, level=logs.WARNING if is_note and logs.is_structured() else logs.INFO, **fields)
        if is_note:
            print_warning(f"{self._service}: {event.text}")


_recovery_printer = functools.cache(Printer)

REPAIR_OUTPUT = RepairOutput(
    show_warning, show_bug_of, lambda service, event: _recovery_printer(service).report_recovery(event)
)
