"""Files written so that a reader, or a crash, finds the old content or the new and nothing between; locks on files."""

import fcntl
import os
import tempfile
from pathlib import Path

from agent.errors import SvcagentError


def write_atomically(file: Path, content: str | bytes, mode: int = 0o644) -> None:
    """A temporary file beside it, synced, renamed over it; then the directory is synced, so that the name lasts too.

    :raises SvcagentError: it could not be written; the old content stands.
    """
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        temporary.rename(file)
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise SvcagentError(f"cannot write {file}: {error.strerror}. Make its directory writable") from error


def take_lock(descriptor: int) -> bool:
    """Take the file's advisory lock (flock(2)), which ends with its descriptor. False: another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
