"""One daemon per host: a lock file that is released with its process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import LockBusy
from agent.files import FileLock

FILE = "daemon.lock"


@contextmanager
def only_daemon(state_dir: Path) -> Iterator[None]:
    """Hold the state directory's daemon lock inside the block. Raise `LockBusy` if another daemon has it."""
    with FileLock(state_dir / FILE) as lock:
        if not lock.try_acquire():
            holder = os.pread(lock.descriptor, 32, 0).decode(errors="replace").strip()
            raise LockBusy(
                f"svcagent run runs already on {state_dir} (pid {holder}); one a host is enough. To see what it does: "
                "svcagent status",
                kind="daemon-running",
            )
        with suppress(OSError):  # on a full disk: the holder's pid is only for messages
            os.ftruncate(lock.descriptor, 0)
            os.pwrite(lock.descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
