"""Verbs in processes of their own. The verb is a Python program of the test, started as svcagent would be."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from agent.daemon.children import IN_JSON, Ended, Launcher, Record


def run(program: str, environ: dict[str, str] | None = None) -> tuple[Ended, list[Record]]:
    """It, as a verb, to its end."""

    async def main() -> tuple[Ended, list[Record]]:
        told: list[Record] = []
        child = await launcher(program, environ).start(["verb"], told.append)
        return await asyncio.wait_for(child.ended(), 20), told

    return asyncio.run(main())


def launcher(program: str, environ: dict[str, str] | None = None) -> Launcher:
    """For a program instead of svcagent."""
    return Launcher(["--state-dir", "/s"], environ or {}, (sys.executable, "-c", program))


def test_its_log_and_its_document_reach_the_daemon() -> None:
    """Every line of standard error is a record, standard output is the document, and the exit status is known."""
    ended, told = run(
        'import sys; print(\'{"step": "pull"}\\n{"step": "drain"}\', file=sys.stderr); print(\'{"a": 1}\'); exit(75)'
    )

    assert ended == Ended(75, {"a": 1})
    assert told == [{"step": "pull"}, {"step": "drain"}]


def test_it_is_asked_for_json_before_the_verb() -> None:
    """Options, then the verb, as svcagent's command line has them."""
    ended, _told = run("import json, sys; print(json.dumps(sys.argv[1:]))")

    assert ended.document == [*IN_JSON, "--state-dir", "/s", "verb"]


def test_a_line_that_is_no_record_is_a_warning() -> None:
    """A library may write to standard error, and so may Python itself."""
    _ended, told = run("import sys; print('Segmentation fault', '[1]', file=sys.stderr)")

    assert told == [{"level": "warning", "text": "Segmentation fault [1]"}]


def test_a_line_without_end_is_cut_off() -> None:
    """It costs neither memory without end nor the lines that come after it."""
    _ended, told = run("import sys; sys.stderr.write('x' * 3_000_000 + '\\n{\"after\": 1}\\n')")

    assert told[-1] == {"after": 1}


def test_much_output_stops_nobody() -> None:
    """A document larger than any pipe holds does not keep the child from ending."""
    ended, _told = run("print('[' + '1,' * 500_000 + '1]')")

    assert len(ended.document) == 500_001


def test_without_a_document() -> None:
    """A verb that was killed has printed none, or half of one."""
    ended, _told = run("import os; print('{\"half', flush=True); os.kill(os.getpid(), 9)")

    assert ended == Ended(-signal.SIGKILL, None)
    assert ended.was_killed


def test_what_it_leaves_running_is_not_waited_for() -> None:
    """A process that it started holds its standard error open for a minute; its own end is the end."""
    ended, told = run(
        "import subprocess, sys; subprocess.Popen(['sleep', '60'], start_new_session=True);"
        "print('{\"last\": 1}', file=sys.stderr)"
    )

    assert ended.status == 0
    assert told == [{"last": 1}]


def test_it_is_stopped_gently() -> None:
    """SIGTERM reaches the child, and what it says then is still read."""
    # Not print: its buffer is no place to be interrupted in.
    program = (
        "import os, signal, sys\n"
        'def end(*_): os.write(2, b\'{"put": "back"}\'); sys.exit(143)\n'
        "signal.signal(signal.SIGTERM, end)\n"
        "os.write(2, bytes((123, 125, 10)))\n"
        "while True: signal.pause()\n"
    )

    async def main() -> tuple[Ended, list[Record]]:
        told: list[Record] = []
        has_begun = asyncio.Event()

        def tell(record: Record) -> None:
            told.append(record)
            has_begun.set()

        child = await launcher(program).start(["verb"], tell)
        ending = asyncio.create_task(child.ended())
        await asyncio.wait_for(has_begun.wait(), 20)
        child.stop()
        return await asyncio.wait_for(ending, 20), told

    ended, told = asyncio.run(main())

    assert ended.status == 143
    assert told == [{}, {"put": "back"}]


def test_it_is_not_mistaken_for_the_daemon() -> None:
    """What systemd told the daemon is not for its children: they would answer the watchdog in its name."""
    environ = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "CONSUL_HTTP_ADDR": "c", "LANG": "C"}

    ended, _told = run("import json, os; print(json.dumps(dict(os.environ)))", environ)

    assert {name for name in ended.document if name in environ} == {"CONSUL_HTTP_ADDR", "LANG"}


def test_it_is_in_a_group_of_its_own() -> None:
    """Ctrl-C in a terminal reaches the daemon, which tells its children itself."""
    ended, _told = run("import os; print(os.getpgrp() == os.getpid() and 'true' or 'false')")

    assert ended.document is True


def test_a_bug_of_the_listener_is_seen_and_stops_no_child() -> None:
    """It is raised when the child has ended, which does not wait for a reader that is gone."""

    def fail(_record: Record) -> None:
        raise LookupError("a bug")

    async def main() -> Ended:
        child = await launcher("import sys; sys.stderr.write('{}\\n' * 100_000)").start(["verb"], fail)
        return await asyncio.wait_for(child.ended(), 20)

    with pytest.raises(LookupError, match="a bug"):
        asyncio.run(main())


def test_it_leaves_nothing_open() -> None:
    """A daemon lives for months: no file descriptor and no process is left of a child."""

    children = Path(f"/proc/self/task/{os.getpid()}/children")
    others = set(children.read_text().split())  # what tests before this one started, and may still have

    async def main() -> tuple[set[Path], set[Path]]:
        before: set[Path] = set()
        for number in range(5):
            await (await launcher("print('{}')").start(["verb"], lambda _record: None)).ended()
            await asyncio.sleep(0)  # what is closed is closed by the loop
            if number == 0:
                before = set(Path("/proc/self/fd").iterdir())
        return before, set(Path("/proc/self/fd").iterdir())

    before, after = asyncio.run(main())

    assert len(after) == len(before)
    assert set(children.read_text().split()) <= others
