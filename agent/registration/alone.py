"""One svcagent at a time registers from a directory: ``svcagent register`` and the daemon exclude each other."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from agent.clock import Clock, Deadline, poll
from agent.errors import LockBusy
from agent.files import take_lock

PAUSE = 0.05


@contextlib.contextmanager
def alone_in(directory: Path, clock: Clock, wait: float) -> Iterator[bool]:
    """No other svcagent registers from this directory meanwhile; the block is told if another one just did.

    The lock is on the directory itself: nothing is written, and the kernel frees it however its holder ends.

    :raises LockBusy: another one was not done within ``wait`` seconds.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        # Nothing is defined there; why, whoever reads it is told.
        yield False
        return
    try:
        deadline = Deadline.after(clock, wait)
        is_first = take_lock(descriptor)
        if not is_first and not poll(lambda: take_lock(descriptor), deadline, PAUSE):
            raise LockBusy(f"another svcagent has been registering {directory} for {wait:.0f} s; try again after it")
        yield not is_first
    finally:
        os.close(descriptor)
