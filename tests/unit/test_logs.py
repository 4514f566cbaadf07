"""The log of a process: what is logged where, what becomes of others' lines, and of lines that cannot be written."""

import fcntl
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import IO

import pytest

from agent import logs
from agent.cli.output import show_warning
from agent.logs import Format
from agent.logs.handlers import PATIENCE_SECONDS, Handler
from tests.unit.logs_fixture import fresh_logs, journal, records

__all__ = ["fresh_logs"]

pytestmark = pytest.mark.usefixtures("fresh_logs")


PIPE_BYTES = 4 * 4096


class Pipe:
    """A pipe of four pages as standard error, inside its block: pytest puts its own in place before each test."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.stream: IO[str] = os.fdopen(writer, "w")

    def __enter__(self) -> "Pipe":
        self._before, sys.stderr = sys.stderr, self.stream
        return self

    def __exit__(self, *_ended: object) -> None:
        sys.stderr = self._before
        self.stream.close()
        if self.reader >= 0:
            os.close(self.reader)

    def read(self) -> str:
        os.set_blocking(self.reader, False)
        return os.read(self.reader, 1 << 16).decode()

    def stop_reading(self) -> None:
        os.close(self.reader)
        self.reader = -1


@pytest.mark.parametrize(
    ("is_verbose", "expected"), [(False, ["warning", "error"]), (True, ["info", "warning", "error"])]
)
def test_how_much_is_logged(capfd: pytest.CaptureFixture[str], is_verbose: bool, expected: list[str]) -> None:
    logs.set_up(Format.JSON, is_verbose=is_verbose)
    for level in (logs.DEBUG, logs.INFO, logs.WARNING, logs.ERROR):
        logs.log("x", level=level)

    assert [one["level"] for one in records(capfd.readouterr().err)] == expected


def test_a_line_of_text(capfd: pytest.CaptureFixture[str]) -> None:
    logs.set_up(Format.TEXT, is_verbose=True)
    logs.log("is out", service="web")

    assert capfd.readouterr().err.partition(" ")[2] == 'level=info service=web text="is out"\n'


def test_being_set_up_again_writes_nothing_twice(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        logs.set_up(Format.JSON, is_verbose=True)
    logs.log("x")

    assert len(records(capfd.readouterr().err)) == 1


def test_without_v_text_costs_no_import() -> None:
    """Nor does it change anything about what libraries print: a command that a person typed is as quick as before."""
    code = """
import sys
from agent import logs
logs.set_up(logs.Format.AUTO, is_verbose=False)
logs.log("x")
print(sorted(sys.modules.keys() & {"logging", "traceback", "logging_journald", "agent.logs.handlers"}))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})

    assert (shown.stdout, shown.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    ("wanted", "stream", "is_structured", "is_alone"),
    [
        (Format.AUTO, "ours", True, True),
        (Format.AUTO, "another", False, False),
        (Format.AUTO, "", False, False),
        (Format.AUTO, "nonsense", False, False),
        (Format.TEXT, "ours", False, False),
        (Format.JSON, "ours", True, True),
        (Format.JSON, "", True, True),
        (Format.JOURNAL, "ours", True, True),
        (Format.JOURNAL, "", True, False),
    ],
)
def test_what_is_chosen_by_what_systemd_connected(
    monkeypatch: pytest.MonkeyPatch, wanted: Format, stream: str, is_structured: bool, is_alone: bool
) -> None:
    """$JOURNAL_STREAM is inherited by those whose standard error has gone elsewhere since; a person may sit there."""
    with Pipe() as pipe:
        of = os.fstat(pipe.stream.fileno())
        streams = {"ours": f"{of.st_dev}:{of.st_ino}", "another": f"{of.st_dev}:{of.st_ino + 1}"}
        monkeypatch.setenv("JOURNAL_STREAM", streams.get(stream, stream))
        logs.set_up(wanted, is_verbose=False)

    assert (logs.is_structured(), logs.is_stderr_log()) == (is_structured, is_alone)


def test_no_standard_error_is_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    with Pipe() as pipe:
        pipe.stream.close()
        logs.set_up(Format.AUTO, is_verbose=False)

    assert not logs.is_structured()


def test_every_line_inside_a_block_says_what_it_is_about(capfd: pytest.CaptureFixture[str]) -> None:
    """Also those of threads and libraries; an event's own fields win; afterwards it is as before."""
    logs.set_up(Format.JSON, is_verbose=True)
    with logs.about(service="web"), logs.about(reload="r1"):
        logs.log("ours")
        logs.log("its own", reload="r2")
        thread = threading.Thread(target=logging.getLogger("urllib3.pool").warning, args=("retry %d", 1))
        thread.start()
        thread.join()
    logs.log("after")

    found = [(one["text"], one.get("service"), one.get("reload")) for one in records(capfd.readouterr().err)]
    assert found == [("ours", "web", "r1"), ("its own", "web", "r2"), ("retry 1", "web", "r1"), ("after", None, None)]


@pytest.mark.parametrize("name", ["apscheduler.scheduler", "urllib3.connectionpool", "watchdog.observers", "asyncio"])
def test_libraries_warn_through_the_same_format(capfd: pytest.CaptureFixture[str], name: str) -> None:
    """With the name of their logger; what they say below a warning is nobody's business, -v or not."""
    logs.set_up(Format.JSON, is_verbose=True)
    logger = logging.getLogger(name)
    logger.info("nothing")
    logger.warning("retry %d", 2)
    try:
        int("a")
    except ValueError:
        logger.exception("no\nluck")

    warned, failed = records(capfd.readouterr().err)
    assert (warned["level"], warned["text"], warned["logger"]) == ("warning", "retry 2", name)
    assert (failed["level"], failed["text"]) == ("error", "no\nluck")
    assert failed["trace"].endswith("base 10: 'a'")


def test_a_librarys_bad_line_breaks_nothing(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    logs.set_up(Format.JSON, is_verbose=True)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [one for one in root.handlers if isinstance(one, Handler)])
    logging.getLogger("lib").warning("%d of %s", "one")

    [found] = records(capfd.readouterr().err)
    assert found["text"].startswith("'%d of %s' with ('one',)")


def test_what_python_itself_prints_is_an_event_where_nothing_else_may_be(capfd: pytest.CaptureFixture[str]) -> None:
    """Warnings, and what nobody caught: in a thread, in a finalizer. Whoever reads JSON reads lines."""
    logs.set_up(Format.JSON, is_verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)  # catch_warnings has its own way of showing them
        warnings.warn("old", UserWarning, stacklevel=1)
    thread = threading.Thread(target=lambda: [][1])
    thread.start()
    thread.join()
    _Unruly()
    gc.collect()

    warned, threaded, finalized = records(capfd.readouterr().err)
    assert "UserWarning: old" in warned["text"]
    assert threaded["trace"].endswith("IndexError: list index out of range")
    assert finalized["trace"].endswith("RuntimeError: in a finalizer")


class _Unruly:
    def __del__(self) -> None:
        raise RuntimeError("in a finalizer")


def test_those_who_print_for_people_let_python_print_as_it_does() -> None:
    before = (sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning)
    logs.set_up(Format.JSON, is_verbose=True)
    assert sys.excepthook is not before[0]
    logs.set_up(Format.TEXT, is_verbose=True)

    assert before == (sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning)


def test_a_bug_is_one_event_with_its_trace(capfd: pytest.CaptureFixture[str]) -> None:
    logs.set_up(Format.JSON, is_verbose=False)
    try:
        int("a")
    except ValueError as error:
        logs.log_bug("a bug", error, exit_code=3)

    [found] = records(capfd.readouterr().err)
    assert (found["level"], found["text"], found["exit_code"]) == ("error", "a bug", 3)
    assert found["trace"].startswith("Traceback")
    assert found["trace"].endswith("base 10: 'a'\n")


def test_a_daemons_child_writes_only_logs(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its standard error is the daemon's log, in whatever format: a warning is one line of it, and has a level."""
    monkeypatch.setenv(logs.DAEMON_CHILD, "1")
    logs.set_up(Format.TEXT, is_verbose=True)
    show_warning("slow", service="web")

    [line] = capfd.readouterr().err.splitlines()
    assert " level=warning service=web text=slow" in line


@pytest.mark.parametrize("form", [Format.JSON, Format.TEXT])
def test_the_reader_is_gone(form: Format) -> None:
    """A broken pipe, for as long as it may take, costs lines and nothing else."""
    with Pipe() as pipe:
        pipe.stop_reading()
        logs.set_up(form, is_verbose=True)
        for _ in range(1000):
            logs.log("x" * 100)


def test_the_disk_is_full() -> None:
    with Pipe(), Path("/dev/full").open("w") as full:
        sys.stderr = full
        logs.set_up(Format.TEXT, is_verbose=True)
        for _ in range(100):
            logs.log("x" * 1000)


def test_the_stream_is_closed() -> None:
    with Pipe() as pipe:
        pipe.stream.close()
        logs.set_up(Format.TEXT, is_verbose=True)
        logs.log("x")


def test_a_reader_that_has_it_open_and_does_not_read() -> None:
    """A full pipe holds nothing up for longer than a moment; once it is read again, the log says how much is lost."""
    logs.set_up(Format.JSON, is_verbose=True)
    with Pipe() as pipe:
        before = time.monotonic()
        for number in range(300):
            logs.log("x" * 100, number=number)
        took = time.monotonic() - before
        first = records(pipe.read())
        logs.log("read again")
        lost, last = records(pipe.read())

    assert took < PATIENCE_SECONDS * (300 - len(first)) / 2
    assert [one["number"] for one in first] == list(range(len(first)))
    assert lost["lost"] == 300 - len(first)
    assert lost["text"] == f"lines of the log that could not be written before this one: {300 - len(first)}"
    assert (lost["level"], last["text"]) == ("warning", "read again")


def test_a_line_that_was_cut_off_spoils_none_after_it() -> None:
    """A trace may be longer than what a pipe takes at once."""
    logs.set_up(Format.JSON, is_verbose=True)
    with Pipe() as pipe:
        logs.log("x" * 100_000)
        torn = pipe.read()
        logs.log("after")
        rest, *lines = pipe.read().split("\n")

    assert (len(torn), rest) == (PIPE_BYTES, "")
    assert [one["text"] for one in records("\n".join(lines))][-1] == "after"


def test_a_long_line_comes_whole_to_a_reader_that_reads() -> None:
    logs.set_up(Format.JSON, is_verbose=True)
    found = []
    with Pipe() as pipe:
        reader = threading.Thread(target=lambda: found.extend(records(_line(pipe.reader))))
        reader.start()
        logs.log("x" * 100_000)
        reader.join(10)

    assert len(found[0]["text"]) == 100_000


def _line(descriptor: int) -> str:
    data = b""
    while not data.endswith(b"\n"):
        data += os.read(descriptor, 4096)
    return data.decode()


def test_the_journal_gets_fields(tmp_path: Path) -> None:
    """By its own protocol, newlines and all; so do libraries' lines and a bug's trace."""
    with journal(tmp_path) as there:
        logs.set_up(Format.JOURNAL, is_verbose=True, journal=str(there.path))
        with logs.about(service="web", reload="r1"):
            logs.log("", step="drain", phase="begin", seconds=0.0)
            logs.log("two\nlines", level=logs.WARNING)
            logging.getLogger("urllib3").error("über")
            logs.log_bug("a bug", RuntimeError("x"))
        begun, warned, library, bug = there.received()

    common = {"SYSLOG_IDENTIFIER": "svcagent", "SVCAGENT_SERVICE": "web", "SVCAGENT_RELOAD": "r1"}
    assert begun == common | {
        "MESSAGE": "web: drain begin",
        "PRIORITY": "6",
        "SVCAGENT_STEP": "drain",
        "SVCAGENT_PHASE": "begin",
        "SVCAGENT_SECONDS": "0.0",
    }
    assert warned == common | {"MESSAGE": "web: two\nlines", "PRIORITY": "4"}
    assert library == common | {"MESSAGE": "web: über", "PRIORITY": "3", "SVCAGENT_LOGGER": "urllib3"}
    assert bug["SVCAGENT_TRACE"] == "RuntimeError: x\n"


def test_what_is_too_long_for_a_datagram_goes_by_a_file(tmp_path: Path) -> None:
    with journal(tmp_path) as there:
        logs.set_up(Format.JOURNAL, is_verbose=True, journal=str(there.path))
        logs.log("x" * 2_000_000)
        [found] = there.received()

    assert len(found["MESSAGE"]) == 2_000_000


def test_a_journal_that_is_away_and_back(tmp_path: Path) -> None:
    """Nothing is held up; when it listens again, also on a new socket, it hears how much it has missed."""
    with journal(tmp_path) as there:
        logs.set_up(Format.JOURNAL, is_verbose=True, journal=str(there.path))
        logs.log("one")
        assert [one["MESSAGE"] for one in there.received()] == ["one"]
        there.stop()
        for _ in range(3):
            logs.log("lost")
        there.start()
        logs.log("two")
        lost, last = there.received()

    assert (lost["SVCAGENT_LOST"], lost["PRIORITY"], last["MESSAGE"]) == ("3", "4", "two")


def test_a_journal_that_was_never_there(tmp_path: Path) -> None:
    logs.set_up(Format.JOURNAL, is_verbose=True, journal=str(tmp_path / "none"))
    logs.log("x")


@pytest.mark.timeout(60)  # a wait for each of the lines would take longer
def test_a_journal_that_does_not_keep_up(tmp_path: Path) -> None:
    """Its socket is full: waited for once, for a moment, and then not at all until it takes something."""
    with journal(tmp_path) as there:
        logs.set_up(Format.JOURNAL, is_verbose=True, journal=str(there.path))
        for number in range(2000):
            logs.log("x", number=number)

        first = there.received()
        logs.log("read again")
        lost, last = there.received()

    assert 0 < len(first) < 2000
    assert (lost["SVCAGENT_LOST"], last["MESSAGE"]) == (str(2000 - len(first)), "read again")
