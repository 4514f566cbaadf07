"""Printing: colour and tables for a terminal, plain lines for a pipe, one document for ``--json``."""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from agent import logs
from agent.cli.options import Options, current
from agent.errors import BadDefinition, Interrupted, SvcagentError

if TYPE_CHECKING:  # imported only by those who draw
    from rich.table import Table


def show_document(document: Any) -> None:
    """The one document of ``--json``."""
    click.echo(json.dumps(document, indent=2, default=str))


def show_line(text: str, colour: str | None = None) -> None:
    """One line for a person; nothing with ``--quiet`` or ``--json``."""
    options = current()
    if not options.quiet and not options.as_json:
        click.secho(text, fg=colour)


def show_warning(text: str, **fields: object) -> None:
    """Something a person should know, on standard error or in the log. That it cannot be told keeps nothing from being
    done. ``fields`` are for the log: which service, which reload."""
    if logs.is_for_machines():
        logs.log(text, level=logs.WARNING, **fields)
        return
    with suppress(OSError):
        click.secho(f"svcagent: {text}", fg="yellow", err=True)


def show_trouble(text: str, **fields: object) -> None:
    """Something that a person has to see to, on standard error or in the log."""
    if logs.is_for_machines():
        logs.log(text, level=logs.ERROR, **fields)
        return
    with suppress(OSError):
        for line in text.splitlines():
            click.secho(f"svcagent: {line}", fg="red", err=True)


def show_error(error: SvcagentError | Interrupted, options: Options) -> None:
    """An error on standard error or in the log, and with ``--json`` as the document too."""
    if options.as_json:
        document: dict[str, Any] = {"error": str(error), "exit_code": error.exit_code}
        if isinstance(error, BadDefinition):
            document["faults"] = [
                {"file": f.file, "path": f.path, "problem": f.problem, "remedy": f.remedy} for f in error.faults
            ]
        show_document(document)
    _set_up_logs_once(options)
    show_trouble(str(error), exit_code=error.exit_code)


def show_bug(error: Exception, options: Options) -> None:
    """An exception that should have been foreseen, with its trace."""
    _set_up_logs_once(options)
    if logs.is_for_machines():
        logs.log_bug("this is a bug in svcagent; please report it with its trace", error)
        return
    traceback.print_exception(error)
    click.echo("svcagent: this is a bug in svcagent; please report it with the lines above", err=True)


def set_up_logs(options: Options, setting: str) -> None:
    """``--log-format``, else the environment, else the setting."""
    given = options.log_format or os.environ.get("SVCAGENT_LOG_FORMAT") or setting
    logs.set_up(logs.Format(given), is_verbose=options.verbose)


def _set_up_logs_once(options: Options) -> None:
    """For an error that came before the settings were known."""
    if logs.chosen() is None:
        given = options.log_format or os.environ.get("SVCAGENT_LOG_FORMAT")
        known = given if given in list(logs.Format) else logs.Format.AUTO
        set_up_logs(options, known)


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under headers: a table on a terminal, else columns that ``awk`` and ``column`` can read (tabs)."""
    options = current()
    if options.quiet or options.as_json:
        return
    if not sys.stdout.isatty():
        for row in (headers, *rows):
            click.echo("\t".join(row))
        return
    from rich.console import Console

    Console().print(table(headers, rows))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    """The table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, header_style="bold", pad_edge=False)
    for header in headers:
        made.add_column(header, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return made


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
