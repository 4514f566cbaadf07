"""systemd's own journal, started for these tests alone: what svcagent sends is found again by its fields."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.ground import claimed, wait_until
from tests.lab.host import environment_in
from tests.lab.server import REPOSITORY, Server

JOURNALD = "/lib/systemd/systemd-journald"
NAMESPACE = "svcagent-test"
"""With one it touches neither the kernel's messages nor the host's own journal."""

PROGRAM = """
import sys
from agent import logs
logs.set_up(logs.Format(sys.argv[1]), is_verbose=True, journal=sys.argv[2])
with logs.about(service="web", reload=sys.argv[3]):
    logs.log("", step="drain", phase="begin", seconds=0.25)
    logs.log("two\\nlines of für\\x1b[2J", level=logs.WARNING, step="drain")
    logs.log("x" * 300_000, level=logs.ERROR)
"""


@dataclass(frozen=True)
class Journal:
    """A running journald. ``directory`` has its sockets, ``logs`` its files."""

    server: Server
    directory: Path
    logs: Path
    environment: dict[str, str]

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        argv = ["journalctl", "--file", str(self.logs / "*.journal"), "--output", "json", "--all", *matches]
        shown = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        return [json.loads(line) for line in shown.splitlines()]

    def log(self, form: str, reload: str, **popen: Any) -> None:
        """A process that logs as `PROGRAM` does."""
        argv = [sys.executable, "-c", PROGRAM, form, str(self.directory / "socket"), reload]
        environment = self.environment | popen.pop("env", {})
        subprocess.run(argv, cwd=REPOSITORY, env=environment, check=True, timeout=30, **popen)


@pytest.fixture(scope="module")
def journal() -> Iterator[Journal]:
    with claimed() as ground:
        directory, logs = ground.directory / "run", ground.directory / "log"
        directory.mkdir()
        logs.mkdir()
        environment = environment_in(ground.directory, ground.directory)
        own = {"RUNTIME_DIRECTORY": str(directory), "LOGS_DIRECTORY": str(logs), "SYSTEMD_LOG_TARGET": "console"}
        server = Server(
            "journald",
            [JOURNALD, NAMESPACE],
            ground.directory / "journald.log",
            environment | own,
            lambda: any(logs.glob("*.journal")),
        )
        with server.running():
            yield Journal(server, directory, logs, environment)


def test_one_reloads_lines_are_found_by_its_id(journal: Journal) -> None:
    """``journalctl SVCAGENT_RELOAD=…``: words, priority and fields, whatever is in them and however long."""
    journal.log("journal", "r1")
    journal.log("journal", "r2")
    wait_until(lambda: len(journal.entries("SVCAGENT_RELOAD=r1")) == 3, 10, "the journal has them")

    begun, warned, long = journal.entries("SVCAGENT_RELOAD=r1", "SVCAGENT_SERVICE=web")
    assert {name: value for name, value in begun.items() if not name.startswith("_")} == {
        "MESSAGE": "web: drain begin",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "svcagent",
        "SVCAGENT_SERVICE": "web",
        "SVCAGENT_RELOAD": "r1",
        "SVCAGENT_STEP": "drain",
        "SVCAGENT_PHASE": "begin",
        "SVCAGENT_SECONDS": "0.25",
    }
    assert (warned["MESSAGE"], warned["PRIORITY"]) == ("web: two\nlines of für", "4")
    assert (len(long["MESSAGE"]), long["PRIORITY"]) == (300_005, "3")


def test_what_systemd_connected_with_it_is_logged_by_fields(journal: Journal) -> None:
    """Standard error as a unit has it: a stream into the journal, and $JOURNAL_STREAM. Nothing is written into it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect(str(journal.directory / "stdout"))
        # Identifier, unit, priority, and whether levels are parsed, and lines are copied: sd_journal_stream_fd(3).
        stream.sendall(b"a-unit\n\n6\n1\n0\n0\n0\n")
        of = os.fstat(stream.fileno())
        journal.log("auto", "r3", stderr=stream, env={"JOURNAL_STREAM": f"{of.st_dev}:{of.st_ino}"})
        wait_until(lambda: len(journal.entries("SVCAGENT_RELOAD=r3")) == 3, 10, "the journal has them")

    assert journal.entries("SYSLOG_IDENTIFIER=a-unit") == []
