"""The command line. This module imports click alone: ``--help`` and ``--version`` answer at once.

Each verb is a module of this package, imported when it is called. Errors end here, in one handler.
"""

import atexit
import gc
import importlib
import io
import os
import sys
from typing import Any, NoReturn

import click

from agent import __version__
from agent.cli.options import Options
from agent.errors import Interrupted, SvcagentError

BUG = 3
STDOUT, STDERR = 1, 2

VERBS = {
    "validate": "Show every fault of every definition; change nothing.",
    "schema": "Print the JSON Schema of a definition file, for editors.",
    "plan": "Show what register would change, field by field.",
    "register": "Make the local Consul agent hold what services.d says. On boot.",
    "deregister": "Take services that svcagent registered out of the local agent.",
    "reload": "Take the service's newest image, without a lost request.",
    "run": "The daemon: all of this, each in its time.",
    "schedule": "When the daemon will reload what next, or why never.",
    "recover": "Bring to its end what a killed reload left half done.",
    "maint": "Take a service or this host out of service and put it back.",
    "cname": "Keep CNAMEs in your DNS that point at services.",
    "lock": "Look at the lock that lets one host after the other reload a service.",
    "status": "What this host's services are doing.",
    "pause": "Stop a service's reloads on all hosts.",
    "resume": "Let them go on.",
    "quarantine": "Show and clear images that no host takes.",
    "fleet": "What all hosts of a service run, and how they fare.",
    "why": "What stands between this host and the newest image, and who can clear it.",
    "doctor": "Find what keeps this host from good service.",
    "history": "Past reloads, with seconds by step.",
    "notify": "Try the messages that tell people of rollouts.",
}


class LazyGroup(click.Group):
    """Knows its verbs' names and first lines; imports a verb only to run it or to show its own help."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """In the order in which they are needed, not the alphabet's."""
        return list(VERBS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module; it exports a command of its own name."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"agent.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the verb that was meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=VERBS, ctx=ctx) from error

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Shell completion: eval "$(_SVCAGENT_COMPLETE=bash_source svcagent)", or zsh_source, fish_source. '
    "Exit codes: 0 done or nothing to do, 1 failed, 2 usage, 3 a bug, 69 Consul, Docker or DNS unreachable, "
    "75 not now, 78 bad definition or settings, 130/143 interrupted and put back.",
)
@click.version_option(__version__, "-V", "--version", prog_name="svcagent", message="%(prog)s %(version)s")
@click.option("--config", type=click.Path(), metavar="FILE", help="Settings.  [default: /etc/svcagent/svcagent.toml]")
@click.option(
    "--services-dir",
    type=click.Path(),
    metavar="DIR",
    help="Definitions.  [env: SVCAGENT_SERVICES_DIR; default: /etc/svcagent/services.d]",
)
@click.option(
    "--state-dir",
    type=click.Path(),
    metavar="DIR",
    help="What svcagent remembers.  [env: SVCAGENT_STATE_DIR; default: /var/lib/svcagent]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens on standard error.")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "text", "json", "journal"]),
    help="How to log: key=value, one JSON object a line, or journal fields.  [env: SVCAGENT_LOG_FORMAT; default: auto, "
    "the journal under systemd, else text]",
)
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.pass_context
def cli(ctx: click.Context, /, **given: Any) -> None:
    """Host agent for fleets that run on Consul.

    Registers this host's services from services.d, reloads their containers without losing a request, and lets
    operators take services out and put them back.

    \b
    Examples:
      svcagent register --dry-run
      svcagent reload keyword-suggest
      svcagent maint enable keyword-suggest --reason "disk swap" --for 2h
    """
    options = ctx.ensure_object(Options)
    for name, value in given.items():
        setattr(options, name, value)


@cli.result_callback()
@click.pass_obj
def _exit_code(options: Options, /, result: Any, **_given: Any) -> int:
    """Return the exit code of a verb that ended without an error."""
    return max(result if isinstance(result, int) else 0, options.least_exit_code)


def main() -> NoReturn:
    """Run, and turn every way of ending into its exit code."""
    _collect_less()
    _fill_missing_streams()
    options = Options()
    code = _run(options)
    _flush()
    sys.exit(code)


def _fill_missing_streams() -> None:
    """Somebody may start a process without standard output or error; the next file would take their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(STDOUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(STDERR, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else a test's
            # Not every locale has every character; one that it lacks is no reason to end.
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Write what can still be written. Python would try the rest once more at its end, complain, and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _collect_less() -> None:
    """Modules and definitions stay to the end: looking for garbage among them takes a tenth of a run.

    By default that is done for every 700 new objects, and once more, in vain, when the process ends.
    """
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)


def _run(options: Options) -> int:
    try:
        result = cli.main(standalone_mode=False, prog_name="svcagent", obj=options)
        # A reader that has gone wants no more of it; a full disk is a failure.
        unprinted = None if isinstance(options.unprinted, BrokenPipeError) else options.unprinted
        if unprinted is not None and not result:
            raise SvcagentError(f"cannot write to standard output: {unprinted.strerror}")  # noqa: TRY301 - as all errors
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        from agent.cli.output import show_usage

        show_usage(error, options)
        return error.exit_code
    except (SvcagentError, Interrupted) as error:
        from agent.cli.output import show_error

        show_error(error, options)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the top-level handler: prints the bug with its trace
        from agent.cli.output import show_bug

        show_bug(error, options, BUG)
        return BUG
    return result if isinstance(result, int) else 0
