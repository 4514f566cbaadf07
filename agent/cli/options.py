"""The options that every verb has, before or after its name. Imports only click."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from agent.data import dataclass
from agent.errors import Fault

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Options:
    """The options common to all verbs, and state of the running verb.

    ``is_logging``: logging is set up. ``output_error``: why output is incomplete. ``faults``: those of the
    files that the verb leaves out. ``least_exit_code``: the exit code of a verb that otherwise succeeds.
    """

    config: str | None = None
    services_dir: str | None = None
    state_dir: str | None = None
    as_json: bool = False
    verbose: bool = False
    quiet: bool = False
    log_format: str | None = None
    is_logging: bool = False
    output_error: OSError | None = None
    faults: tuple[Fault, ...] = ()
    least_exit_code: int = 0


class Count(click.IntRange):
    """A number from 1. click would call it an "integer range" in messages."""

    name = "number"

    def __init__(self) -> None:
        super().__init__(min=1)


def _remember(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:  # click's signature
    if value:
        setattr(ctx.ensure_object(Options), str(parameter.name), True)


def output_options(command: F) -> F:
    """Accept ``--json``, ``-v`` and ``-q`` after the verb's name as well as before it."""
    for names, text in (
        (("-q", "--quiet"), "Print errors only."),
        (("-v", "--verbose"), "Log what happens on standard error."),
        (("--json", "as_json"), "One JSON document on standard output."),
    ):
        command = click.option(*names, is_flag=True, expose_value=False, callback=_remember, help=text)(command)
    return command


def current() -> Options:
    context = click.get_current_context(silent=True)
    found = context.find_object(Options) if context else None
    return found or Options()
