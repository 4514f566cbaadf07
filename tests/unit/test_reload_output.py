"""What a reload prints and logs while it runs, and how another svcagent tells it from those records."""

import json
from collections.abc import Iterator
from dataclasses import replace

import click
import pytest

from agent import logs
from agent.cli.options import Options
from agent.cli.reload_output import Printer, event_of, show_result, show_rolled_back, tell_repaired
from agent.engine import PullProgress
from agent.logs import Format
from agent.reload import Event, Phase, Result, Step
from tests.unit.logs_fixture import fresh_logs, records

__all__ = ["fresh_logs"]

pytestmark = pytest.mark.usefixtures("fresh_logs", "options")

EVENTS = (
    Event(Step.CHECK, Phase.BEGIN, 0.0, "", "r1"),
    Event(Step.CHECK, Phase.END, 0.0123, "", "r1"),
    Event(Step.ACQUIRE, Phase.NOTE, 1.5, "place 2 in the line;\nheld by host2", "r1", 2),
    Event(Step.DRAIN, Phase.END, 2.0, "", "r1"),
    Event(Step.READY, Phase.FAILED, 30.0, "not ready", "r1"),
)
PULL = PullProgress(1, 4, 50, 200)


@pytest.fixture
def options() -> Iterator[Options]:
    """Those of the command that runs."""
    with click.Context(click.Command("reload"), obj=Options()) as context:
        yield context.obj


def test_every_line_says_which_reload_and_which_step(capfd: pytest.CaptureFixture[str]) -> None:
    """In JSON nothing else is on standard error, notes included."""
    logs.set_up(Format.JSON, is_verbose=True)
    printer = Printer("web")
    for event in EVENTS:
        printer.tell(event)
    printer.tell_pull(PULL)
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
    assert told.out == "drain         2.00 s\npull  25%  1/4 layers  0.0 of 0.0 MB    \n"


def test_in_text_people_read_what_they_always_read(capfd: pytest.CaptureFixture[str]) -> None:
    """From cron: notes on standard error, a line a step on standard output, and no log without -v."""
    logs.set_up(Format.TEXT, is_verbose=False)
    printer = Printer("web")
    for event in EVENTS:
        printer.tell(event)

    assert capfd.readouterr() == (
        "drain         2.00 s\n",
        "svcagent: web: place 2 in the line;\nheld by host2\n",
    )


def test_with_the_journal_whoever_is_at_standard_error_reads_it_too(capfd: pytest.CaptureFixture[str]) -> None:
    """Else errors of a command typed on a host that logs to its journal were shown to nobody."""
    logs.set_up(Format.JOURNAL, is_verbose=True, journal="/nowhere")
    Printer("web").tell(EVENTS[2])
    show_result(Result("web", "host1", "i", outcome="failed", error="no", exit_code=1))

    assert capfd.readouterr().err == "svcagent: web: place 2 in the line;\nheld by host2\nsvcagent: no\n"


@pytest.mark.parametrize(("layers", "expected"), [(1000, 101), (7, 8)])
def test_a_pull_is_at_most_one_record_a_percent(capfd: pytest.CaptureFixture[str], layers: int, expected: int) -> None:
    """And in a pipe still one printed line a quarter, however it is logged."""
    logs.set_up(Format.JSON, is_verbose=True)
    printer = Printer("web")
    for done in range(layers + 1):
        printer.tell_pull(PullProgress(done, layers, done, layers))
    told = capfd.readouterr()

    assert len(records(told.err)) == expected
    assert len(told.out.splitlines()) <= 4


def test_a_pull_without_v_is_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    logs.set_up(Format.JSON, is_verbose=False)
    Printer("web").tell_pull(PULL)

    assert capfd.readouterr().err == ""


# ---------------------------------------------------------------- replayed


@pytest.mark.parametrize("told", [*EVENTS, PULL, PullProgress(0, 0, 0, 0)])
def test_a_record_is_what_was_told(capfd: pytest.CaptureFixture[str], told: Event | PullProgress) -> None:
    """There and back: an event, or how far a pull is."""
    logs.set_up(Format.JSON, is_verbose=True)
    if isinstance(told, Event):
        Printer("web").tell(told)
        told = replace(told, seconds=round(told.seconds, 3))
    else:
        Printer("web").tell_pull(told)

    assert [event_of(one) for one in records(capfd.readouterr().err)] == [told]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"text": "x", "level": "warning"},
        {"step": "drain"},
        {"step": "drain", "phase": "begin"},
        {"step": "drain", "phase": "begin", "seconds": "1"},
        {"step": "dance", "phase": "begin", "seconds": 1.0},
        {"step": "drain", "phase": "later", "seconds": 1.0},
        {"step": ["drain"], "phase": {}, "seconds": 1.0},
        {"step": "ready", "hook": "after_restart", "text": "x"},
    ],
)
def test_what_is_no_event_is_none(record: dict[str, object]) -> None:
    """Nor is what another version may log one day."""
    assert event_of(record) is None


def test_numbers_of_a_pull_that_are_none_are_none() -> None:
    assert event_of({"step": "pull", "phase": "progress", "layers": "9", "bytes_total": 5}) == PullProgress(0, 0, 0, 5)


def test_a_reload_of_the_daemon_is_shown_as_if_it_were_ones_own(capfd: pytest.CaptureFixture[str]) -> None:
    """The same lines in the same places, without any that only the log had."""
    logs.set_up(Format.JSON, is_verbose=True)
    child = Printer("web")
    for event in EVENTS:
        child.tell(event)
    child.tell_pull(PULL)
    logs.log("what a hook said", step="ready", hook="after_restart")
    logs.log("retry", level=logs.WARNING, logger="urllib3")
    sent = records(capfd.readouterr().err)

    logs.set_up(Format.TEXT, is_verbose=False)
    own, replayed = Printer("web"), Printer("web")
    for event in EVENTS:
        own.tell(event)
    own.tell_pull(PULL)
    expected = capfd.readouterr()
    for record in sent:
        replayed.replay(record)

    shown = capfd.readouterr()
    assert shown.out == expected.out
    assert shown.err == f"{expected.err}svcagent: retry\n"


def test_with_v_all_that_the_daemon_logged_is_logged_here(capfd: pytest.CaptureFixture[str]) -> None:
    logs.set_up(Format.JSON, is_verbose=True)
    record = {"time": "T", "level": "info", "text": "what a hook said", "reload": "r1", "hook": "after_restart"}
    Printer("web").replay(record)
    Printer("web").replay({**record, "level": "error"})

    quiet, loud = records(capfd.readouterr().err)
    assert quiet == record
    assert (loud["text"], loud["reload"], loud["hook"]) == ("what a hook said", "r1", "after_restart")


def test_what_a_recovery_did_is_replayed_as_quietly_as_it_was_done(capfd: pytest.CaptureFixture[str]) -> None:
    """A reload first puts right what an earlier one left; its steps are not that reload's."""
    logs.set_up(Format.JSON, is_verbose=True)
    Printer("web").tell_quietly(EVENTS[3])
    [record] = records(capfd.readouterr().err)
    logs.set_up(Format.TEXT, is_verbose=False)
    Printer("web").replay(record)

    assert record["recovery"] is True
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("outcome", "exit_code", "level"),
    [("failed", 1, "error"), ("stranded", 69, "error"), ("refused", 75, "warning"), ("interrupted", 143, "warning")],
)
def test_the_end_is_told_once(capfd: pytest.CaptureFixture[str], outcome: str, exit_code: int, level: str) -> None:
    """By the result, which comes last; its line in the log is not replayed. What may pass by itself is no error."""
    logs.set_up(Format.JSON, is_verbose=True)
    result = Result("web", "host1", "i", id="r1", outcome=outcome, error="why\nnot", exit_code=exit_code)
    assert show_result(result) == exit_code
    [record] = records(capfd.readouterr().err)
    logs.set_up(Format.TEXT, is_verbose=False)
    Printer("web").replay(record)

    assert (record["level"], record["text"], record["reload"]) == (level, "why\nnot", "r1")
    assert (record["outcome"], record["exit_code"]) == (outcome, exit_code)
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- the end


def test_a_failure_is_told_line_by_line_to_people(capfd: pytest.CaptureFixture[str]) -> None:
    logs.set_up(Format.TEXT, is_verbose=False)
    result = Result("web", "host1", "i", outcome="failed", error="why\nnot", exit_code=1)
    show_result(result)
    tell_repaired([result])

    assert capfd.readouterr().err == "svcagent: why\nsvcagent: not\n" * 2


def test_a_recovery_is_an_event_of_the_reload_that_was_unfinished(capfd: pytest.CaptureFixture[str]) -> None:
    """One each, with that reload's id: it is put right, or it is not."""
    logs.set_up(Format.JSON, is_verbose=False)
    repaired = Result("web", "host1", "i", id="r1", outcome="recovered", error="slow\nat first")
    stranded = Result("db", "host1", "i", id="r2", outcome="stranded", error="OUT", exit_code=1)

    assert tell_repaired([repaired, stranded]) == 1
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
        printer.tell(event)
    printer.tell_pull(PULL)
    show_result(Result("web", "host1", "i", outcome="reloaded"))

    assert json.loads(capfd.readouterr().out)["outcome"] == "reloaded"


def test_the_last_line_of_a_roll_back_says_what_runs_again(capfd: pytest.CaptureFixture[str]) -> None:
    result = Result("web", "host1", "i", outcome="rolled back", error="no", exit_code=1, running="sha256:1")

    show_result(result)
    show_rolled_back(result, "in service")

    assert (
        capfd.readouterr().err.splitlines()[-1]
        == "svcagent: web: rolled back; sha256:1 runs again on host1, in service"
    )
