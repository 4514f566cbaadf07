"""Verbs in processes of their own. The verb is a Python program of the test, started as svcagent would be."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from agent.daemon.subprocesses import CAPTURED, EndedProcess, Launcher


def run(program: str, environ: dict[str, str] | None = None) -> EndedProcess:
    """It, as a captured verb, to its end."""

    async def main() -> EndedProcess:
        child = await launcher(program, environ).start_captured(["verb"])
        return await asyncio.wait_for(child.ended(), 20)

    return asyncio.run(main())


def launcher(program: str, environ: dict[str, str] | None = None) -> Launcher:
    return Launcher(["--state-dir", "/s"], environ or {}, (sys.executable, "-c", program))


def test_its_document_and_its_errors_reach_the_daemon() -> None:
    ended = run("import sys; print('slow', file=sys.stderr); print('[' + '1,' * 500_000 + '1]'); exit(75)")

    assert (ended.status, len(ended.document), ended.errors) == (75, 500_001, "slow\n")


def test_options_precede_the_verb() -> None:
    """As svcagent's command line has them; for a captured verb the text that people read."""
    program = "import json, sys; print(json.dumps(sys.argv[1:]))"

    assert run(program).document == ["--state-dir", "/s", *CAPTURED, "verb"]


def test_without_a_document() -> None:
    """A verb that was killed has printed none, or half of one."""
    ended = run("import os; print('{\"half', flush=True); os.kill(os.getpid(), 9)")

    assert ended == EndedProcess(-signal.SIGKILL)


def test_what_it_leaves_running_is_not_waited_for() -> None:
    """A process that it started keeps its output open for a minute; its own end is the end."""
    ended = run("import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True); print('[1]')")

    assert ended == EndedProcess(0, [1])


def test_it_is_stopped_gently(tmp_path: Path) -> None:
    """SIGTERM reaches the child, and how it ends then is known."""
    begun = tmp_path / "begun"
    program = (
        "import pathlib, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"pathlib.Path('{begun}').touch()\n"
        "while True: signal.pause()\n"
    )

    async def main() -> EndedProcess:
        child = await launcher(program).start(["verb"], "token")
        async with asyncio.timeout(20):
            while not begun.exists():
                await asyncio.sleep(0.01)
            child.stop()
            return await child.ended()

    assert asyncio.run(main()) == EndedProcess(143)


def test_a_reload_writes_to_the_daemons_log(tmp_path: Path) -> None:
    """It inherits standard error, and knows that this is a log; what it prints for people goes nowhere."""
    log = tmp_path / "log"
    program = (
        "import asyncio, sys\nfrom agent.daemon.subprocesses import Launcher\n"
        "verb = 'import os, sys; print(os.environ[sys.argv[-1]], sys.argv[1:], file=sys.stderr); print(7)'\n"
        "async def main():\n"
        "    launcher = Launcher([], {}, (sys.executable, '-c', verb))\n"
        "    await (await launcher.start(['SVCAGENT_DAEMON_CHILD'], 'c0ffee')).ended()\n"
        "asyncio.run(main())\n"
    )
    with log.open("wb") as stream:
        process = asyncio.run(_run(program, stream.fileno()))

    assert process == b""
    assert log.read_text() == "c0ffee ['-v', 'SVCAGENT_DAEMON_CHILD']\n"


async def _run(program: str, stderr: int) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, stderr=stderr
    )
    output, _errors = await process.communicate()
    return output


def test_it_is_not_mistaken_for_the_daemon() -> None:
    """What systemd told the daemon is not for its children: they would answer the watchdog in its name."""
    environ = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "CONSUL_HTTP_ADDR": "c", "LANG": "C"}

    ended = run("import json, os; print(json.dumps(dict(os.environ)))", environ)

    assert {name for name in ended.document if name in environ} == {"CONSUL_HTTP_ADDR", "LANG"}


def test_it_has_its_own_process_group() -> None:
    """Ctrl-C in a terminal reaches the daemon, which tells its children itself."""
    assert run("import os; print(os.getpgrp() == os.getpid() and 'true' or 'false')").document is True


def test_it_leaves_nothing_open() -> None:
    """A daemon lives for months: no file descriptor and no process is left of a child."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    others = set(children.read_text().split())  # what tests before this one started, and may still have

    async def main() -> tuple[set[Path], set[Path]]:
        before: set[Path] = set()
        for number in range(5):
            await (await launcher("print('{}')").start_captured(["verb"])).ended()
            await asyncio.sleep(0)  # what is closed is closed by the loop
            if number == 0:
                before = set(Path("/proc/self/fd").iterdir())
        return before, set(Path("/proc/self/fd").iterdir())

    before, after = asyncio.run(main())

    assert len(after) == len(before)
    assert set(children.read_text().split()) <= others
