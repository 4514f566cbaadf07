"""Where the local API listens: a Unix socket, and a loopback address if one is set. A thread for each request.

What is asked and answered is in `api_request`.
"""

import errno
import os
import select
import socket
import stat
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.daemon.api import Backend
from agent.daemon.api_request import Request
from agent.errors import BadDefinition, Conflict, Fault, LockBusy, SvcagentError
from agent.logs import WARNING, log

SOCKET_MODE = 0o660
DIRECTORY_MODE = 0o750
LONGEST_PATH = 107
"""Bytes of a Unix socket's path, without its closing zero (unix(7))."""
MOST_OVER_UNIX, MOST_OVER_TCP = 32, 8
"""Requests at once; who comes over TCP takes no place from those who may act."""
BACKLOG = 64
PAUSE_SECONDS = 0.2
"""After a connection could not be taken, for want of file descriptors say."""

_BUSY = b'{"error": "the daemon answers too many others just now; ask again", "exit_code": 75}\n'
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BUSY), _BUSY)
)


class Places:
    """So many requests at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._change = threading.Condition()

    def take(self) -> bool:
        """Is there one? Then it is the caller's."""
        with self._change:
            if self._taken == self._most:
                return False
            self._taken += 1
            return True

    def give(self) -> None:
        """Give it back."""
        with self._change:
            self._taken -= 1
            self._change.notify_all()

    def wait_until_free(self, seconds: float) -> None:
        """Until all are free again, or for so long."""
        with self._change:
            self._change.wait_for(lambda: self._taken == 0, seconds)


@dataclass(frozen=True)
class _Door:
    listener: socket.socket
    may_act: bool
    places: Places


class ApiServer:
    """``listen``: a loopback address and port, None for the Unix socket alone."""

    def __init__(self, backend: Backend, path: Path, listen: str | None = None) -> None:
        self._backend = backend
        self._path = path
        self._listen = listen
        self._made: tuple[int, int] | None = None
        self._doors: list[_Door] = []
        self._wake = threading.Event()
        self._end, self._stop = -1, -1
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)

    def start(self) -> None:
        """Listen, and answer from now on.

        :raises BadDefinition: the socket's path is too long.
        :raises LockBusy: another daemon listens there.
        :raises Conflict: something else is there.
        :raises SvcagentError: it cannot be listened there.
        """
        with ExitStack() as undo:
            over_unix = undo.enter_context(listen_on(self._path))
            self._made = _identity(self._path)
            undo.callback(self._remove)
            self._doors.append(_Door(over_unix, may_act=True, places=Places(MOST_OVER_UNIX)))
            if self._listen is not None:
                over_tcp = undo.enter_context(_listen_on_loopback(self._listen))
                self._doors.append(_Door(over_tcp, may_act=False, places=Places(MOST_OVER_TCP)))
            self._end, self._stop = os.pipe()
            self._thread.start()
            undo.pop_all()

    @property
    def tcp_address(self) -> tuple[str, int] | None:
        """Where it listens over TCP, if it does."""
        found: list[tuple[str, int]] = [door.listener.getsockname()[:2] for door in self._doors if not door.may_act]
        return found[0] if found else None

    def stop(self, seconds: float) -> None:
        """Take no more requests, and wait so long for those that are being answered."""
        os.close(self._stop)
        self._wake.set()
        self._thread.join()
        os.close(self._end)
        self._remove()
        for door in self._doors:
            door.listener.close()
            door.places.wait_until_free(seconds)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        doors = {door.listener.fileno(): door for door in self._doors}
        for descriptor in doors:
            poll.register(descriptor, select.POLLIN)
        while not self._wake.is_set():
            for descriptor, _events in poll.poll():
                if descriptor in doors:
                    self._take(doors[descriptor])

    def _take(self, door: _Door) -> None:
        try:
            connection, address = door.listener.accept()
        except BlockingIOError:
            return  # it has gone already
        except OSError as error:
            log(f"the local API cannot take a connection: {error}", level=WARNING)
            self._wake.wait(PAUSE_SECONDS)
            return
        if not door.places.take():
            connection.setblocking(False)
            with suppress(OSError), connection:
                connection.sendall(BUSY)
            return
        try:
            threading.Thread(
                target=partial(self._answer, connection, address, door), name="api-request", daemon=True
            ).start()
        except RuntimeError as error:
            log(f"the local API cannot answer: {error}", level=WARNING)
            connection.close()
            door.places.give()

    def _answer(self, connection: socket.socket, address: object, door: _Door) -> None:
        try:
            # The other end may have gone at any moment.
            with connection, suppress(OSError):
                Request(connection, address, backend=self._backend, may_act=door.may_act)
                connection.shutdown(socket.SHUT_WR)
        finally:
            door.places.give()

    def _remove(self) -> None:
        """The socket, unless another daemon has put its own there."""
        with suppress(FileNotFoundError):
            if _identity(self._path) == self._made:
                self._path.unlink()


def listen_on(path: Path) -> socket.socket:
    """A Unix socket that its owner and group may open, from its first moment; one that nobody answers is replaced.

    Raises as `ApiServer.start` does.
    """
    if (length := len(os.fsencode(path))) > LONGEST_PATH:
        problem = f"a Unix socket's path has at most {LONGEST_PATH} bytes, and this one {length}"
        remedy = "name a shorter one as socket in [daemon], or in SVCAGENT_SOCKET"
        raise BadDefinition([Fault(str(path), "", problem, remedy)])
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not path.parent.exists():
            path.parent.mkdir(DIRECTORY_MODE)
            path.parent.chmod(DIRECTORY_MODE)
        # Linux makes the file with the mode of the socket, less the umask: never open to more than these.
        os.fchmod(listener.fileno(), SOCKET_MODE)
        _bind(listener, path)
        path.chmod(SOCKET_MODE)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SvcagentError(
            f"cannot listen on {path}: {error.strerror}. Make its directory writable, or name another socket in "
            "[daemon] or SVCAGENT_SOCKET"
        ) from error
    except BaseException:
        listener.close()
        raise
    return listener


def _bind(listener: socket.socket, path: Path) -> None:
    if path.exists() or path.is_symlink():
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Conflict(f"{path} is no socket; remove it, or name another in [daemon] or SVCAGENT_SOCKET")
        if _is_answered(path):
            raise LockBusy(f"another svcagent run listens on {path}; one a host is enough. See: svcagent status")
        path.unlink()
    listener.bind(str(path))


def _is_answered(path: Path) -> bool:
    """Does a process listen there? One that is too busy to be connected with does too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        return caller.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT)


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _listen_on_loopback(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _name, found = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(found)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise SvcagentError(
            f"cannot listen on {address}: {error.strerror}. Free it, or name another as listen in [daemon] or in "
            "SVCAGENT_LISTEN"
        ) from error
    return listener
