"""The roads to the agent: unix socket, IPv6, one connection; and what is said when the answer is none or nonsense."""

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConsulUnreachable, OutcomeUnknown
from tests.lab.ground import wait_until
from tests.lab.server import spawn, svcagent_argv
from tests.real.access_fixture import Access, Listener, answering, consul_with, forwarding
from tests.real.converge_fixture import Waker
from tests.support.consul import consul_at
from tests.support.kinds import raises_kind
from tests.support.svcagent import Svcagent

LIMIT = 200
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def access() -> Iterator[Access]:
    def config(address: str, directory: Path) -> dict[str, Any]:
        return {"addresses": {"http": f"{address} unix://{directory}/consul.sock"}}

    with consul_with(config) as found:
        yield found


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_over_a_unix_socket(access: Access, svcagent: Svcagent) -> None:
    svcagent.define("web")
    settings = {"CONSUL_HTTP_ADDR": f"unix://{access.directory}/consul.sock"}

    assert svcagent("register", **settings).code == 0
    assert svcagent("maint", "enable", "web", "--reason", "x", **settings).code == 0
    assert svcagent("maint", "disable", "web", **settings).code == 0
    missing = svcagent("--json", "status", CONSUL_HTTP_ADDR=f"unix://{access.directory}/none.sock")
    assert (missing.code, missing.kind) == (69, "consul-unreachable")
    assert "none.sock (from CONSUL_HTTP_ADDR)" in missing.err


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_an_address_with_and_without_a_scheme(access: Access, svcagent: Svcagent, scheme: str) -> None:
    assert svcagent("maint", "status", CONSUL_HTTP_ADDR=f"{scheme}{access.address}:8500").code == 0


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_over_ipv6(access: Access, svcagent: Svcagent, scheme: str) -> None:
    with Listener(forwarding((access.address, 8500)), "::1") as road:
        assert svcagent("maint", "status", CONSUL_HTTP_ADDR=f"{scheme}[::1]:{road.port}").code == 0
        assert road.accepted == 1


def test_registering_twenty_services_takes_one_connection(access: Access, svcagent: Svcagent) -> None:
    """Consul limits connections, and each costs a handshake under TLS."""
    names = [f"many-{number}" for number in range(20)]
    svcagent.define(*names)
    with Listener(forwarding((access.address, 8500))) as road:
        result = svcagent("--json", "register", CONSUL_HTTP_ADDR=f"127.0.0.1:{road.port}")

        assert result.code == 0
        assert {change["service"] for change in json.loads(result.out)["changes"]} >= set(names)
        assert road.accepted == 1


def test_more_connections_than_the_agent_allows(access: Access, svcagent: Svcagent) -> None:
    """Consul 1.8 closes the 201st of one address without an answer, later ones answer 429; svcagent names the limit."""
    with ExitStack() as held:
        for _ in range(LIMIT):
            held.enter_context(socket.create_connection((access.address, 8500)))
        result = svcagent("maint", "status", CONSUL_HTTP_ADDR=f"{access.address}:8500")

    assert result.code == 69
    assert "limits.http_max_conns_per_client, 200 by default" in result.err
    assert "ss -tnp" in result.err


def test_a_frozen_agent(access: Access, svcagent: Svcagent, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts and never answers: a read fails, and a write's outcome is unknown."""
    monkeypatch.setattr("agent.consul.transport.ANSWER_SECONDS", 0.3)
    svcagent.define("web")
    with access.connection() as consul:
        consul.agent_self()
        access.server.freeze()
        try:
            with pytest.raises(OutcomeUnknown):
                consul.enable_maintenance("web", "x")
            result = svcagent("--json", "register", "--wait", "0s", CONSUL_HTTP_ADDR=f"{access.address}:8500")
        finally:
            access.server.thaw()

    assert (result.code, result.kind) == (69, "consul-unreachable")


def test_a_late_answer_is_not_taken_for_the_next_one(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.consul.transport.ANSWER_SECONDS", 0.3)
    with access.connection() as consul:
        consul.agent_self()
        access.server.freeze()
        try:
            with raises_kind(ConsulUnreachable, "consul-unreachable"):
                consul.checks()
        finally:
            access.server.thaw()

        assert consul.agent_self().node == "server"


PAGE = b"Content-Type: text/html\r\nConnection: close\r\nContent-Length: 6\r\n\r\n<html>"
ANSWERS = {
    "a page": (b"HTTP/1.1 200 OK\r\n" + PAGE, "not from Consul"),
    "a page that says 404": (b"HTTP/1.1 404 Not Found\r\n" + PAGE, "not from Consul"),
    "a page that says 502": (b"HTTP/1.1 502 Bad Gateway\r\n" + PAGE, "not from Consul"),
    "text": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "not from Consul"),
    "a redirect": (
        b"HTTP/1.1 302 Found\r\nLocation: http://login.example.com/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "a redirect to http://login.example.com/",
    ),
}

READ_ANSWERS = ANSWERS | {
    "nothing": (b"", "it closed the connection"),
    "JSON of another kind": (JSON + b'Content-Length: 13\r\n\r\n{"ok": [true]', "not from Consul"),
    "a list": (JSON + b"Content-Length: 2\r\n\r\n[]", "not from Consul"),
    "a number": (JSON + b"Content-Length: 2\r\n\r\n42", "not from Consul"),
    "half an answer": (JSON + b"Content-Length: 5000\r\n\r\n{", "it closed the connection"),
    "half a chunk": (JSON + b"Transfer-Encoding: chunked\r\n\r\n40\r\n{", "it closed the connection"),
    "no HTTP": (b"220 mail.example.com ESMTP\r\n", "it closed the connection"),
}


@pytest.mark.parametrize("kind", READ_ANSWERS)
def test_an_answer_that_is_not_consul_s(svcagent: Svcagent, kind: str) -> None:
    """One line that says what was there, for each verb; never a trace."""
    answer, said = READ_ANSWERS[kind]
    svcagent.define("web")
    with Listener(answering(answer)) as bad:
        for argv in (["register", "--wait", "0s"], ["status"], ["maint", "status"], ["deregister", "web"]):
            result = svcagent(*argv, CONSUL_HTTP_ADDR=f"127.0.0.1:{bad.port}")
            assert result.code == 69, (argv, result)
            assert said in result.err
            assert f"http://127.0.0.1:{bad.port} (from CONSUL_HTTP_ADDR)" in result.err
            assert "Traceback" not in result.text


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_write_is_not_done_because_something_said_200(kind: str) -> None:
    answer, said = ANSWERS[kind]
    with Listener(answering(answer)) as bad, consul_at(f"127.0.0.1:{bad.port}") as consul:
        for write in (
            lambda: consul.register_service({"Name": "web"}),
            lambda: consul.enable_maintenance("web", "x"),
            lambda: consul.kv_put("svcagent/x", "1"),
        ):
            with pytest.raises(ConsulUnreachable, match=said):
                write()


def test_a_connection_cut_in_a_write_leaves_the_outcome_unknown() -> None:
    with (
        Listener(answering(JSON + b"Content-Length: 5000\r\n\r\n")) as bad,
        consul_at(f"127.0.0.1:{bad.port}") as consul,
        pytest.raises(OutcomeUnknown),
    ):
        consul.register_service({"Name": "web"})
    assert bad.accepted == 1


def test_a_restarted_agent_is_asked_again(access: Access) -> None:
    """The kept-alive connection is gone; nobody has to know."""
    with access.connection() as consul:
        consul.agent_self()
        access.server.restart()

        assert consul.agent_self().node == "server"


def test_a_write_notices_that_its_connection_is_gone(access: Access) -> None:
    """Before it is sent: sent into a dead connection, nobody would know whether it was carried out."""
    with access.connection() as consul:
        consul.register_service({"Name": "before"})
        access.server.restart()

        consul.register_service({"Name": "after"})

        assert "after" in consul.services()


def test_a_frozen_agent_can_be_interrupted(access: Access, svcagent: Svcagent) -> None:
    access.server.freeze()
    try:
        environment = svcagent.environment(CONSUL_HTTP_ADDR=f"{access.address}:8500")
        waiting = spawn([*svcagent_argv(), "maint", "status"], environment, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: _is_connected(access.address), 10, "svcagent has connected")
        waiting.send_signal(signal.SIGINT)
        _out, err = waiting.communicate(timeout=5)
    finally:
        access.server.thaw()

    assert waiting.returncode == 130
    assert "Traceback" not in err


def _is_connected(address: str) -> bool:
    """Is there an established connection to the agent's port from anywhere? /proc/net/tcp has addresses reversed."""
    there = "".join(f"{int(part):02X}" for part in reversed(address.split("."))) + f":{8500:04X}"
    return any(there == line.split()[2] and line.split()[3] == "01" for line in _tcp()[1:])


def _tcp() -> list[str]:
    return Path("/proc/net/tcp").read_text().splitlines()


@pytest.mark.parametrize("canary", ["web", ""])
def test_a_watch_over_a_unix_socket_wakes_and_stops(access: Access, canary: str) -> None:
    address = f"unix://{access.directory}/consul.sock"
    with access.connection() as consul:
        consul.register_service({"Name": "web"})
        with Waker(address, canary) as waker:
            waker.sleeps(0.5)
            if canary:
                waker.wakes_after(lambda: consul.deregister_service("web"))
        consul.deregister_service("web")
