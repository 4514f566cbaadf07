"""The client of the local API: no daemon, one that may not be asked, one that hangs, and what is no daemon at all."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.daemon import client as client_module
from agent.daemon.api_server import listen_on
from agent.daemon.client import Client, DaemonGone, NoDaemon, Refused, Reloading
from agent.errors import Denied, NotFound, NotNow, Unreachable
from tests.lab.ground import wait_until
from tests.real.api_fixture import RELOADED, connected, daemon_in, directory, event

NOBODY = 65534
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
HEAD = b'{"reload": {"is_started_here": true}}\n'


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of its own."""
    with directory() as found:
        yield found


@contextmanager
def answering(path: Path, *pieces: bytes, holds: bool = False) -> Iterator[None]:
    """Something listens there that answers the first request with these pieces, and closes unless it ``holds``."""
    listener, is_over = listen_on(path), threading.Event()
    listener.setblocking(True)

    def serve() -> None:
        connection, _address = listener.accept()
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            for piece in pieces:
                connection.sendall(piece)
            if holds:
                is_over.wait(30)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(10)
        listener.close()


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


@contextmanager
def _reloading(path: Path) -> Iterator[Reloading]:
    with Client(path).reload("web", force=False, in_maintenance=False, lock_timeout=None) as reloading:
        yield reloading


def test_it_imports_no_slow_library() -> None:
    """It is asked before anything else is done."""
    slow = {"click", "consul", "docker", "pydantic", "requests"}
    code = f"import sys, agent.daemon.client; print(sorted(sys.modules.keys() & {slow}))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_where_nobody_listens_there_is_no_daemon(place: Path) -> None:
    """No socket, no directory, the socket of a dead daemon, a file, a path that no socket can have."""
    listen_on(place / "dead.sock").close()
    (place / "file").write_text("")
    for name in ("none.sock", "none/none.sock", "dead.sock", "file", "file/none.sock", "x" * 200):
        with pytest.raises(NoDaemon):
            Client(place / name).status()


@contextmanager
def _as_nobody(path: Path) -> Iterator[None]:
    """Root may open everything; anyone else is shut out by the mode."""
    if os.geteuid() != 0:
        path.chmod(0)
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def test_who_may_not_open_the_socket_is_told_so(place: Path) -> None:
    """A daemon that may not be asked is not the same as none."""
    with daemon_in(place) as daemon, _as_nobody(daemon.path), pytest.raises(Denied, match="a member of the group"):
        Client(daemon.path).status()


def test_a_daemon_that_hangs_is_given_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing."""
    monkeypatch.setattr(client_module, "ANSWER_SECONDS", 0.3)
    with (
        answering(place / "svcagent.sock", holds=True),
        pytest.raises(Unreachable, match="does not answer within"),
    ):
        Client(place / "svcagent.sock").status()


def test_a_daemon_that_takes_no_connection_any_more_hangs(place: Path) -> None:
    """Its queue is full of others that wait."""
    path = place / "svcagent.sock"
    with listen_on(path) as listener:
        listener.listen(0)
        with connected(path), pytest.raises(Unreachable, match="does not answer within"):
            Client(path).status()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}",
        b'HTTP/1.1 500 No\r\nContent-Length: 15\r\n\r\n{"error": null}',
    ],
)
def test_what_is_no_daemon_is_told_from_one(place: Path, answer: bytes) -> None:
    """Another program has the socket."""
    with (
        answering(place / "svcagent.sock", answer),
        pytest.raises(Unreachable, match="does not answer as svcagent does"),
    ):
        Client(place / "svcagent.sock").status()


def test_a_reload_is_read_to_its_end(place: Path) -> None:
    """As the daemon tells it, heartbeats left out."""
    with daemon_in(place) as daemon, _reloading(daemon.path) as reloading:
        assert reloading.head["is_started_here"]
        daemon.backend.tell(event("check", "begin"), {"heartbeat": True})
        daemon.backend.end()
        found: list[object] = []
        while {"result": RELOADED} not in found:
            reloading.wait()
            found += reloading.take()

    assert found == [event("check", "begin"), {"result": RELOADED}]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_stream_may_come_in_any_pieces(place: Path, size: int) -> None:
    """Of bytes, and of chunks that are no lines."""
    stream = STREAM + b"".join(map(_chunk, (HEAD[:5], HEAD[5:] + b'{"a"', b': 1}\n{"b": 2}\n{"result": {}}\n', b"")))
    pieces = [stream[begin : begin + size] for begin in range(0, len(stream), size)]
    found: list[object] = []
    with answering(place / "svcagent.sock", *pieces, holds=True), _reloading(place / "svcagent.sock") as reloading:
        while len(found) < 3:
            reloading.wait()
            found += reloading.take()

    assert found == [{"a": 1}, {"b": 2}, {"result": {}}]


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (b"", "has ended"),
        (_chunk(b'{"a": 1}')[:-4], "has ended"),
        (_chunk(b""), "has ended"),
        (b"what?\r\n", "cannot be understood"),
        (_chunk(b"what?\n"), "cannot be understood"),
        (_chunk(b"1\n"), "cannot be understood"),
    ],
)
def test_a_daemon_that_dies_while_it_shows_a_reload_is_noticed(place: Path, rest: bytes, said: str) -> None:
    """The message says what to do."""
    with (
        answering(place / "svcagent.sock", STREAM + _chunk(HEAD), rest),
        pytest.raises(DaemonGone, match=f"the daemon {said}.* while it reloaded web.*svcagent recover"),
    ):
        _read_on(place / "svcagent.sock")


def _read_on(path: Path) -> None:
    with _reloading(path) as reloading:
        while True:
            reloading.wait()
            reloading.take()


def test_a_daemon_that_falls_silent_is_noticed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a heartbeat."""
    monkeypatch.setattr(client_module, "SILENT_SECONDS", 0.3)
    with (
        answering(place / "svcagent.sock", STREAM + _chunk(HEAD), holds=True),
        _reloading(place / "svcagent.sock") as reloading,
        pytest.raises(DaemonGone, match="has said nothing"),
    ):
        reloading.wait()


def test_what_the_daemon_refuses_keeps_its_exit_code(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not found is told apart by its type."""

    def refuse(*_args: object, **_asked: object) -> None:
        raise NotNow("the daemon is stopping")

    with daemon_in(place) as daemon:
        with pytest.raises(NotFound, match="no reload of web runs"):
            Client(daemon.path).cancel("web")
        monkeypatch.setattr(daemon.backend, "reload", refuse)
        with pytest.raises(Refused, match="the daemon is stopping") as refused, _reloading(daemon.path):
            pass

    assert refused.value.exit_code == 75


def test_leaving_a_reload_that_was_started_cancels_it(place: Path) -> None:
    """Whatever made the caller leave."""
    with daemon_in(place) as daemon:
        with suppress(KeyboardInterrupt), _reloading(daemon.path):
            raise KeyboardInterrupt
        wait_until(lambda: daemon.backend.cancelled == ["web"], 10, "it is cancelled")
