"""The other end of the local API: asks the daemon over its Unix socket, and tells why it cannot be asked.

Imports no more than HTTP needs: a verb that cron starts every minute asks first whether there is a daemon.
"""

import json
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.daemon.api import HEARTBEAT_SECONDS, Record
from agent.errors import Denied, NotFound, SvcagentError, Unreachable

ANSWER_SECONDS = 5.0
"""The daemon answers out of its memory."""
SILENT_SECONDS = 4 * HEARTBEAT_SECONDS
"""A daemon that shows a reload and does not even say that it lives."""
_PIECE = 1 << 16


class NoDaemon(NotFound):
    """Nobody listens on the socket."""


class Refused(SvcagentError):
    """The daemon says no; ``exit_code`` is the one it names."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class DaemonGone(SvcagentError):
    """The daemon ended, or fell silent, while it showed a reload."""


class Client:
    """Asks the daemon that listens on ``path``; a connection for each question."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def status(self) -> Mapping[str, Any]:
        """The daemon's status document.

        :raises NoDaemon: nobody listens there.
        :raises Denied: the socket may not be opened.
        :raises Unreachable: no answer in time, or none of svcagent's.
        """
        with self._asked("GET", "/v1/status") as response:
            return self._document(response)

    def cancel(self, name: str) -> None:
        """Have the reload that runs put back and ended. Raises as `status`, or

        :raises NotFound: none runs.
        :raises Refused: the daemon says no.
        """
        with self._asked("POST", f"/v1/reload/{quote(name, safe='')}/cancel") as response:
            self._document(response)

    @contextmanager
    def reload(
        self, name: str, *, force: bool, in_maintenance: bool, lock_timeout: float | None
    ) -> Iterator["Reloading"]:
        """Have it reload, or look on at the reload that runs. One that was started here ends with the block.

        ``lock_timeout`` in seconds. Raises as `cancel`.
        """
        asked = {"force": force, "in_maintenance": in_maintenance, "lock_timeout": lock_timeout}
        with self._asked("POST", f"/v1/reload/{quote(name, safe='')}", asked) as response:
            if response.status != HTTPStatus.OK:
                self._document(response)
            yield Reloading(response, name)

    @contextmanager
    def _asked(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> Iterator[HTTPResponse]:
        content = json.dumps(body).encode() if body is not None else None
        with closing(_Connection(self._path)) as connection:
            self._connect(connection)
            with self._told_apart():
                with suppress(ConnectionError):  # it may refuse before it has heard all; its answer is there to be read
                    connection.request(method, target, content)
                response = connection.getresponse()
            with response:
                yield response

    def _connect(self, connection: "_Connection") -> None:
        try:
            connection.connect()
        except PermissionError as error:
            raise Denied(
                f"the daemon's socket {self._path} may not be opened: {error.strerror}. Run as root, or as a member of "
                "the group that the socket has"
            ) from error
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            raise NoDaemon(f"no daemon listens on {self._path}; start it: svcagent run") from error
        except TimeoutError as error:
            raise self._hangs() from error
        except BlockingIOError as error:  # so many wait to be taken that no more may (connect(2), EAGAIN)
            raise self._hangs() from error
        except OSError as error:  # a path that is too long for a socket, say
            raise NoDaemon(f"no daemon can listen on {self._path}: {error}") from error

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise self._hangs() from error
        except (OSError, HTTPException, ValueError) as error:
            raise self._is_none_of_ours(error) from error

    def _hangs(self) -> Unreachable:
        return Unreachable(
            f"the daemon on {self._path} does not answer within {ANSWER_SECONDS:.0f} s. See: systemctl status svcagent"
        )

    def _is_none_of_ours(self, why: object) -> Unreachable:
        return Unreachable(f"what listens on {self._path} does not answer as svcagent does: {why}")

    def _document(self, response: HTTPResponse) -> Mapping[str, Any]:
        with self._told_apart():
            found = json.loads(response.read())
        if not isinstance(found, dict):
            raise self._is_none_of_ours("no JSON object")
        if response.status == HTTPStatus.OK:
            return found
        text, code = found.get("error"), found.get("exit_code")
        if not isinstance(text, str) or not isinstance(code, int):
            raise self._is_none_of_ours(f"status {response.status}")
        raise NotFound(text) if response.status == HTTPStatus.NOT_FOUND else Refused(text, code)


class Reloading:
    """A reload of the daemon's, as it happens. ``wait`` may be torn by a signal; ``take`` loses nothing then.

    ``head`` is what the daemon says of it first (`agent.daemon.api.Subscription`).

    :raises DaemonGone: it ended, or fell silent, before the reload did.
    """

    def __init__(self, response: HTTPResponse, name: str) -> None:
        self._response = response
        self._name = name
        self._encoded = bytearray()
        self._decoded = bytearray()
        self._records: list[Record] = []
        while not self._records:
            self._read()
        head = self._records.pop(0).get("reload")
        if not isinstance(head, dict):
            raise self._gone("said nothing of the reload")
        self.head: Mapping[str, Any] = head

    def wait(self) -> None:
        """Until something has come."""
        poll = select.poll()
        poll.register(self._response.fileno(), select.POLLIN)
        if not self._records and not poll.poll(1000 * SILENT_SECONDS):
            raise self._gone(f"has said nothing for {SILENT_SECONDS:.0f} s")

    def take(self) -> list[Record]:
        """What has come, heartbeats left out; waits if nothing has."""
        if not self._records:
            self._read()
        taken, self._records = self._records, []
        return [record for record in taken if "heartbeat" not in record]

    def _read(self) -> None:
        """One piece of the stream. Nothing stays in the buffers below, or `wait` would not see it."""
        try:
            piece = self._response.fp.read1(_PIECE)
            self._encoded += piece
            self._decode()
        except ConnectionResetError:  # it ended with something unread
            piece = b""
        except (OSError, ValueError) as error:
            raise self._gone(f"cannot be understood any more ({error})") from error
        if not piece:
            raise self._gone("has ended")

    def _decode(self) -> None:
        """From chunks (RFC 9112, 7.1) to lines to records; raises `ValueError`."""
        while (end := self._encoded.find(b"\r\n")) >= 0:
            begin, size = end + 2, int(self._encoded[:end], 16)
            if len(self._encoded) < begin + size + 2:
                break
            self._decoded += self._encoded[begin : begin + size]
            del self._encoded[: begin + size + 2]
        *lines, rest = self._decoded.split(b"\n")
        self._decoded = rest
        for record in map(json.loads, lines):
            if not isinstance(record, dict):
                raise ValueError("no JSON object")  # noqa: TRY004 - as for all that is not of our form
            self._records.append(record)

    def _gone(self, how: str) -> DaemonGone:
        return DaemonGone(
            f"the daemon {how} while it reloaded {self._name}. Started anew, it takes the reload up again; without it, "
            f"svcagent recover puts right what is left half done. See: systemctl status svcagent, svcagent status"
        )


class _Connection(HTTPConnection):
    """Over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        """What the base class calls when there is no connection."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
