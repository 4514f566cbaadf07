"""One reload of a service at a time on one host: an advisory file lock that ends with its process."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import TracebackType

from agent.clock import Clock, Deadline, poll
from agent.errors import LockBusy, SvcagentError
from agent.files import take_lock
from agent.reload.journal import state_file

_LOCKS = Path("/proc/locks")


class HostLock:
    """``<state directory>/reload-<service>.lock``, held inside the block."""

    def __init__(
        self,
        state_dir: Path,
        service: str,
        clock: Clock,
        timeout: float,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._path = state_file(state_dir, service, ".lock")
        self._service = service
        self._clock = clock
        self._timeout = timeout
        self._waiting = waiting
        self._descriptor = -1

    def __enter__(self) -> "HostLock":
        """Take it.

        :raises LockBusy: another process still held it after ``timeout`` seconds.
        """
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SvcagentError(
                f"cannot write {self._path}: {error.strerror}. Run as the owner of the state directory, or set "
                "SVCAGENT_STATE_DIR"
            ) from error
        try:
            with self._waiting():
                is_held = poll(
                    lambda: take_lock(self._descriptor), Deadline.after(self._clock, self._timeout), every=0.05
                )
        except BaseException:
            os.close(self._descriptor)
            raise
        if not is_held:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise LockBusy(
                f"another reload of {self._service} runs on this host"
                f"{f' (pid {holder})' if holder else ''}. Try again later, or wait for it with --lock-timeout"
            )
        with suppress(OSError):  # on a full disk: the holder is for messages only
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def holder(self) -> int | None:
        """Return the process that holds it, None if there is none, without taking the lock even for a moment.

        The kernel lists its locks by process, device and inode (proc(5)). Some file systems show another device to
        programs; then the process ID that the holder writes to the file decides.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                found, left = os.fstat(descriptor), os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            finally:
                os.close(descriptor)
            locks = _LOCKS.read_text().splitlines()
        except OSError:
            return None
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
        for line in locks:
            _number, kind, _advisory, _mode, pid, place, *_range = line.split()
            at, _, inode = place.rpartition(":")
            if kind == "FLOCK" and inode == str(found.st_ino) and (at == device or pid == left):
                return int(pid)
        return None
