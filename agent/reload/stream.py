"""Connections whose every operation ends by one deadline: name resolution, TCP, TLS, sending and reading.

The timeouts of sockets, and of the libraries above them, count between two bytes, so a server that sends a byte now and
then never exceeds them. Here each operation gets the time that is left until the deadline.
"""

import io
import os
import queue
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.clock import Deadline

SHORTEST_CONNECT = 2.0
"""Seconds that each of several addresses gets at least, if that much is left, as in Go's dialer."""

# Where Go looks for the system's certificates on Linux (crypto/x509/root_linux.go); Consul is written in Go.
_CERTIFICATE_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_CERTIFICATE_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")


def connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Connect to the first address of the host that accepts. Raise `OSError`, or `UnicodeError` for an invalid name."""
    addresses = _resolve(host, port, deadline)
    failure: OSError | None = None
    for at, (family, kind, protocol, _name, address) in enumerate(addresses):
        share = max(deadline.remaining / (len(addresses) - at), SHORTEST_CONNECT)
        connection = socket.socket(family, kind, protocol)
        try:
            _limit(connection, deadline, share)
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = failure or error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure or OSError(f"{host} has no address")


def start_tls(
    connection: socket.socket, context: ssl.SSLContext, server_name: str, deadline: Deadline
) -> ssl.SSLSocket:
    """Do the TLS handshake. Close the connection if it fails."""
    try:
        secured = context.wrap_socket(connection, server_hostname=server_name, do_handshake_on_connect=False)
    except BaseException:
        connection.close()
        raise
    try:
        _limit(secured, deadline)
        secured.do_handshake()
    except BaseException:
        secured.close()
        raise
    return secured


class Stream(io.RawIOBase):
    """The part of a socket that `HTTPResponse` needs. At the deadline, reads and writes raise `TimeoutError`.

    ``each_second`` is called while the other side is silent.
    """

    def __init__(self, connection: socket.socket, deadline: Deadline, each_second: Callable[[], None]) -> None:
        self._connection = connection
        self._deadline = deadline
        self._each_second = each_second
        self._reader = io.BufferedReader(self)

    def makefile(self, _mode: str) -> "io.BufferedReader[Stream]":
        """Return the same reader each time, so that one response after another can be read from it."""
        return self._reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            _limit(self._connection, self._deadline, most=1.0)
            try:
                return self._connection.recv_into(buffer)
            except TimeoutError:
                if self._deadline.is_over:
                    raise
                self._each_second()

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            _limit(self._connection, self._deadline)
            rest = rest[self._connection.send(rest) :]

    def close(self) -> None:
        self._connection.close()
        super().close()


def tls_context(environ: Mapping[str, str], *, verified: bool) -> ssl.SSLContext:
    """Return a TLS client's settings that trust what Go, and so Consul, trusts on this host.

    `ssl.create_default_context` does not: OpenSSL's default paths differ from Go's, it reads a directory only by hashed
    names, and from Python 3.13 on it refuses older private CAs that Go accepts.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Debian's default level 2 refuses keys that Go accepts.
    context.set_ciphers("DEFAULT:@SECLEVEL=1")
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    # In Go any certificate of the store ends a chain, even an intermediate one.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    for file in _certificate_files(environ):
        try:
            context.load_verify_locations(cafile=file)
        except (OSError, ssl.SSLError):  # not a certificate, or not readable: Go skips these, too
            continue
    return context


def _certificate_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield what Go reads: the first file that can be read, and every file of every directory."""
    named = environ.get("SSL_CERT_FILE")
    files = [Path(file) for file in ([named] if named else _CERTIFICATE_FILES)]
    # Path.is_file() raises PermissionError for a file that may not be looked at.
    yield from [file for file in files if os.path.isfile(file)][:1]  # noqa: PTH113  # see above
    listed = environ.get("SSL_CERT_DIR")
    for directory in map(Path, listed.split(":") if listed else _CERTIFICATE_DIRECTORIES):
        try:
            entries = sorted(directory.iterdir())
        except OSError:
            continue
        yield from (entry for entry in entries if not _is_alias(entry))


def _is_alias(entry: Path) -> bool:
    """True for OpenSSL's hashed names: links to another file of the same directory."""
    try:
        return stat.S_ISLNK(entry.lstat().st_mode) and "/" not in str(entry.readlink())
    except OSError:
        return True


def _resolve(host: str, port: int, deadline: Deadline) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    # libc's resolver takes no timeout. An abandoned lookup ends later, in its thread.
    found: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001  # raised again where it is waited for
            found.put(error)

    threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
    try:
        result = found.get(timeout=deadline.remaining)
    except queue.Empty:
        raise TimeoutError(f"the name {host} was not resolved within the time limit") from None
    if isinstance(result, Exception):
        raise result
    return result


def _limit(connection: socket.socket, deadline: Deadline, most: float | None = None) -> None:
    remaining = deadline.remaining
    if remaining <= 0:
        raise TimeoutError("timed out")
    connection.settimeout(remaining if most is None else min(remaining, most))
