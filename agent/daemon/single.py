"""One daemon per host: a lock file that is released with its process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import LockBusy, SvcagentError
from agent.files import take_lock

FILE = "daemon.lock"


@contextmanager
def only_daemon(state_dir: Path) -> Iterator[None]:
    """Hold the state directory's daemon lock inside the block. Raise `LockBusy` if another daemon has it."""
    path = state_dir / FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SvcagentError(
            f"cannot write {path}: {error.strerror}. Run as the owner of the state directory, or set SVCAGENT_STATE_DIR"
        ) from error
    try:
        if not take_lock(descriptor):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise LockBusy(
                f"svcagent run runs already on {state_dir} (pid {holder}); one a host is enough. To see what it does: "
                "svcagent status"
            )
        with suppress(OSError):  # on a full disk: the holder's pid is only for messages
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
