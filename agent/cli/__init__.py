"""The command line. This module and `help` alone answer ``--help`` and ``--version``, quickly.

Each verb is a module of this package, imported when it is called. One handler here catches all errors.
"""

import atexit
import gc
import io
import os
import sys

from agent import __version__
from agent.cli.help import VERBS, columns, help_text

TYPE_CHECKING = False  # typing's TYPE_CHECKING takes as long to import as Python takes to start
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["VERBS", "main"]

BUG = 3
STDOUT, STDERR = 1, 2


def main() -> "NoReturn":
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
    """Open missing standard output and error: otherwise the next open file would take their descriptors."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(STDOUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(STDERR, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else a test's
            # A character that the locale does not have must not end the process.
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Write the remaining output, or discard it: at its end Python would try once more, complain, and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _collect_less() -> None:
    """Collect garbage less often: modules and definitions are never garbage, and searching them takes a tenth of a run.

    By default Python does so for every 700 new objects, and once more when the process ends.
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
        # A reader that has closed the pipe needs no more output; a full disk is a failure.
        output_error = None if isinstance(options.output_error, BrokenPipeError) else options.output_error
        if output_error is not None and not result:
            raise SvcagentError(f"cannot write to standard output: {output_error.strerror}", kind="cannot-write")  # noqa: TRY301 - as all errors
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
