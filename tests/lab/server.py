"""A real server as a process that a test can freeze, kill, stop and start again at the same place.

Nothing here knows which server it is: see `parts` for those.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.lab.ground import LabError, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = Path(os.environ.get("SVCAGENT_PARTS_DIR", REPOSITORY / ".parts"))
# Debian keeps daemons in /usr/sbin, which is not on every user's PATH; a consul on PATH comes before the private one.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", str(PARTS)])


def spawn(argv: Sequence[str], environment: Mapping[str, str], **popen: Any) -> "subprocess.Popen[Any]":
    """Start a process that the kernel kills when this one ends, however it ends.

    In a session of its own: Ctrl-C reaches the owner alone, which then stops the rest in order.
    """
    # The kernel sends the death signal when the spawning *thread* ends.
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(f"start {argv[0]} from the main thread: it would be killed at the end of this one")
    # What Popen looks up is setpriv, and that runs with the lab's PATH.
    setpriv = shutil.which("setpriv", path=PATH) or "setpriv"
    return subprocess.Popen(
        [setpriv, "--pdeathsig", "KILL", *argv], env=dict(environment), start_new_session=True, **popen
    )


def child_of(pid: int) -> int | None:
    """The only child of a single-threaded process, if it has one yet."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


class Server:
    """One server; ``is_ready`` asks whether it answers."""

    def __init__(
        self, name: str, argv: Sequence[str], log: Path, environment: Mapping[str, str], is_ready: Callable[[], bool]
    ) -> None:
        self.name = name
        self.log = log
        self._argv = tuple(argv)
        self._environment = environment
        self._is_ready = is_ready
        self._process: subprocess.Popen[Any] | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def pid(self) -> int:
        """The server's own pid, not that of what it was wrapped in."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Is there a process? A frozen one runs too."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process, without waiting for it to answer."""
        if self.is_running:
            raise LabError(f"{self.name} runs already")
        with self.log.open("ab") as log:
            self._process = spawn(
                self._argv, self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def wait_ready(self, seconds: float = 30) -> None:
        """Wait until it answers; raise `LabError` with the tail of its log when it died or took too long."""
        end = time.monotonic() + seconds
        while not self._is_ready():
            if not self.is_running:
                raise LabError(f"{self.name} died. The end of {self.log}:\n{self.tail()}")
            if time.monotonic() > end:
                raise LabError(f"{self.name} is not ready after {seconds:g} s. The end of {self.log}:\n{self.tail()}")
            time.sleep(0.02)

    @contextmanager
    def running(self, seconds: float = 30) -> Iterator["Server"]:
        """Start it and wait until it answers; discard it at the end of the block."""
        try:
            self.start()
            self.wait_ready(seconds)
            yield self
        finally:
            self.discard()

    def freeze(self) -> None:
        """Stop it from answering: connections stay open, and new ones are accepted by the kernel."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        # A thread on another processor goes on for a moment, and may answer one more request.
        wait_until(lambda: _is_stopped(pid), 5, f"{self.name} is stopped", every=0.001)

    def thaw(self) -> None:
        """Let a frozen server go on where it was."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self._reap(10)

    def stop(self, seconds: float = 30) -> None:
        """SIGTERM, thawing a frozen one, and wait until it is gone."""
        pid = self.pid
        os.kill(pid, signal.SIGTERM)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        self._reap(seconds)

    def restart(self, seconds: float = 30) -> None:
        """Stop it if it runs, start it at the same place, and wait until it answers."""
        if self.is_running:
            self.stop(seconds)
        self.start()
        self.wait_ready(seconds)

    def discard(self) -> None:
        """End it as fast as possible, whatever state it is in; for the lab's own end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _running(self) -> "subprocess.Popen[Any]":
        if self._process is None or self._process.poll() is not None:
            raise LabError(f"{self.name} does not run")
        return self._process

    def _reap(self, seconds: float) -> None:
        process = self._process
        assert process is not None
        end = time.monotonic() + seconds
        while process.poll() is None:
            if time.monotonic() > end:
                raise LabError(f"{self.name} has not ended after {seconds:g} s. Its log:\n{self.tail()}")
            # A wrapper stops itself when the server in it is frozen, and would never see it end.
            process.send_signal(signal.SIGCONT)
            time.sleep(0.01)


def _is_stopped(pid: int) -> bool:
    states = [_state(task) for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(state in ("T", "gone") for state in states)


def _state(stat: Path) -> str:
    try:
        return stat.read_text().rpartition(") ")[2][0]
    except OSError:
        return "gone"


def svcagent_argv() -> tuple[str, ...]:
    script = Path(sys.executable).with_name("svcagent")
    return (str(script),) if script.exists() else (sys.executable, "-m", "agent")
