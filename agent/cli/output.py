"""Printing: colour and tables for a terminal, plain lines for a pipe, one document for ``--json``."""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import current
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


def show_warning(text: str) -> None:
    """Something a person should know, on standard error. That it cannot be told keeps nothing from being done."""
    with suppress(OSError):
        click.secho(f"svcagent: {text}", fg="yellow", err=True)


def show_trouble(text: str) -> None:
    """Something that a person has to see to, on standard error."""
    for line in text.splitlines():
        click.secho(f"svcagent: {line}", fg="red", err=True)


def show_error(error: SvcagentError | Interrupted, *, as_json: bool) -> None:
    """An error on standard error, and with ``--json`` as the document too."""
    if as_json:
        document: dict[str, Any] = {"error": str(error), "exit_code": error.exit_code}
        if isinstance(error, BadDefinition):
            document["faults"] = [
                {"file": f.file, "path": f.path, "problem": f.problem, "remedy": f.remedy} for f in error.faults
            ]
        show_document(document)
    show_trouble(str(error))


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


def log(**fields: object) -> None:
    """One ``key=value`` line on standard error, with ``-v``."""
    if current().verbose:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        click.echo(" ".join([f"time={now}", *(f"{key}={_quoted(value)}" for key, value in fields.items())]), err=True)


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c in text for c in ' "=\n') else text


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
