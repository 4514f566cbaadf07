"""The ground that a lab stands on: a loopback block and a directory of its own, and nothing left of either afterwards.

A lock file per block says whose it is; the kernel frees the lock when its owner dies, however it dies. So a free lock
with a directory beside it is a dead run, and the next start clears it away. Every process of a lab carries its
directory in the environment: that, not a recorded pid, is what makes it safe to kill what a dead run left.
"""

import fcntl
import os
import random
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "SVCAGENT_LAB"
"""The environment variable that every process of a lab carries; its value is the lab's directory."""

HIDDEN_FROM_ENGINES = ("/run", "/opt", "/etc/docker")
"""Where an engine writes however it is configured (shim sockets, plugin directories, a key): each gets its own."""

CGROUPS = Path("/sys/fs/cgroup")

LONGEST_DIRECTORY = 60
"""Socket paths end at 108 bytes, and containerd's own is the longest below a lab's directory."""


class LabError(Exception):
    """The lab could not do what a test asked of it; the message says which server and why."""


def wait_until(condition: Callable[[], bool], seconds: float, what: str, every: float = 0.02) -> None:
    """Ask until the condition holds; raise `LabError` naming ``what`` when the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"after {seconds:g} s still not so: {what}")
        time.sleep(every)


@dataclass(frozen=True)
class Ground:
    """One claimed block, 127.A.B.0/24, and the directory that goes with it."""

    block: str
    directory: Path
    lock: int

    @property
    def name(self) -> str:
        """Names what is not below the directory: control groups."""
        return f"svcagent-lab-{self.directory.name}"

    def address(self, last: int) -> str:
        return f"{self.block}.{last}"


@contextmanager
def claimed() -> Iterator[Ground]:
    """Clear away dead runs, then own a block and a directory that no other run has."""
    root = _root()
    _sweep(root)
    ground = _claim(root)
    try:
        yield ground
    finally:
        _give_back(ground.directory, ground.lock)


def processes_of(directory: Path) -> tuple[int, ...]:
    """The pids of a lab's processes that are still alive; containers' own processes are not among them."""
    mark = f"{MARK}={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return tuple(found)


def cgroups_of(name: str) -> tuple[Path, ...]:
    """A lab's control groups: one per hierarchy (version 1), or one in all (version 2)."""
    return tuple(sorted({*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")}))


def _root() -> Path:
    root = Path(tempfile.gettempdir()).resolve() / "svcagent-lab"
    if any(root.is_relative_to(hidden) for hidden in HIDDEN_FROM_ENGINES):
        raise LabError(f"{root} is hidden from the lab's engines: set TMPDIR to a directory elsewhere")
    if len(str(root)) > LONGEST_DIRECTORY:
        raise LabError(f"{root} is too long for socket paths below it: set TMPDIR to a shorter directory")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Its content decides what is swept away, so nobody else may have made it.
    if root.is_symlink() or root.stat().st_uid != os.geteuid():
        raise LabError(f"{root} belongs to another user: set TMPDIR to a directory of your own")
    return root


def _claim(root: Path) -> Ground:
    while True:
        # A run that ended meanwhile may have removed it.
        root.mkdir(mode=0o700, exist_ok=True)
        second, third = random.randint(1, 254), random.randint(0, 255)
        directory = root / f"{second}-{third}"
        lock = _try_lock(_lock_file(directory), os.O_CREAT)
        if lock is None:
            continue
        block = f"127.{second}.{third}"
        # Runs with another TMPDIR do not see this lock; their Consul server is seen here.
        if _is_free(f"{block}.1"):
            directory.mkdir(mode=0o700)
            return Ground(block, directory, lock)
        _give_back(directory, lock)


def _sweep(root: Path) -> None:
    for path in root.glob("*.lock"):
        lock = _try_lock(path)
        if lock is not None:
            _give_back(path.with_suffix(""), lock)


def _give_back(directory: Path, lock: int) -> None:
    """Remove what the run left, the lock file last: a directory without one would never be found again."""
    try:
        if directory.exists():
            _clear(directory)
        _lock_file(directory).unlink(missing_ok=True)
        with suppress(OSError):
            directory.parent.rmdir()
    finally:
        os.close(lock)


def _clear(directory: Path) -> None:
    def is_deserted() -> bool:
        left = processes_of(directory)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(is_deserted, 10, f"the processes of {directory} are gone")
    shutil.rmtree(directory)
    groups = cgroups_of(f"svcagent-lab-{directory.name}")
    wait_until(lambda: all(_is_removed(group) for group in groups), 10, f"no process is left in {groups}")


def _is_removed(group: Path) -> bool:
    try:
        for below, _, _ in os.walk(group, topdown=False):
            Path(below).rmdir()
    except OSError:
        return not group.exists()
    return True


def _lock_file(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.lock")


def _try_lock(path: Path, flags: int = 0) -> int | None:
    """The open, locked file; nothing when another has it, or when its owner unlinked it meanwhile."""
    try:
        lock = os.open(path, os.O_RDWR | flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def _is_free(address: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, 8500))
        except OSError:
            return False
    return True
