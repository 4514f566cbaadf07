"""Waiting, and what may cut a wait short. Signals are for a process of their own: pytest uses them too."""

import subprocess
import sys

import pytest

from agent.clock import Deadline, SystemClock, poll

BEGIN = """
import os, signal, sys, time
from agent.clock import Interrupts
from agent.errors import Interrupted

interrupts = Interrupts()
"""


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_wait_that_allows_it(name: str) -> None:
    code = f"""
with interrupts.caught():
    try:
        with interrupts.allowed():
            os.kill(os.getpid(), signal.{name})
            time.sleep(20)
    except Interrupted as error:
        print(error.exit_code - 128 == signal.{name})
"""

    assert _python(code) == "True"


def test_a_signal_elsewhere_is_kept_for_the_next_wait() -> None:
    """What changes the world is not torn; the wait after it does not even begin."""
    code = """
with interrupts.caught():
    os.kill(os.getpid(), signal.SIGTERM)
    print("not torn")
    try:
        with interrupts.allowed():
            print("waited")
    except Interrupted:
        print("then ended")
"""

    assert _python(code).splitlines() == ["not torn", "then ended"]


def test_a_signal_that_a_finalizer_swallows_still_ends_the_wait() -> None:
    """Python ignores exceptions in ``__del__``, and a signal may come in the middle of one."""
    code = """
class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

import agent.clock

agent.clock.RAISE_AGAIN_SECONDS = 0.05
sys.unraisablehook = lambda _: None
with interrupts.caught():
    try:
        with interrupts.allowed():
            Finalized()
            time.sleep(20)
    except Interrupted as error:
        print(error.signum == signal.SIGTERM)
"""

    assert _python(code) == "True"


def test_a_library_that_catches_exceptions_does_not_swallow_a_signal() -> None:
    """Docker's SDK makes a failure of its own of whatever `Exception` comes while it connects."""
    code = """
with interrupts.caught():
    try:
        with interrupts.allowed():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(20)
            except Exception:
                print("swallowed")
    except Interrupted:
        print("ended")
"""

    assert _python(code) == "ended"


def test_poll_asks_at_least_once_and_ends_with_its_deadline() -> None:
    """A deadline that is over already still allows one question."""
    asked: list[int] = []

    def never() -> bool:
        asked.append(1)
        return False

    assert not poll(never, Deadline.after(SystemClock(), 0), every=1)
    assert len(asked) == 1
    assert poll(lambda: True, Deadline.after(SystemClock(), 0), every=1)
