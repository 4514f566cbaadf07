"""What a reload prints and logs while it runs and when it ends."""

import io
import json
import re
from collections.abc import Iterator

import click
import pytest

from agent import logs
from agent.cli.options import Options
from agent.cli.reload_output import (
    REPAIR_OUTPUT,
    Printer,
    show_quarantined,
    show_recovered,
    show_result,
    show_rolled_back,
)
from agent.engine.model import PullProgress
from agent.logs import Format
from agent.outcomes import Outcome
from agent.reload.record import Phase, ReloadResult, StepEvent
from agent.reload.steps import Step
from tests.unit.logs_fixture import fresh_logs, records

__all__ = ["fresh_logs"]

pytestmark = pytest.mark.usefixtures("fresh_logs", "options")

EVENTS = (
    StepEvent(Step.CHECK, Phase.BEGIN, 0.0, "", "r1"),
    StepEvent(Step.CHECK, Phase.END, 0.0123, "", "r1"),
    StepEvent(Step.ACQUIRE, Phase.NOTE, 1.5, "place 2 in the line;\nheld by host2", "r1", 2),
    StepEvent(Step.DRAIN, Phase.END, 2.0, "", "r1"),
    StepEvent(Step.READY, Phase.FAILED, 30.0, "not ready", "r1"),
)
PULL = PullProgress(1, 4, 50, 200)


@pytest.fixture
def options() -> Iterator[Options]:
    with click.Context(click.Command("reload"), obj=Options()) as context:
        yield context.obj


def test_every_line_says_which_reload_and_which_step(capfd: pytest.CaptureFixture[str]) -> None:
    """In JSON nothing else is on standard error, notes included."""
    logs.set_up(Format.JSON, is_verbose=True)
    printer = Printer("web")
    for event in EVENTS:
        printer.report_event(event)
    printer.report_pull(PULL)
    told = capfd.readouterr()

    *found, pulling = [{**one, "time": "T"} for one in records(told.err)]
    assert found == [
        {
            "time": "T",
            "level": "warning" if event.phase is Phase.NOTE else "info",
            "text": event.text,
            "service": "web",
            "reload": "r1",
            "step": event.step,
            "phase": event.phase,
            "seconds": round(event.seconds, 3),
            **({"place": 2} if event.phase is Phase.NOTE else {}),
        }
        for event in EVENTS
    ]
    assert pulling == {
        "time": "T",
        "level": "info",
        "text": "pull  25%  1/4 layers  0.0 of 0.0 MB",
        "service": "web",
        "reload": "r1",
        "step": "pull",
        "phase": "progress",
        "layers_done": 1,
        "layers": 4,
        "bytes_done": 50,
        "bytes_total": 200,
    }
    assert told.out == "drain         2.00 s\nready        30.00 s  failed\npull  25%  1/4 layers  0.0 of 0.0 MB\n"


def test_in_text_people_read_what_they_always_read(capfd: pytest.CaptureFixture[str]) -> None:
    """From cron: notes on standard error, a line a step on standard output, and no log without -v."""
    logs.set_up(Format.TEXT, is_verbose=False)
    printer = Printer("web")
    for event in EVENTS:
        printer.report_event(event)

    assert capfd.readouterr() == (
        "drain         2.00 s\nready        30.00 s  failed\n",
        "svcagent: web: place 2 in the line;\nheld by host2\n",
    )


class Terminal(io.StringIO):
    """Standard output and standard error as one terminal."""

    @classmethod
    def opened(cls, monkeypatch: pytest.MonkeyPatch) -> "Terminal":
        screen = cls()
        monkeypatch.setattr("sys.stdout", screen)
        monkeypatch.setattr("sys.stderr", screen)
        return screen

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What a person sees: a carriage return goes back, and what follows is written over the line."""
        shown = []
        for line in self.getvalue().split("\n"):
            cells = ""
            for part in line.split("\r"):
                cells = part + cells[len(part) :]
            shown.append(re.sub("\x1b\\[[0-9;]*m", "", cells).rstrip())
        return shown


def test_a_terminal_shows_the_running_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A note does not replace it, and nothing of it remains when it has ended."""
    terminal = Terminal.opened(monkeypatch)
    printer = Printer("web")
    seen = []
    for event in (
        StepEvent(Step.CHECK, Phase.BEGIN),
        StepEvent(Step.CHECK, Phase.END, 0.1),
        StepEvent(Step.ACQUIRE, Phase.BEGIN),
        StepEvent(Step.ACQUIRE, Phase.NOTE, 1.5, "place 2"),
        StepEvent(Step.ACQUIRE, Phase.END, 2.0),
    ):
        printer.report_event(event)
        seen.append(terminal.lines)
    printer.report_pull(PULL)
    seen.append(terminal.lines)

    note, ended = "svcagent: web: place 2", "acquire       2.00 s"
    assert seen == [
        ["check ..."],
        [""],
        ["acquire ..."],
        [note, "acquire ..."],
        [note, ended, ""],
        [note, ended, "pull  25%  1/4 layers  0.0 of 0.0 MB"],
    ]


@pytest.mark.parametrize(("has_container", "label"), [(True, "ready (old container)"), (False, "ready (again)")])
def test_the_failed_step_and_the_second_wait(
    capfd: pytest.CaptureFixture[str], label: str, *, has_container: bool
) -> None:
    printer = Printer("web", has_container=has_container)
    for event in (
        StepEvent(Step.READY, Phase.FAILED, 120.06, "not ready"),
        StepEvent(Step.ROLL_BACK, Phase.END, 1.0),
        StepEvent(Step.READY, Phase.END, 2.0),
    ):
        printer.report_event(event)

    assert capfd.readouterr().out.splitlines() == [
        "ready       120.06 s  failed",
        "roll back     1.00 s",
        f"{label}    2.00 s",
    ]


def test_a_terminal_shows_a_recovery_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal.opened(monkeypatch)
    seen = []
    for phase in (Phase.BEGIN, Phase.END):
        REPAIR_OUTPUT.report_event("web", StepEvent(Step.READY, phase))
        seen.append(terminal.lines)

    assert seen == [["recovery: ready ..."], [""]]


@pytest.mark.parametrize("option", ["quiet", "as_json"])
def test_no_progress_if_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch, options: Options, option: str) -> None:
    terminal = Terminal.opened(monkeypatch)
    setattr(options, option, True)
    Printer("web").report_event(StepEvent(Step.DRAIN, Phase.BEGIN))

    assert terminal.getvalue() == ""


def test_with_the_journal_standard_error_gets_the_lines_too(capfd: pytest.CaptureFixture[str]) -> None:
    """Else errors of a command typed on a host that logs to its journal were shown to nobody."""
    logs.set_up(Format.JOURNAL, is_verbose=True, journal="/nowhere")
    Printer("web").report_event(EVENTS[2])
    show_result(ReloadResult("web", "host1", "i", outcome=Outcome.FAILED, error="no", exit_code=1))

    assert capfd.readouterr().err == "svcagent: web: place 2 in the line;\nheld by host2\nsvcagent: no\n"


@pytest.mark.parametrize("layers", [1000, 7])
def test_a_pull_is_a_record_and_a_line_a_quarter(capfd: pytest.CaptureFixture[str], layers: int) -> None:
    logs.set_up(Format.JSON, is_verbose=True)
    printer = Printer("web")
    for done in range(layers + 1):
        printer.report_pull(PullProgress(done, layers, done, layers))
    told = capfd.readouterr()

    assert 4 <= len(records(told.err)) <= 5
    assert len(told.out.splitlines()) <= 4


def test_a_pull_without_v_is_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    logs.set_up(Format.JSON, is_verbose=False)
    Printer("web").report_pull(PULL)

    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("outcome", "exit_code", "level"),
    [
        (Outcome.FAILED, 1, "error"),
        (Outcome.STRANDED, 69, "error"),
        (Outcome.REFUSED, 75, "warning"),
        (Outcome.INTERRUPTED, 143, "warning"),
    ],
)
def test_the_end_is_reported_once(
    capfd: pytest.CaptureFixture[str], outcome: Outcome, exit_code: int, level: str
) -> None:
    """By the result, which comes last. What may pass by itself is no error."""
    logs.set_up(Format.JSON, is_verbose=True)
    result = ReloadResult("web", "host1", "i", id="r1", outcome=outcome, error="why\nnot", exit_code=exit_code)
    assert show_result(result) == exit_code
    [record] = records(capfd.readouterr().err)

    assert (record["level"], record["text"], record["reload"]) == (level, "why\nnot", "r1")
    assert (record["outcome"], record["exit_code"]) == (outcome, exit_code)


def test_a_failure_is_reported_line_by_line_to_people(capfd: pytest.CaptureFixture[str]) -> None:
    logs.set_up(Format.TEXT, is_verbose=False)
    result = ReloadResult("web", "host1", "i", outcome=Outcome.FAILED, error="why\nnot", exit_code=1)
    show_result(result)
    show_recovered([result])

    assert capfd.readouterr().err == "svcagent: why\nsvcagent: not\n" * 2


def test_a_recovery_is_an_event_of_the_reload_that_was_unfinished(capfd: pytest.CaptureFixture[str]) -> None:
    """One each, with that reload's id: it is put right, or it is not."""
    logs.set_up(Format.JSON, is_verbose=False)
    repaired = ReloadResult("web", "host1", "i", id="r1", outcome=Outcome.RECOVERED, error="slow\nat first")
    stranded = ReloadResult("db", "host1", "i", id="r2", outcome=Outcome.STRANDED, error="OUT", exit_code=1)

    assert show_recovered([repaired, stranded]) == 1
    found = records(capfd.readouterr().err)
    assert [(one["level"], one["service"], one["reload"], one.get("exit_code")) for one in found] == [
        ("warning", "web", "r1", None),
        ("warning", "web", "r1", None),
        ("error", "db", "r2", 1),
    ]
    assert "unfinished reload r1 is recovered" in found[0]["text"], "it may have failed, not crashed"
    assert found[1]["text"] == "slow\nat first"


def test_the_document_is_all_there_is_on_standard_output(capfd: pytest.CaptureFixture[str], options: Options) -> None:
    logs.set_up(Format.JSON, is_verbose=True)
    options.as_json = True
    printer = Printer("web")
    for event in EVENTS:
        printer.report_event(event)
    printer.report_pull(PULL)
    show_result(ReloadResult("web", "host1", "i", outcome=Outcome.RELOADED))

    assert json.loads(capfd.readouterr().out)["outcome"] == "reloaded"


def test_a_failed_version_cause_first_then_consequences_then_the_remedy(capfd: pytest.CaptureFixture[str]) -> None:
    new, old = "sha256:2", "sha256:1"
    result = ReloadResult("web", "host1", "i", outcome=Outcome.ROLLED_BACK, error="no", exit_code=1, running=old)
    result.quarantined = new

    show_result(result)
    show_rolled_back(result, "in service")
    show_quarantined(result)

    cause, rolled_back, quarantined = capfd.readouterr().err.splitlines()
    assert cause == "svcagent: no"
    assert rolled_back == "svcagent: web: rolled back; sha256:1 runs again on host1, in service"
    assert quarantined.startswith("svcagent: web: sha256:2 is quarantined")
    assert quarantined.endswith("run: svcagent quarantine clear web sha256:2")


def test_a_failed_restart_command_rolls_back_to_no_other_version(capfd: pytest.CaptureFixture[str]) -> None:
    show_rolled_back(ReloadResult("web", "host1", "", outcome=Outcome.ROLLED_BACK), "in service")

    assert capfd.readouterr().err == "svcagent: web: passes its checks on host1 as before, in service\n"


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ("sha256:1", "recovered (rolled back): sha256:1 runs again, ready and in service"),
        ("sha256:2", "recovered (finished): sha256:2 runs, ready and in service"),
        (None, "recovered; the instance is ready and in service again"),
    ],
)
def test_a_recovery_says_which_version_runs(
    capfd: pytest.CaptureFixture[str], running: str | None, expected: str
) -> None:
    result = ReloadResult("web", "host1", "i", "ab12", Outcome.RECOVERED, running=running, wanted="sha256:2")

    show_recovered([result])

    assert capfd.readouterr().err == f"svcagent: web: the unfinished reload ab12 is {expected}\n"
