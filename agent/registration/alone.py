"""Mutual exclusion of registrations on a host: ``svcagent register`` and the daemon take turns."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from agent.clock import Clock, Deadline, poll
from agent.errors import LockBusy
from agent.files import FileLock

FILE = "register.lock"
PAUSE = 0.05


@contextlib.contextmanager
def alone_in(state_dir: Path, clock: Clock, wait: float) -> Iterator[bool]:
    """Exclude other registrations of the same state directory; yield True if this one had to wait for another.

    The lock file is in the state directory, where no other user can open it.

    :raises LockBusy: another registration still held the lock after ``wait`` seconds.
    """
    path = state_dir / FILE
    with FileLock(path) as lock:
        is_first = lock.try_acquire()
        if not is_first and not poll(lock.try_acquire, Deadline.after(clock, wait), PAUSE):
            raise LockBusy(
                f"another svcagent has been registering on this host for {wait:.0f} s (it holds {path}); try again "
                f"when it has ended, or see it with: fuser -v {path}",
                kind="registration-running",
            )
        yield not is_first
