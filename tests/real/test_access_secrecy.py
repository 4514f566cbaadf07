"""The token's text is nowhere that a person or another process could read it, whatever goes wrong."""

import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.consul import Consul
from tests.lab.ground import wait_until
from tests.lab.server import spawn, svcagent_argv
from tests.real.access_fixture import Access, Listener, answering, consul_with
from tests.support.svcagent import Result, Svcagent

TOKEN = str(uuid.uuid4())
VERBS = (
    ["-v", "register", "--wait", "0s"],
    ["-v", "register", "--dry-run", "--wait", "0s"],
    ["-v", "--json", "status"],
    ["-v", "maint", "status"],
    ["-v", "maint", "enable", "web", "--reason", "x"],
    ["-v", "deregister", "--all"],
    ["-v", "validate"],
    ["-v", "--log-format", "json", "register", "--wait", "0s"],
    ["-v", "--log-format", "json", "--json", "status"],
    ["-v", "--log-format", "journal", "maint", "status"],
)


@pytest.fixture(scope="module")
def access() -> Iterator[Access]:
    with consul_with({"acl": {"enabled": True, "default_policy": "allow"}}) as found:
        yield found


def _assert_secret(result: Result) -> None:
    assert TOKEN not in result.text
    assert TOKEN[:8] not in result.text


def test_no_failure_shows_it(access: Access, svcagent: Svcagent) -> None:
    """Unknown to Consul (403), a server that fails, one that echoes, nobody there, a broken handshake."""
    svcagent.define("web")
    echo = f"HTTP/1.1 500 Oops\r\nContent-Length: {len(TOKEN)}\r\n\r\n{TOKEN}".encode()
    with (
        Listener(answering(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")) as failing,
        Listener(answering(echo)) as echoing,
        socket.create_server(("127.0.0.1", 0)) as closed,
    ):
        nobody = closed.getsockname()[1]
        closed.close()
        for address in (
            f"{access.address}:8500",
            f"127.0.0.1:{failing.port}",
            f"127.0.0.1:{echoing.port}",
            f"127.0.0.1:{nobody}",
            f"https://{access.address}:8500",
        ):
            for argv in VERBS:
                result = svcagent(*argv, CONSUL_HTTP_ADDR=address, CONSUL_HTTP_TOKEN=TOKEN)
                _assert_secret(result)
                assert "Traceback" not in result.err
                assert result.code != 0 or "validate" in argv


@pytest.mark.parametrize("form", ["text", "json", "journal"])
def test_no_trace_shows_it(access: Access, svcagent: Svcagent, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Not even when the error at its end was made from what holds it."""

    def broken(self: Consul) -> None:
        raise RuntimeError(f"{self!r} {vars(self)!r} {self._settings!r}")  # whatever a bug may print

    monkeypatch.setattr(Consul, "agent_self", broken)
    svcagent.define("web")

    argv = ("-v", "--log-format", form, "maint", "status")
    result = svcagent(*argv, CONSUL_HTTP_ADDR=f"{access.address}:8500", CONSUL_HTTP_TOKEN=TOKEN)

    assert result.code == 3
    assert "RuntimeError" in result.err
    _assert_secret(result)


@pytest.mark.parametrize(
    "table",
    [
        f'token = ["{TOKEN}"]',
        f'tokn = "{TOKEN}"',
        f'token_file = "{TOKEN}"',
        f'token_file = "/nowhere/{TOKEN}"',
        f"token = {TOKEN}",
        f'address = "http://user:{TOKEN}@127.0.0.1:8500"',
        f'tls_server_name = "x"\nverify = "{TOKEN}"',
        f'token = "{TOKEN} "',
        f'token = "{TOKEN}\\n"',
        f'token = "{TOKEN}\u2026"',
    ],
    ids=lambda table: table.replace(TOKEN, "TOKEN"),
)
def test_no_fault_of_a_settings_file_shows_it(svcagent: Svcagent, tmp_path: Path, table: str) -> None:
    """Also not one that stands in the wrong place, or has something behind it."""
    settings = tmp_path / "svcagent.toml"
    settings.write_text(f"[consul]\n{table}\n")

    result = svcagent("--config", str(settings), "-v", "maint", "status")

    assert result.code in (1, 78)
    assert "Traceback" not in result.err
    _assert_secret(result)


@pytest.mark.parametrize("name", ["CONSUL_HTTP_TOKEN_FILE", "CONSUL_HTTP_SSL_VERIFY", "CONSUL_CACERT"])
def test_no_fault_of_the_environment_shows_it(svcagent: Svcagent, name: str) -> None:
    result = svcagent("-v", "maint", "status", **{name: TOKEN})

    assert result.code in (1, 78)
    _assert_secret(result)


def test_the_list_of_processes_does_not_show_it(svcagent: Svcagent) -> None:
    """svcagent, held in the middle of a request: its command line and its threads' names."""
    with Listener(_hold) as silent:
        environment = svcagent.environment(CONSUL_HTTP_ADDR=f"127.0.0.1:{silent.port}", CONSUL_HTTP_TOKEN=TOKEN)
        process = spawn([*svcagent_argv(), "-v", "maint", "status"], environment, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: silent.accepted > 0, 10, "svcagent has connected")
            shown = Path(f"/proc/{process.pid}/cmdline").read_text()
            listed = subprocess.run(["ps", "-eLo", "args,comm"], capture_output=True, text=True, check=False).stdout
        finally:
            process.kill()
            process.wait(10)

    assert "maint" in shown
    assert TOKEN not in shown
    assert TOKEN not in listed


def _hold(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass
