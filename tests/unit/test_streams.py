"""Streams that take nothing: a verb does its work all the same, and says by its exit code how it went."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.logs_fixture import records

# A verb that tells all that a reload tells, in every way, before and after its work, and then ends as it is asked to.
PROGRAM = """
import sys, types
from pathlib import Path
import click
import agent.cli
from agent import logs

@click.command()
@click.argument("file")
@click.argument("ending")
def probe(file, ending):
    from agent.cli.options import current
    from agent.cli.output import set_up_logs, show_document, show_line, show_table, show_problem, show_warning
    from agent.cli.reload_output import Printer, show_result
    from agent.engine.model import PullProgress
    from agent.errors import BadDefinition, Fault, GuardRefused
    from agent.reload.record import Phase, ReloadResult, StepEvent
    from agent.reload.steps import Step
    set_up_logs(current(), "auto")
    printer = Printer("web")
    def print_everything():
        for step in Step:
            for phase in Phase:
                printer.report_event(StepEvent(step, phase, 1.0, "x" * 500, "r1"))
                printer.report_recovery(StepEvent(step, phase, 1.0, "x" * 500, "r1"))
        for done in range(101):
            printer.report_pull(PullProgress(1, 2, done, 100))
        logs.log("x" * 10000)
        show_line("x" * 10000, "green")
        show_warning("x" * 10000)
        show_problem("x\\n" * 1000)
        if not current().as_json:
            show_table(["A"], [["x" * 10000]])
    print_everything()
    Path(file).write_text("done")
    print_everything()
    match ending:
        case "refused":
            return show_result(ReloadResult("web", "host1", "i", outcome="refused", error="no", exit_code=75))
        case "error":
            raise GuardRefused("not now")
        case "fault":
            raise BadDefinition([Fault("a.json", "service", "is wrong", "do it right")])
        case "bug":
            raise RuntimeError("a\\nb")
        case "usage":
            raise click.BadParameter("not that", param_hint="NAME")
    return show_result(ReloadResult("web", "host1", "i", outcome="reloaded"))

module = types.ModuleType("agent.cli.probe")
module.probe = probe
sys.modules["agent.cli.probe"] = module
agent.cli.VERBS["probe"] = ""
agent.cli.main()
"""

ENDINGS = {"well": 0, "refused": 75, "error": 75, "fault": 78, "bug": 3, "usage": 2}


@contextmanager
def no_reader() -> Iterator[int]:
    """A pipe whose other end is closed, as after ``| head`` or the death of whoever started the process."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def full_disk() -> Iterator[int]:
    with Path("/dev/full").open("w") as full:
        yield full.fileno()


@contextmanager
def lost_terminal() -> Iterator[int]:
    outer, inner = pty.openpty()
    os.close(outer)
    yield inner
    os.close(inner)


def run(directory: Path, options: Sequence[str], ending: str, **streams: Any) -> "subprocess.CompletedProcess[str]":
    """The verb; it must have done its work."""
    file = directory / "file"
    argv = [sys.executable, "-c", PROGRAM, *options, "probe", str(file), ending]
    # With buffers, as it is run outside tests: what is left in one is written once more at the end.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(argv, env=environ, text=True, check=False, timeout=60, **streams)
    assert file.read_text() == "done"
    return ended


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("broken", [no_reader, full_disk, lost_terminal])
def test_the_work_is_done_and_its_exit_code_is_its_own(tmp_path: Path, broken: Callable[[], Any], ending: str) -> None:
    """Whoever asked for output that a disk did not take hears of it; a reader that has gone wanted no more."""
    options = ["--log-format", "json", "-v"] if ending in ("well", "bug") else ["-v"]
    with broken() as stream:
        ended = run(tmp_path, options, ending, stdout=stream, stderr=stream)

    output_error = 1 if ending == "well" and broken is not no_reader else 0
    assert ended.returncode == (ENDINGS[ending] or output_error)


@pytest.mark.parametrize("ending", ["well", "error"])
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_streams_that_were_never_open(tmp_path: Path, closed: tuple[int, ...], ending: str) -> None:
    """No file that the verb opens takes their place, and gets what is printed."""

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    ended = run(tmp_path, ["-v"], ending, preexec_fn=close)

    assert ended.returncode == ENDINGS[ending]


def test_it_says_that_not_all_was_printed(tmp_path: Path) -> None:
    with full_disk() as stream:
        ended = run(tmp_path, [], "well", stdout=stream, stderr=subprocess.PIPE)

    assert ended.stderr.splitlines()[-1] == "svcagent: cannot write to standard output: No space left on device"
    assert ended.returncode == 1


@pytest.mark.parametrize("ending", ENDINGS)
def test_all_of_standard_error_is_json(tmp_path: Path, ending: str) -> None:
    """Notes, warnings, errors, faults, usage, a bug: an object a line; standard output is one document."""
    ended = run(tmp_path, ["--json", "--log-format", "json", "-v"], ending, capture_output=True)

    found = records(ended.stderr)
    assert {"time", "level", "text"} <= set.intersection(*(set(one) for one in found))
    document = json.loads(ended.stdout)
    assert ended.returncode == ENDINGS[ending]
    if ending == "well":
        assert document["outcome"] == "reloaded"
        return
    assert document["exit_code"] == found[-1]["exit_code"] == ENDINGS[ending]
    assert found[-1]["level"] == ("warning" if ENDINGS[ending] == 75 else "error")
    match ending:
        case "fault":
            fault = {"file": "a.json", "path": "service", "problem": "is wrong", "remedy": "do it right"}
            assert found[-1]["faults"] == document["faults"] == [fault]
        case "bug":
            assert found[-1]["trace"].endswith("RuntimeError: a\nb\n")
        case "usage":
            assert found[-1]["text"] == document["error"] == "Invalid value for NAME: not that"
        case _:
            assert document["error"] == found[-1]["text"]


def test_an_error_before_the_settings_are_known_is_logged_as_the_environment_says() -> None:
    """A command line that cannot be read has no options yet."""
    argv = [sys.executable, "-m", "agent", "--nope"]
    environ = {**os.environ, "SVCAGENT_LOG_FORMAT": "json"}
    ended = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)

    [found] = records(ended.stderr)
    assert (ended.returncode, found["exit_code"]) == (2, 2)
