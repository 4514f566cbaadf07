"""One request to the local API: who may ask, what is asked for, and the answer.

A browser on this host could be made to ask by any web page: requests of pages (``Origin``) and for names that are not
this host's (a name of the page's own that leads to 127.0.0.1) are refused. A client is told errors, never traces.
"""

import io
import ipaddress
import json
import math
import pwd
import select
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from datetime import datetime
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from agent.clock import Deadline, SystemClock
from agent.daemon.api import ADDRESSES, HEARTBEAT_SECONDS, Backend, Subscription
from agent.errors import BadDefinition, Conflict, Denied, NotFound, NotNow, Rejected, SvcagentError, Unreachable
from agent.logs import log_bug

REQUEST_BYTES = 32 * 1024
"""Head and body together; every real request is a tenth of it."""
READ_SECONDS = 10.0
"""For the whole request, however slowly its bytes come."""
WRITE_SECONDS = 30.0
"""A client that takes nothing for so long is gone."""
GONE_SECONDS = 0.5
"""How often a client that looks on at a silent reload is looked at."""
BUG = 3

_STATUSES: tuple[tuple[type[SvcagentError], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (Rejected, HTTPStatus.BAD_REQUEST),
    (Denied, HTTPStatus.FORBIDDEN),
    (Conflict, HTTPStatus.CONFLICT),
    (NotNow, HTTPStatus.SERVICE_UNAVAILABLE),
    (BadDefinition, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Unreachable, HTTPStatus.BAD_GATEWAY),
)
_CREDENTIALS = struct.Struct("3i")


class _TooLarge(Exception):
    """More bytes than a request may have."""


class Request(BaseHTTPRequestHandler):
    """One connection with its one request. ``may_act``: may it change anything?"""

    protocol_version = "HTTP/1.1"
    # Where a request line says nothing of it, or is none: every answer has a head.
    default_request_version = "HTTP/1.0"
    request_version, requestline, command = default_request_version, "", ""

    def __init__(self, connection: socket.socket, address: Any, *, backend: Backend, may_act: bool) -> None:
        self._backend = backend
        self._may_act = may_act
        self._is_begun = False
        # It looks at its server for nothing.
        super().__init__(connection, address, cast("Any", None))

    def setup(self) -> None:
        """Read no more than a request may have, and no longer than it may take."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Bounded(self.connection))

    def handle(self) -> None:
        """Read it and answer it; one a connection."""
        try:
            self.handle_one_request()
        except _TooLarge:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has at most {REQUEST_BYTES} bytes")

    def do_GET(self) -> None:
        """A question."""
        self._answer(self._questions)

    def do_POST(self) -> None:
        """Something to do."""
        self._answer(self._actions)

    def version_string(self) -> str:
        """No versions of Python."""
        return "svcagent"

    def log_message(self, *_args: Any) -> None:
        """Nothing: what is done on request is logged by whoever does it."""

    def send_error(self, code: int, message: str | None = None, _explain: str | None = None) -> None:
        """What the base class, or anyone, refuses, in the form of all errors."""
        self._send_document({"error": message or HTTPStatus(code).phrase, "exit_code": 1}, code)

    def _answer(self, answer: Callable[[], None]) -> None:
        try:
            if self._is_welcome():
                answer()
        except _TooLarge:
            raise
        except SvcagentError as error:
            status = next((one for kind, one in _STATUSES if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
            self._send_document({"error": str(error), "exit_code": error.exit_code}, status)
        except (ConnectionError, TimeoutError):
            return  # it has gone
        except Exception as error:  # noqa: BLE001 - what comes here is a bug, and a thread has no handler above it
            log_bug(f"{self.command} {self.path} of the local API met a bug in svcagent; please report it", error)
            if not self._is_begun:
                text = "this is a bug in svcagent; its trace is in the daemon's log, please report it"
                self._send_document({"error": text, "exit_code": BUG}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _is_welcome(self) -> bool:
        """May it ask at all? If not, it has been told so."""
        if "Origin" in self.headers:
            self.send_error(HTTPStatus.FORBIDDEN, "web pages may not ask: leave out the header Origin")
        elif not all(_is_of_this_host(name) for name in self.headers.get_all("Host", [])):
            self.send_error(HTTPStatus.FORBIDDEN, "ask for localhost or a loopback address in the header Host")
        elif self.command != "GET" and not self._may_act:
            self.send_error(
                HTTPStatus.METHOD_NOT_ALLOWED, "over TCP there are answers to GET alone; use the Unix socket for more"
            )
        else:
            return True
        return False

    def _questions(self) -> None:
        match self._path():
            case ["v1", "status"]:
                self._send_document(self._backend.status())
            case ["v1", "schedule"]:
                self._send_document(self._backend.schedule(None))
            case ["v1", "schedule", name]:
                self._send_document(self._backend.schedule(name))
            case ["v1", "history", name]:
                self._send_document(self._backend.history(name))
            case ["metrics"]:
                found = self._backend.metrics()
                if found is None:
                    raise NotFound("metrics are off")
                self._send(*found)
            case _:
                raise self._unknown()

    def _actions(self) -> None:
        match self._path():
            case ["v1", "reload", name]:
                if self.request_version == self.default_request_version:
                    raise Rejected("a reload is shown over HTTP/1.1 alone: its end is not known when it begins")
                asked = self._asked()
                with closing(self._backend.reload(name, **asked, asker=self._asker())) as subscription:
                    self._show(name, subscription)
            case ["v1", "reload", name, "cancel"]:
                self._backend.cancel(name)
                self._send_document({})
            case _:
                raise self._unknown()

    def _path(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]

    def _unknown(self) -> NotFound:
        return NotFound(f"there is no {self.command} {urlsplit(self.path).path}; there is: {', '.join(ADDRESSES)}")

    def _asked(self) -> dict[str, Any]:
        """The options of a reload; what is left out is as it is on the command line."""
        asked = {"force": False, "in_maintenance": False, "lock_timeout": None, **self._body()}
        if unknown := asked.keys() - {"force", "in_maintenance", "lock_timeout"}:
            raise Rejected(
                f"{', '.join(sorted(unknown))}: no such option; there is: force, in_maintenance, lock_timeout"
            )
        for name in ("force", "in_maintenance"):
            if not isinstance(asked[name], bool):
                raise Rejected(f"{name}: write true or false")
        if asked["lock_timeout"] is not None and not _is_seconds(asked["lock_timeout"]):
            raise Rejected("lock_timeout: write a number of seconds, or null")
        return asked

    def _body(self) -> Mapping[str, Any]:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            raise Rejected("give the body's length in the header Content-Length")
        if int(length) > REQUEST_BYTES:
            raise _TooLarge
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            raise ConnectionAbortedError
        try:
            found = json.loads(content or b"{}")
        except (ValueError, RecursionError) as error:
            raise Rejected(f"the body is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise Rejected('the body is no JSON object; write one like {"force": true}')
        return found

    def _asker(self) -> str:
        """Who is at the other end of the Unix socket, as the kernel knows (unix(7), SO_PEERCRED)."""
        found = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _gid = _CREDENTIALS.unpack(found)
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = f"user {uid}"
        return f"{name} (pid {pid})"

    def _show(self, name: str, subscription: Subscription) -> None:
        """A reload's records while it runs. If whoever started it goes away, it is put back."""
        has_ended = False
        try:
            self._begin(HTTPStatus.OK, "application/x-ndjson", ("Transfer-Encoding", "chunked"))
            self._send_chunk({"reload": _head(subscription)})
            silent = 0.0
            while not has_ended:
                record = subscription.get(GONE_SECONDS)
                if record is not None:
                    has_ended = "result" in record
                    self._send_chunk(record)
                    silent = 0.0
                    continue
                silent += GONE_SECONDS
                if self._can_take_more() and silent >= HEARTBEAT_SECONDS:
                    self._send_chunk({"heartbeat": True})
                    silent = 0.0
            self.wfile.write(b"0\r\n\r\n")
        finally:
            # One that has ended is not to be asked: what runs by its name now may be another's.
            if subscription.is_started_here and not has_ended and not _has_ended(subscription):
                with suppress(NotFound):  # it has just ended by itself
                    self._backend.cancel(name)

    def _can_take_more(self) -> bool:
        """Is there room in the pipe? A client that is stopped (Ctrl-Z) is still there, and needs no heartbeats."""
        poll = select.poll()
        poll.register(self.connection, select.POLLOUT)
        events = dict(poll.poll(0)).get(self.connection.fileno(), 0)
        if events & (select.POLLHUP | select.POLLERR):
            raise ConnectionAbortedError
        return bool(events & select.POLLOUT)

    def _send_chunk(self, record: Mapping[str, Any]) -> None:
        line = _line(record)
        self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))

    def _send_document(self, document: Any, status: int = HTTPStatus.OK) -> None:
        self._send(_line(document), "application/json", status)

    def _send(self, content: bytes, kind: str, status: int = HTTPStatus.OK) -> None:
        self._begin(status, kind, ("Content-Length", str(len(content))))
        self.wfile.write(content)

    def _begin(self, status: int, kind: str, length: tuple[str, str]) -> None:
        self._is_begun = True
        self.connection.settimeout(WRITE_SECONDS)
        self.send_response(status)
        for name, value in (("Content-Type", kind), length, ("Connection", "close"), *_FOR_BROWSERS):
            self.send_header(name, value)
        self.end_headers()


_FOR_BROWSERS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


class _Bounded(io.RawIOBase):
    """What a client sends, up to `REQUEST_BYTES` and for `READ_SECONDS`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._left = REQUEST_BYTES
        self._deadline = Deadline.after(SystemClock(), READ_SECONDS)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What has come.

        :raises TimeoutError: the time is over.
        """
        if self._deadline.is_over:
            raise TimeoutError
        self._connection.settimeout(self._deadline.remaining)
        count = self._connection.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise _TooLarge
        return count


def _head(subscription: Subscription) -> dict[str, Any]:
    return {
        "is_started_here": subscription.is_started_here,
        "since": subscription.since,
        "why": subscription.why,
        "pid": subscription.pid,
        "is_forced": subscription.is_forced,
        "is_in_maintenance": subscription.is_in_maintenance,
    }


def _has_ended(subscription: Subscription) -> bool:
    """Is its result among the records that were not shown any more?"""
    return any("result" in record for record in iter(partial(subscription.get, 0), None))


def _line(document: Any) -> bytes:
    return json.dumps(document, default=_plain).encode() + b"\n"


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_of_this_host(host: str) -> bool:
    """Does a Host header name this very host, and not a name that someone else can lead to it?"""
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
