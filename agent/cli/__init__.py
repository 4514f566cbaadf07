"""The command line. ``--help`` and ``--version`` are answered by this module and `help` alone, at once.

Each verb is a module of this package, imported when it is called. Errors end here, in one handler.
"""

import atexit
import gc
import io
import os
import sys

from agent import __version__
from agent.cli.help import VERBS, columns, help_text

TYPE_CHECKING = False  # typing's own takes as long to import as Python to start
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["VERBS", "main"]

BUG = 3
STDOUT, STDERR = 1, 2


def main() -> "NoReturn":
    """Run, and turn every way of ending into its exit code."""
    _collect_less()
    _fill_missing_streams()
    if sys.argv[1:] in (["-h"], ["--help"]):
        code = _print(help_text(columns()))
    elif sys.argv[1:] in (["-V"], ["--version"]):
        code = _print(f"svcagent {__version__}\n")
    else:
        code = _run()
    _flush()
    sys.exit(code)


def _print(text: str) -> int:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        return 0 if isinstance(error, BrokenPipeError) else 1
    return 0


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


def _run() -> int:
    import click

    from agent.cli.group import cli
    from agent.cli.options import Options
    from agent.errors import Interrupted, SvcagentError

    options = Options()
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
