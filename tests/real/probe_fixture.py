"""Services that answer checks in chosen ways, over HTTP and HTTPS; what a probe and a Consul agent say of them."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

Answer = Callable[["Conversation"], None]


@dataclass
class Conversation:
    """One connection to a service, and the request that came over it."""

    connection: socket.socket
    request: str = ""

    @property
    def path(self) -> str:
        return self.request.split(" ")[1]

    def say(self, text: str) -> None:
        self.connection.sendall(text.encode())

    def repeat(self, text: str, every: float = 0.02) -> None:
        """Send it again and again until the client hangs up."""
        while True:
            self.say(text)
            time.sleep(every)

    def status(self, line: str, *headers: str) -> None:
        self.say("\r\n".join([f"HTTP/1.1 {line}", *headers, "Content-Length: 0", "", ""]))


@dataclass
class Origin:
    """A service on a socket of this process. ``answers`` by path; anything else is answered with 200."""

    listener: socket.socket
    context: ssl.SSLContext | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """The server names that TLS clients asked for."""

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def remember_name(self, _socket: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """What a TLS client asked for, before the handshake goes on."""
        self.names.append(name)

    def serve(self) -> None:
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        # A client that hangs up, or refuses the certificate, is what many of the tests are about.
        with suppress(OSError), connection:
            connection.settimeout(30)
            if self.context is not None:
                with self.context.wrap_socket(connection, server_side=True) as secured:
                    self._talk(secured)
            else:
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        received = b""
        while not _is_whole(received):
            more = connection.recv(65536)
            if not more:
                return
            received += more
        talk = Conversation(connection, received.decode("latin-1"))
        self.requests.append(talk.request)
        self.answers.get(talk.path, _succeed)(talk)


def _succeed(talk: Conversation) -> None:
    talk.status("200 OK")


def _is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    lengths = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return bool(end) and len(body) >= (int(lengths[0]) if lengths else 0)


@contextmanager
def origin(
    address: str = "127.0.0.1", certificate: tuple[Path, Path] | None = None, family: int = socket.AF_INET
) -> Iterator[Origin]:
    """A running service; over TLS with a certificate and its key."""
    context: ssl.SSLContext | None = None
    with socket.create_server((address, 0), family=family, backlog=128) as listener:
        found = Origin(listener)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            context.sni_callback = found.remember_name
            found.context = context
        thread = threading.Thread(target=found.serve, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            # A thread in accept() does not notice that its socket is closed.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
