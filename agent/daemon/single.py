"""One daemon a host: a lock file that ends with its process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import LockBusy, SvcagentError

FILE = "daemon.lock"


@contextmanager
def only_daemon(state_dir: Path) -> Iterator[None]:
    """Inside the block no other daemon runs on this state directory.

    :raises LockBusy: another one does.
    """
    path = state_dir / FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SvcagentError(
            f"cannot write {path}: {error.strerror}. Run as the owner of the state directory, or set SVCAGENT_STATE_DIR"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise LockBusy(
                f"svcagent run runs already on {state_dir} (pid {holder}); one a host is enough. To see what it does: "
                "svcagent status"
            ) from None
        with suppress(OSError):  # on a full disk: who holds it is for messages only
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
