"""Output: colour and tables on a terminal, plain lines in a pipe, one document for ``--json``.

Depending on ``--log-format``, warnings and errors are lines on standard error or events of the log (`agent.logs`).
Output that cannot be written does not stop the work.

All output of svcagent passes through this module. It removes or escapes what could move a terminal's cursor, change its
title or reorder its text, so that no verb can forget to.
"""

import io
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from agent import logs
from agent.cli.help import VERBS
from agent.cli.options import Options, current
from agent.errors import BadDefinition, Fault, Interrupted, SvcagentError, TemporaryRefusal, UnexpectedError
from agent.text import clean, counted, printable

LONGEST_CELL = 4000
GAP = 2
LEAST_TEXT = 30

USAGE = "usage"
"""The kind of an invalid command line, as of errors (`agent.errors`)."""

REPORT_BUG = "this is a bug in svcagent; please report it with"

if TYPE_CHECKING:  # only needed to draw
    from rich.console import RenderableType


@contextmanager
def printing() -> Iterator[None]:
    """Record a failure to write standard output, and continue; the end of the verb may report it."""
    try:
        yield
    except OSError as error:
        current().output_error = error


def show_document(document: Any) -> None:
    """Print the one document of ``--json``, with the faults of the definition files that the verb leaves out."""
    if isinstance(document, dict) and (faults := current().faults):
        document.setdefault("faults", fault_documents(faults))
    with printing():
        click.echo(json.dumps(document, indent=2, default=str))


def fault_documents(faults: Iterable[Fault]) -> list[dict[str, str]]:
    return [asdict(fault) for fault in faults]


def show_line(text: str, colour: str | None = None) -> None:
    """Print a line for people, unless ``--quiet`` or ``--json`` is given."""
    options = current()
    if not options.quiet and not options.as_json:
        with printing():
            click.secho(printable(with_given_options(text)), fg=colour)


def show_progress(text: str) -> None:
    """Print part of a line; ``text`` decides whether it may be overwritten, by its end."""
    click.echo(printable(text, keep="\r\n"), nl=False)


def show_warning(text: str, **fields: object) -> None:
    """Print or log a warning. ``fields`` are for the log: the service, the reload."""
    text = with_given_options(text)
    if logs.is_structured():
        logs.log(text, level=logs.WARNING, **fields)
    print_warning(text)


def print_warning(text: str) -> None:
    _print_error(f"svcagent: {with_given_options(text)}", "yellow")


def show_problem(text: str, *, colour: str = "red", level: int = logs.ERROR, **fields: object) -> None:
    """Print or log a problem that an operator must solve, line by line. ``level`` and ``fields`` are for the log."""
    text = with_given_options(text)
    if logs.is_structured():
        logs.log(text, level=level, **fields)
    for line in printable(text).split("\n"):
        _print_error(f"svcagent: {line}", colour)


def _print_error(text: str, colour: str | None = None) -> None:
    if not logs.is_stderr_log():
        with suppress(OSError):
            click.secho(printable(text), fg=colour, err=True)


def show_error(error: SvcagentError | Interrupted, options: Options) -> None:
    """Report an error that ends the verb: on standard error or in the log, and with ``--json`` also as the document."""
    found: dict[str, Any] = {"kind": error.kind, "exit_code": error.exit_code}
    if isinstance(error, BadDefinition):
        found["faults"] = fault_documents(error.faults)
    # An error that may pass without action must not raise an alarm.
    level = logs.WARNING if isinstance(error, TemporaryRefusal | Interrupted) else logs.ERROR
    _set_up_logs_once(options)
    if isinstance(error, BadDefinition):
        _log_and_print(str(error), (fault_text(fault) for fault in error.faults), "red", level, found)
    else:
        show_problem(str(error), level=level, **found)
    _show_end(options, str(error), **found)


def show_fault(fault: Fault) -> None:
    """Print or log a fault of a file that the verb leaves out, as a warning."""
    _log_and_print(str(fault), [fault_text(fault)], "yellow", logs.WARNING, {"file": fault.file})


def show_faults(error: BadDefinition, summary: str) -> None:
    """Report the faults, and print them by file, with the summary at the end."""
    texts = []
    for file, faults in groupby(error.faults, lambda fault: fault.file):
        lines = [fault_text(fault, indent="  ") for fault in faults]
        texts.append("\n".join([f"{file}: {counted(len(lines), 'error')}", *lines]))
    found = {"kind": error.kind, "exit_code": error.exit_code, "faults": fault_documents(error.faults)}
    _log_and_print(str(error), [*texts, *([summary] if summary else [])], "red", logs.ERROR, found)
    _show_end(current(), str(error), **found)


def fault_text(fault: Fault, indent: str = "") -> str:
    """Return the fault for people, with its remedy on its own line. With an indent, it is below its file's name."""
    where = [*([] if indent else [fault.file]), *([fault.path] if fault.path else [])]
    remedy = f"\n{indent}  {fault.remedy}" if fault.remedy else ""
    return indent + ": ".join([*where, fault.problem]) + remedy


def _log_and_print(text: str, printed: Iterable[str], colour: str, level: int, fields: Mapping[str, object]) -> None:
    if logs.is_structured():
        logs.log(with_given_options(text), level=level, **fields)
    for one in printed:
        _print_error(f"svcagent: {with_given_options(one)}", colour)


def show_usage(error: click.ClickException, options: Options) -> None:
    text, fields = printable(error.format_message()), {"kind": USAGE, "exit_code": error.exit_code}
    _set_up_logs_once(options)
    if logs.is_structured():
        logs.log(text, level=logs.ERROR, **fields)
    shown = io.StringIO()
    error.show(file=shown)
    _print_error(shown.getvalue().removesuffix("\n"))
    _show_end(options, text, **fields)


def show_bug(error: Exception, options: Options, exit_code: int) -> None:
    fields = {"kind": UnexpectedError.kind, "exit_code": exit_code}
    _set_up_logs_once(options)
    _show_trace(REPORT_BUG, error, **fields)
    _show_end(options, f"{REPORT_BUG} the trace in its log", **fields)


def show_bug_of(service: str, error: BaseException) -> None:
    """Print or log the traceback of an unexpected exception, if the verb continues with other services."""
    _show_trace(f"{service}: {REPORT_BUG}", error, service=service)


def _show_trace(text: str, error: BaseException, **fields: object) -> None:
    import traceback  # rarely needed

    if logs.is_structured():
        logs.log_bug(f"{text} its trace", error, **fields)
    _print_error("".join(traceback.format_exception(error)).removesuffix("\n"))
    _print_error(f"svcagent: {text} the lines above")


def _show_end(options: Options, text: str, **found: object) -> None:
    if options.as_json:
        show_document({"error": with_given_options(text), **found})


_SUGGESTED = rf"(?P<elsewhere>\bon \S+)?: svcagent (?P<given>(?:--[a-z-]+ \S+ )*)(?=(?:{'|'.join(VERBS)})\b)"
"""A command to run, which a message has after a colon. ``elsewhere``: it is to be run on another host."""


def with_given_options(text: str) -> str:
    """Repeat the global options of this command line in the commands that a message suggests.

    Not in those of the daemon's child processes: their options are the daemon's, which an operator did not give.
    """
    options = current()
    given = {"--config": options.config, "--services-dir": options.services_dir, "--state-dir": options.state_dir}
    if not any(given.values()) or os.environ.get(logs.DAEMON_CHILD):
        return text

    def repeated(found: re.Match[str]) -> str:
        if found["elsewhere"]:
            return found[0]
        more = (f"{name} {shlex.quote(value)} " for name, value in given.items() if value and name not in found[0])
        return found[0] + "".join(more)

    return re.sub(_SUGGESTED, repeated, text)


def set_up_logs(options: Options, setting: str) -> None:
    """Set up logging by ``--log-format``, else by ``setting``, from the environment or the settings file."""
    logs.set_up(logs.Format(options.log_format or setting), is_verbose=options.verbose)
    options.is_logging = True


def _set_up_logs_once(options: Options) -> None:
    if not options.is_logging:
        told = os.environ.get("SVCAGENT_LOG_FORMAT", "")
        set_up_logs(options, told if told in list(logs.Format) else logs.Format.AUTO)


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headers: a table on a terminal, else tab-separated columns for ``awk`` and ``column``."""
    options = current()
    if options.quiet or options.as_json:
        return
    with printing():
        if not sys.stdout.isatty():
            for row in (headers, *rows):
                click.echo("\t".join(map(_cell, row)))
            return
        from rich.console import Console

        console = Console(highlight=False)
        console.print(table(headers, rows, console.width))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> "RenderableType":
    """Return the table for a terminal of this width. It never breaks a header, a digest or another word.

    The last column may wrap. Cells that still do not fit are below their row, each with its header, without empty ones.
    """
    from rich.cells import cell_len
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    cells = [[_cell(cell) for cell in row] for row in rows]
    columns = list(zip(headers, *cells, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    longest_word = max(cell_len(word) for cell in columns[-1] for word in cell.split())
    least = [*widths[:-1], min(widths[-1], max(LEAST_TEXT, longest_word))]
    shown = len(headers)
    while shown > 1 and sum(least[:shown]) + GAP * (shown - 1) > width:
        shown -= 1
    labels = [f"{header.lower()} " for header in headers[shown:]] if len(headers) - shown > 1 else [""]
    made: list[RenderableType] = []

    def add(row: Sequence[str], style: str = "") -> None:
        line = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
        for index in range(shown):
            is_last = index == len(headers) - 1
            line.add_column(width=None if is_last else widths[index], no_wrap=not is_last)
        line.add_row(*(Text(cell, style=style or _STYLES.get(cell, "")) for cell in row[:shown]))
        made.append(line)

    add(headers, "bold")
    for row in cells:
        add(row)
        if below := "  ".join(
            f"{label}{cell}" for label, cell in zip(labels, row[shown:], strict=False) if cell not in ("", "-")
        ):
            made.append(Padding(Text(below), (0, 0, 0, GAP), expand=False))
    return Group(*made)


def _cell(text: str) -> str:
    """Return one line, so that foreign text with a line break or a tab does not look like another row or column."""
    return clean(with_given_options(text), LONGEST_CELL)


_STYLES = {
    "passing": "green",
    "up to date": "green",
    "warning": "yellow",
    "maintenance": "yellow",
    "critical": "red",
    "create": "green",
    "update": "yellow",
    "remove": "red",
    "refuse": "red",
    "running": "green",
    "queueing": "yellow",
    "reloading": "yellow",
    "rolled back": "red",
    "failed": "red",
    "stranded": "red",
    "unreadable": "red",
}
