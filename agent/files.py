"""Write files atomically, lock them, and read them only if no other user could have written them.

svcagent runs commands that its files name. Like cron, sshd and sudo, it uses a file only if root or the running user
owns it and no other user may write it, and if the same is true of every directory and symbolic link on the way to it. A
directory with the sticky bit, like ``/tmp``, may be writable on the way: users cannot replace each other's files there.
"""

import errno
import fcntl
import os
import pwd
import shlex
import stat
from contextlib import suppress
from pathlib import Path

from agent.errors import SvcagentError

_MOST_LINKS = 40
"""The limit of symbolic links on one path, as in the kernel."""

LONGEST_FILE = 1 << 24
"""The limit when reading svcagent's own files, in bytes. They are far shorter."""


class Untrusted(SvcagentError):
    """Another user may write or replace the file. ``problem`` and ``remedy`` are the texts of a `Fault`."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"{path} is {problem}; {remedy}")
        self.path = path
        self.problem = problem
        self.remedy = remedy


class NotRegularFile(SvcagentError):
    """A FIFO, a socket or a device is where a file should be."""


def read_trusted(path: str | Path, limit: int) -> tuple[bytes, os.stat_result]:
    """Read at most ``limit`` bytes of a file that only root and the running user can write.

    The checked file is the file that is read: owner and mode are those of the open file. `check_directory` checks the
    directory that contains it, once for all its files. A symbolic link is followed and checked here.

    :raises Untrusted: another user can write the file, the link, or a directory on the way to the link's target.
    :raises NotRegularFile: it is not a regular file. It is not opened, because a FIFO would wait for its writer.
    :raises OSError: it cannot be read.
    """
    path = os.fspath(path)
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        path = _follow(path)
        found = os.lstat(path)
    _check_is_file(found)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as stream:  # noqa: PTH123  # a descriptor, not a path
        found = os.fstat(descriptor)
        _check_is_file(found)
        _check(path, found)
        return _read(stream.fileno(), min(found.st_size + 1, limit), limit), found


def read_trusted_path(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """Read one file as `read_trusted` does, and check every directory on the way to it too."""
    return read_trusted(_follow(path), limit)


def read_regular(path: str | Path, limit: int = LONGEST_FILE) -> bytes:
    """Read at most ``limit`` bytes of a file without checking its owner. Never block, not even on a FIFO.

    :raises NotRegularFile: it is not a regular file.
    :raises OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        _check_is_file(found)
        return _read(descriptor, min(found.st_size + 1, limit), limit)
    finally:
        os.close(descriptor)


def is_special_file(path: Path) -> bool:
    """True if the path exists and is neither a regular file nor a link: a FIFO, a socket, a device, a directory."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISLNK(mode))


def check_directory(directory: Path) -> Path:
    """Return the directory's real path, if only root and the running user can write in it and on the way to it.

    The sticky bit does not help here, because other users could add files.

    :raises Untrusted: another user can write there.
    :raises OSError: it cannot be examined.
    """
    real = _follow(directory)
    found = os.lstat(real)
    if stat.S_ISDIR(found.st_mode):
        _check(real, found)
    return Path(real)


def is_exposed(path: Path, found: os.stat_result) -> bool:
    """True if other users can read the file: its mode and the directories above it permit it."""
    if not found.st_mode & stat.S_IROTH:
        return False
    try:
        above = Path(os.path.realpath(path)).parents
        return all(parent.stat().st_mode & stat.S_IXOTH for parent in above)
    except OSError:
        return False


def _follow(path: str | Path) -> str:
    """Return the real path. Check every directory and link on the way to it, but not the last component."""
    left = list(reversed(Path(path).absolute().parts[1:]))
    at, links = "/", 0
    _check("/", os.stat("/"), is_on_the_way=True)  # noqa: PTH116  # no path object is needed
    while left:
        name = left.pop()
        if name in ("..", "."):
            at = os.path.dirname(at) if name == ".." else at  # noqa: PTH120  # text is enough
            continue
        here = os.path.join(at, name)  # noqa: PTH118  # likewise
        found = os.lstat(here)
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            _check_owner(here, found)
            target = Path(os.readlink(here))  # noqa: PTH115  # likewise
            at = "/" if target.is_absolute() else at
            left.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
            continue
        if left and stat.S_ISDIR(found.st_mode):
            _check(here, found, is_on_the_way=True)
        at = here
    return at


def _check(path: str, found: os.stat_result, *, is_on_the_way: bool = False) -> None:
    mode = found.st_mode
    writable = mode & (stat.S_IWGRP | stat.S_IWOTH)
    if is_on_the_way and mode & stat.S_ISVTX:
        writable = 0
    if not writable:
        _check_owner(path, found)
        return
    who = "every user" if writable & stat.S_IWOTH else "its group"
    _refuse(path, found, f"writable by {who}", ["chmod", "go-w", path])


def _check_owner(path: str, found: os.stat_result) -> None:
    if not _is_trusted(found):
        _refuse(path, found, "")


def _refuse(path: str, found: os.stat_result, problem: str, *repairs: list[str]) -> None:
    trusted = "root" if os.geteuid() == 0 else f"root or {_user(os.geteuid())}"
    commands = list(repairs)
    if not _is_trusted(found):
        is_link = stat.S_ISLNK(found.st_mode)
        commands.insert(0, ["chown", *(["-h"] if is_link else []), _user(os.geteuid()), path])
    what = f"owned by {_user(found.st_uid)}, mode {stat.S_IMODE(found.st_mode):04o}"
    problem = f"{problem} ({what})" if problem else what
    run = " && ".join(shlex.join(command) for command in commands)
    raise Untrusted(path, problem, f"only {trusted} may own and write it; run: {run}")


def _is_trusted(found: os.stat_result) -> bool:
    return found.st_uid in (0, os.geteuid())


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _check_is_file(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise NotRegularFile("not a file")


def _read(descriptor: int, size: int, limit: int) -> bytes:
    """Read to the end or to the limit. A file of /proc is longer than its size says, and a file may grow."""
    content = b""
    while len(content) < limit and (chunk := os.read(descriptor, max(size - len(content), 1))):
        content += chunk
        size = max(size, min(limit, 2 * len(content)))
    return content


def make_private_directory(directory: Path) -> None:
    """Create the directory with mode 0700 if its parent exists, and check who may write in it.

    :raises Untrusted: another user may write in it.
    :raises OSError: it cannot be created.
    """
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    real = check_directory(directory)
    if not real.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))


def write_atomically(file: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write a temporary file in the same directory, sync it, rename it, and sync the directory.

    :raises SvcagentError: it could not be written; the old content remains.
    """
    import tempfile  # not needed by a run that changes nothing

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
        raise SvcagentError(
            f"cannot write {file}: {error.strerror}. Make its directory writable", kind="cannot-write"
        ) from error


class FileLock:
    """An advisory lock on a file (flock(2)). It ends with the block, and with the process.

    Every user who can open a file can lock it. A lock that other users must not take therefore needs a file that only
    its owner can open: it is created with mode 0600. An existing directory is opened unchanged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = -1

    def __enter__(self) -> "FileLock":
        """Open the file without locking it. Raise `SvcagentError` if that fails."""
        flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            flags |= os.O_DIRECTORY if self._path.is_dir() else os.O_RDWR | os.O_CREAT
            self.descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise SvcagentError(
                f"cannot write {self._path}: {error.strerror}. Run as the owner of the state directory, or set "
                "SVCAGENT_STATE_DIR",
                kind="cannot-write",
            ) from error
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.descriptor)

    def try_acquire(self) -> bool:
        """Return False if another process has the lock."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
