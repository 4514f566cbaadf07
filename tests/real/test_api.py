"""The local API on a real socket: who gets in, what is answered, and what becomes of a reload whose client goes."""

import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.daemon import api_request, api_server
from agent.daemon.api_server import ApiServer, listen_on
from agent.errors import BadDefinition, Conflict, LockBusy, SvcagentError
from tests.lab.ground import wait_until
from tests.real.api_fixture import NEXT, RELOADED, SINCE, Backend, Daemon, ask, connected, daemon_in, directory, event


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of its own."""
    with directory() as found:
        yield found


@pytest.fixture
def daemon(place: Path) -> Iterator[Daemon]:
    """A daemon that listens on both."""
    with daemon_in(place, "127.0.0.1:0") as found:
        yield found


def _get(address: Path | tuple[str, int], path: str, *headers: str) -> tuple[int, Any]:
    lines = "".join(f"{header}\r\n" for header in headers or ("Host: localhost",))
    return _parsed(ask(address, f"GET {path} HTTP/1.1\r\n{lines}\r\n"))


def _post(address: Path | tuple[str, int], path: str, body: str = "") -> tuple[int, Any]:
    return _parsed(ask(address, _posted(path, body)))


def _posted(path: str, body: str = "") -> str:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}"


def _parsed(answer: bytes) -> tuple[int, Any]:
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)


def _tcp(daemon: Daemon) -> tuple[str, int]:
    assert daemon.server.tcp_address is not None
    return daemon.server.tcp_address


def _records(answer: bytes) -> list[Any]:
    """Of a stream whose every chunk is one line."""
    pieces = answer.partition(b"\r\n\r\n")[2].split(b"\r\n")
    return [json.loads(piece) for piece in pieces[1::2] if piece]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_socket_is_for_its_owner_and_group_alone_whatever_the_umask(place: Path, umask: int) -> None:
    """Also the directory that is made for it."""
    path, before = place / "run" / "svcagent.sock", os.umask(umask)
    try:
        listen_on(path).close()
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_the_socket_is_never_open_to_others(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux makes it with no more than the mode wanted, before anything could narrow it."""
    modes: list[int] = []
    monkeypatch.setattr(Path, "chmod", lambda path, _mode: modes.append(stat.S_IMODE(path.stat().st_mode)))
    before = os.umask(0)
    try:
        listen_on(place / "svcagent.sock").close()
    finally:
        os.umask(before)

    assert modes == [0o660]


def test_the_socket_of_a_dead_daemon_is_replaced_and_its_own_removed(place: Path) -> None:
    """A daemon that was killed leaves its socket behind."""
    path = place / "svcagent.sock"
    listen_on(path).close()
    with daemon_in(place) as daemon:
        assert _get(daemon.path, "/v1/status")[0] == 200

    assert not path.exists()


def test_the_socket_of_a_living_daemon_is_left_alone(daemon: Daemon) -> None:
    """Two daemons with one socket in their settings: the second one says so."""
    with pytest.raises(LockBusy, match="another svcagent run listens"):
        ApiServer(daemon.backend, daemon.path).start()

    assert _get(daemon.path, "/v1/status")[0] == 200


def test_a_socket_that_another_daemon_put_there_is_not_removed(place: Path) -> None:
    """The one that stops was told to make room."""
    server = ApiServer(Backend(place), place / "svcagent.sock")
    server.start()
    (place / "svcagent.sock").unlink()
    with daemon_in(place) as daemon:
        server.stop(1)
        assert _get(daemon.path, "/v1/status")[0] == 200


def test_what_is_no_socket_is_left_alone(place: Path) -> None:
    """A setting that names a file of somebody's."""
    path = place / "svcagent.sock"
    path.write_text("mine")
    with pytest.raises(Conflict, match="is no socket"):
        ApiServer(Backend(place), path).start()

    assert path.read_text() == "mine"


def test_a_path_too_long_for_a_socket_is_a_bad_setting() -> None:
    """The message says how long it may be."""
    with pytest.raises(BadDefinition, match="at most 107 bytes") as raised:
        listen_on(Path("/tmp") / ("x" * 200))

    assert raised.value.exit_code == 78


def test_a_port_that_is_taken_is_said_and_leaves_no_socket(place: Path) -> None:
    """All or nothing."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(SvcagentError, match=f"cannot listen on {address}: Address already in use"):
            ApiServer(Backend(place), place / "svcagent.sock", address).start()

    assert not (place / "svcagent.sock").exists()


def test_what_the_daemon_knows_is_answered_on_both_roads(daemon: Daemon) -> None:
    """Moments are in ISO 8601."""
    for address in (daemon.path, _tcp(daemon)):
        status, document = _get(address, "/v1/status")
        assert (status, document["since"], document["is_ready"]) == (200, SINCE.isoformat(), True)
        runs = [{"job": "cname sync", "at": SINCE.isoformat()}, {"job": "reload web", "at": NEXT.isoformat()}]
        assert _get(address, "/v1/schedule") == (200, runs)
        assert _get(address, "/v1/schedule/web") == (200, runs[1:])
        assert _get(address, "/v1/history/web") == (200, [])
        assert b"text/plain; version=0.0.4\r\n" in ask(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "status", "code", "text"),
    [
        ("/v1/schedule/nope", 404, 1, "no service is called 'nope'; there is: web"),
        ("/v1/history/nope", 404, 1, "no service is called 'nope'; there is: web"),
        ("/v1/history/b%2Fc", 404, 1, "no service is called 'b/c'; there is: web"),
        ("/v1/history/bad", 422, 78, "web.json: service.port: is wrong"),
        ("/v1/history/bug", 500, 3, "this is a bug in svcagent; its trace is in the daemon's log, please report it"),
    ],
)
def test_errors_are_told_with_their_exit_codes(daemon: Daemon, path: str, status: int, code: int, text: str) -> None:
    """And a bug without its trace."""
    assert _get(daemon.path, path) == (status, {"error": text, "exit_code": code})


def test_an_unknown_address_is_told_all_there_are(daemon: Daemon) -> None:
    """Whoever mistyped sees what is right."""
    status, document = _get(daemon.path, "/v2/status")

    assert status == 404
    assert "GET /v1/status, GET /v1/schedule" in document["error"]


def test_the_other_loopback_is_listened_on_too(place: Path) -> None:
    """IPv6, its address in brackets as everywhere."""
    with daemon_in(place, "[::1]:0") as daemon:
        port = _tcp(daemon)[1]

        assert _get(("::1", port), "/v1/status", f"Host: [::1]:{port}")[0] == 200
        assert _post(("::1", port), "/v1/reload/web")[0] == 405


def test_tcp_answers_questions_alone(daemon: Daemon) -> None:
    """Nobody knows who calls there."""
    for path in ("/v1/reload/web", "/v1/reload/web/cancel"):
        assert _post(_tcp(daemon), path)[0] == 405

    assert (daemon.backend.asked, daemon.backend.cancelled) == ([], [])


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9632", "127.0.0.1", "127.8.8.8:80", "[::1]:9632", "LOCALHOST"]
)
def test_names_of_this_host_are_welcome(daemon: Daemon, host: str) -> None:
    """With and without a port."""
    assert _get(_tcp(daemon), "/v1/status", f"Host: {host}")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        ("Host: rebound.example",),
        ("Host: 127.0.0.1.example:9632",),
        ("Host: 10.0.0.7",),
        ("Host: ",),
        ("Host: localhost", "Host: rebound.example"),
        ("Host: localhost", "Origin: http://localhost:9632"),
        ("Host: localhost", "Origin: null"),
    ],
)
def test_a_web_page_gets_nothing(daemon: Daemon, headers: tuple[str, ...]) -> None:
    """A name of its own that leads here (DNS rebinding), or a request across origins."""
    for address in (daemon.path, _tcp(daemon)):
        assert _get(address, "/v1/status", *headers)[0] == 403


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{", "is not JSON"),
        ("[" * 20000, "is not JSON"),
        ("[]", "no JSON object"),
        ('{"forse": true}', "forse: no such option; there is: force, in_maintenance, lock_timeout"),
        ('{"force": 1}', "force: write true or false"),
        ('{"lock_timeout": -1}', "lock_timeout: write a number"),
        ('{"lock_timeout": NaN}', "lock_timeout: write a number"),
        ('{"lock_timeout": true}', "lock_timeout: write a number"),
    ],
)
def test_a_body_that_is_none_starts_nothing(daemon: Daemon, body: str, text: str) -> None:
    """The answer says what would be right."""
    status, document = _post(daemon.path, "/v1/reload/web", body)

    assert status == 400
    assert text in document["error"]
    assert daemon.backend.asked == []


def test_requests_larger_than_any_real_one_are_refused(daemon: Daemon) -> None:
    """In the head, and in the body before it is read."""
    size = api_request.REQUEST_BYTES
    long_head = f"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: {'x' * size}"
    long_body = f"POST /v1/reload/web HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size + 1}\r\n\r\n"

    for request in (long_head, long_body):
        assert _parsed(ask(daemon.path, request))[0] == 413


def test_no_http_is_told_so(daemon: Daemon) -> None:
    """In the form of all errors."""
    status, document = _parsed(ask(daemon.path, b"\x16\x03\x01 nonsense HTTP/x\r\n\r\n"))

    assert status == 400
    assert document["exit_code"] == 1


def test_a_reload_is_not_shown_over_http_1_0(daemon: Daemon) -> None:
    """It has no chunks; nothing is started."""
    status, document = _parsed(ask(daemon.path, _posted("/v1/reload/web").replace("HTTP/1.1", "HTTP/1.0")))

    assert (status, daemon.backend.asked) == (400, [])
    assert "HTTP/1.1" in document["error"]


def test_a_client_that_sends_too_slowly_is_left(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it sends another byte."""
    monkeypatch.setattr(api_request, "READ_SECONDS", 0.5)
    with connected(daemon.path) as slow:
        slow.sendall(b"GET /v1/status HT")
        slow.settimeout(0.1)

        def is_left() -> bool:
            try:
                slow.sendall(b"x")
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(is_left, 10, "the connection is closed")


def test_so_many_at_once_and_one_more_is_told_to_come_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who come over TCP take no place from the others; a place is free again when a client has gone."""
    monkeypatch.setattr(api_server, "MOST_OVER_TCP", 2)
    monkeypatch.setattr(api_server, "MOST_OVER_UNIX", 2)
    with daemon_in(place, "127.0.0.1:0") as daemon, connected(_tcp(daemon)), connected(_tcp(daemon)):
        assert _get(daemon.path, "/v1/status")[0] == 200
        with connected(daemon.path), connected(daemon.path):
            wait_until(lambda: _get(daemon.path, "/v1/status")[0] == 503, 10, "both places are taken")
        wait_until(lambda: _get(daemon.path, "/v1/status")[0] == 200, 10, "a place is free")


def test_a_reload_is_shown_to_its_end(daemon: Daemon) -> None:
    """First what it is, then its records, at last its result. Whoever asked is known."""
    with connected(daemon.path) as connection:
        connection.sendall(_posted("/v1/reload/web", '{"force": true, "lock_timeout": 1.5}').encode())
        wait_until(lambda: bool(daemon.backend.lookers_on), 10, "it is started")
        daemon.backend.tell(event("check", "begin"))
        daemon.backend.end()
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))

    head, *records = _records(answer)
    assert head["reload"]["is_started_here"]
    assert (head["reload"]["since"], head["reload"]["why"], head["reload"]["pid"]) == (
        SINCE.isoformat(),
        "schedule",
        4711,
    )
    assert records == [event("check", "begin"), {"result": RELOADED}]
    assert daemon.backend.asked[0].pop("asker").endswith(f"(pid {os.getpid()})")
    assert daemon.backend.asked == [{"force": True, "in_maintenance": False, "lock_timeout": 1.5}]
    assert daemon.backend.cancelled == []
    assert daemon.backend.lookers_on[0].is_closed


def test_two_look_on_at_one_reload(daemon: Daemon) -> None:
    """The second one gets what has been told before it came."""
    answers: dict[str, bytes] = {}

    def look(name: str) -> threading.Thread:
        count = len(daemon.backend.lookers_on)
        thread = threading.Thread(
            target=lambda: answers.update({name: ask(daemon.path, _posted("/v1/reload/web"))}), daemon=True
        )
        thread.start()
        wait_until(lambda: len(daemon.backend.lookers_on) > count, 10, f"{name} looks on")
        return thread

    first = look("first")
    daemon.backend.tell(event("check", "begin"))
    second = look("second")
    daemon.backend.end()
    for thread in (first, second):
        thread.join(10)

    heads = {name: _records(answer)[0]["reload"]["is_started_here"] for name, answer in answers.items()}
    assert heads == {"first": True, "second": False}
    assert _records(answers["first"])[1:] == _records(answers["second"])[1:] == daemon.backend.told


def test_a_silent_reload_has_heartbeats(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits knows that the daemon lives."""
    monkeypatch.setattr(api_request, "HEARTBEAT_SECONDS", 0.5)
    with connected(daemon.path) as connection:
        connection.sendall(_posted("/v1/reload/web").encode())
        found = b""
        while b'{"heartbeat": true}' not in found:
            found += connection.recv(1 << 16)


def test_the_reload_of_a_client_that_goes_is_cancelled(daemon: Daemon) -> None:
    """Whoever started it wants it no more; it is put back."""
    with connected(daemon.path) as connection:
        connection.sendall(_posted("/v1/reload/web").encode())
        assert connection.recv(1 << 16)

    wait_until(lambda: daemon.backend.cancelled == ["web"], 10, "it is cancelled")
    assert daemon.backend.lookers_on[0].is_closed


def test_a_client_that_goes_after_the_end_cancels_no_other_reload(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was stopped (Ctrl-Z) while its reload ended: what runs by that name now is the schedule's."""
    monkeypatch.setattr(api_request, "WRITE_SECONDS", 1.0)
    with connected(daemon.path) as connection:
        connection.sendall(_posted("/v1/reload/web").encode())
        wait_until(lambda: bool(daemon.backend.lookers_on), 10, "it is started")
        for _ in range(50):
            daemon.backend.tell(event("pull", "note", "x" * 20_000))
        daemon.backend.end()
        daemon.backend.is_running = True
        wait_until(lambda: daemon.backend.lookers_on[0].is_closed, 10, "the daemon gives the client up")

    assert daemon.backend.cancelled == []


def test_a_client_that_only_looked_on_may_go(daemon: Daemon) -> None:
    """The reload is not its own."""
    daemon.backend.is_running = True
    with connected(daemon.path) as connection:
        connection.sendall(_posted("/v1/reload/web").encode())
        assert connection.recv(1 << 16)

    wait_until(lambda: daemon.backend.lookers_on[0].is_closed, 10, "the daemon knows that it has gone")
    assert daemon.backend.cancelled == []


def test_a_client_that_takes_nothing_is_gone(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds no thread of the daemon for ever."""
    monkeypatch.setattr(api_request, "WRITE_SECONDS", 0.3)
    with connected(daemon.path) as connection:
        connection.sendall(_posted("/v1/reload/web").encode())
        wait_until(lambda: bool(daemon.backend.lookers_on), 10, "it is started")
        for _ in range(50):
            daemon.backend.tell(event("pull", "note", "x" * 20_000))

        wait_until(lambda: daemon.backend.cancelled == ["web"], 10, "it is cancelled")


def test_cancelling_asks_the_reload_that_runs(daemon: Daemon) -> None:
    """And says if there is none."""
    assert _post(daemon.path, "/v1/reload/web/cancel")[0] == 404
    daemon.backend.is_running = True
    assert _post(daemon.path, "/v1/reload/web/cancel") == (200, {})

    assert daemon.backend.cancelled == ["web"]


def test_a_stop_lets_answers_end(place: Path) -> None:
    """The results of the reloads that a stopping daemon put back are still told."""
    backend, path = Backend(place), place / "svcagent.sock"
    server = ApiServer(backend, path)
    server.start()
    with connected(path) as connection:
        connection.sendall(_posted("/v1/reload/web").encode())
        wait_until(lambda: bool(backend.lookers_on), 10, "it is started")
        stopping = threading.Thread(target=server.stop, args=(20,))
        stopping.start()
        wait_until(lambda: not path.exists(), 10, "nobody can come any more")
        backend.end(outcome="interrupted")
        stopping.join(10)
        assert not stopping.is_alive()

        assert b"interrupted" in b"".join(iter(lambda: connection.recv(1 << 16), b""))
