"""svcagent's own probe says what a real Consul agent says of the same check, and is never outlasted."""

import os
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.definitions import Check
from agent.reload.probe import Prober, ProbeResult
from tests.lab import asking, parts
from tests.lab.ground import claimed, wait_until
from tests.lab.host import environment_in
from tests.real.probe_fixture import Answer, Conversation, Origin, origin
from tests.support.authority import Authority
from tests.support.consul import consul_at


@dataclass
class Ruler:
    """A Consul agent that trusts the organisation's authority, as the whole host does, and a prober beside it."""

    ask: asking.Consul
    authority: Authority
    prober: Prober

    def consul_says(self, check: Check) -> str:
        """The status of Consul's first run of the check."""
        self.ask.put("/v1/agent/check/register", check.registration() | {"ID": "one", "Name": "one"})
        try:
            wait_until(lambda: bool(self._state()["Output"]), 20, "Consul has run the check")
            return str(self._state()["Status"])
        finally:
            self.ask.deregister_check("one")

    def _state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask.get("/v1/agent/checks")["one"]
        return found


@pytest.fixture(scope="module")
def ruler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ruler]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    store = {"SSL_CERT_FILE": str(authority.certificate)}
    with claimed() as ground:
        address = ground.address(1)
        environment = environment_in(ground.directory, ground.directory) | store
        server = parts.consul_server(ground.directory, address, environment)
        with server.running(), closing(asking.Consul(f"http://{address}:8500")) as ask:
            yield Ruler(ask, authority, Prober(environ=store))


@pytest.fixture
def service() -> Iterator[Origin]:
    with origin() as found:
        yield found


def check_of(url: str, **fields: Any) -> Check:
    """A check that Consul runs within a second."""
    return Check(**{"http": url, "interval": "1s", "timeout": "1s", **fields})


def redirects(status: str) -> Answer:
    """``/r3`` leads to ``/r2`` and so on, and ``/r0`` is there."""

    def answer(talk: Conversation) -> None:
        left = int(talk.path[2:])
        if left:
            talk.status(status, f"Location: /r{left - 1}")
        else:
            talk.status("200 OK")

    return answer


def answered(*lines: str) -> Answer:
    return lambda talk: talk.status(*lines)


def endless(first: str, then: str) -> Answer:
    """A beginning, and something that never ends."""

    def answer(talk: Conversation) -> None:
        talk.say(first)
        talk.repeat(then)

    return answer


JUDGED: dict[str, tuple[Answer, str]] = {
    "success": (answered("204 No Content"), "passing"),
    "too many requests": (answered("429 Too Many Requests"), "warning"),
    "broken": (answered("503 Service Unavailable"), "critical"),
    "redirect without a target": (answered("302 Found"), "critical"),
    "redirect to itself": (answered("302 Found", "Location: /check"), "critical"),
    "redirect to an IPv4 address in brackets": (answered("302 Found", "Location: http://[127.0.0.1]:1/"), "critical"),
    "redirect to a broken port": (answered("302 Found", "Location: http://127.0.0.1:99999/"), "critical"),
    "redirect to no port at all": (answered("302 Found", "Location: http://127.0.0.1:x/"), "critical"),
    "redirect to another scheme": (answered("302 Found", "Location: ftp://127.0.0.1/"), "critical"),
    "redirect with a control character": (answered("302 Found", "Location: /\x01"), "critical"),
    "redirect to a name that is too long": (answered("302 Found", f"Location: http://{'a' * 70}.test/"), "critical"),
    "switching protocols": (answered("101 Switching Protocols"), "critical"),
    "informational answers first": (
        lambda talk: talk.say(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
        ),
        "passing",
    ),
    "100 Continue without end": (lambda talk: talk.repeat("HTTP/1.1 100 Continue\r\n\r\n"), "critical"),
    "103 Early Hints without end": (lambda talk: talk.repeat("HTTP/1.1 103 Early Hints\r\n\r\n"), "critical"),
    "headers without end": (endless("HTTP/1.1 200 OK\r\n", "X: y\r\n"), "critical"),
    "a status line byte by byte": (lambda talk: talk.repeat("H"), "critical"),
    "a body without end": (endless("HTTP/1.1 200 OK\r\n\r\n", "."), "passing"),
    "a body that is cut off": (lambda talk: talk.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n."), "passing"),
    "broken chunks": (lambda talk: talk.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "passing"),
    "not HTTP": (lambda talk: talk.say("SSH-2.0-OpenSSH_9.2\r\n"), "critical"),
    "nothing": (lambda talk: talk.connection.close(), "critical"),
}


@pytest.mark.parametrize("case", JUDGED)
def test_the_probe_judges_an_answer_as_consul_does(ruler: Ruler, service: Origin, case: str) -> None:
    answer, status = JUDGED[case]
    service.answers["/check"] = answer
    check = check_of(f"http://127.0.0.1:{service.port}/check")

    result = ruler.prober.probe(check, 60)

    assert (result.status, ruler.consul_says(check)) == (status, status)
    assert result.message.isprintable()
    assert len(result.message) < 500


@pytest.mark.parametrize(("count", "status"), [(9, "passing"), (10, "critical")])
def test_redirects_are_followed_as_often_as_by_consul(ruler: Ruler, service: Origin, count: int, status: str) -> None:
    service.answers |= {f"/r{left}": redirects("302 Found") for left in range(11)}
    check = check_of(f"http://127.0.0.1:{service.port}/r{count}")

    assert (ruler.prober.probe(check, 60).status, ruler.consul_says(check)) == (status, status)


def test_a_redirect_is_the_answer_where_redirects_are_disabled(service: Origin) -> None:
    service.answers["/r1"] = redirects("302 Found")
    check = check_of(f"http://127.0.0.1:{service.port}/r1", disable_redirects=True)

    result = Prober().probe(check, 60)

    assert (result.status, result.failure) == ("critical", "http 302")
    assert len(service.requests) == 1


SENT: dict[str, dict[str, Any]] = {
    "plain": {},
    "body": {"method": "POST", "body": '{"a": "ä"}', "header": {"Content-Type": ("application/json",)}},
    "empty body": {"method": "PUT"},
    "other method": {"method": "OPTIONS"},
    "host and repeated headers": {"header": {"Host": ("web.example",), "X-A": ("1", "2"), "Accept": ("text/plain",)}},
    "headers that the client writes itself": {"header": {"host": ("low",), "User-Agent": ("me",), "Trailer": ("x",)}},
    "credentials": {"path": "me:p%40ss@"},
    "see other": {"method": "POST", "body": "x", "redirect": "303 See Other", "header": {"Host": ("web.example",)}},
    "moved": {"method": "POST", "body": "x", "redirect": "301 Moved Permanently", "header": {"Cookie": ("a=b",)}},
    "temporary": {"method": "POST", "body": "x", "redirect": "307 Temporary Redirect"},
    "permanent": {"method": "DELETE", "redirect": "308 Permanent Redirect", "header": {"Authorization": ("t",)}},
}


@pytest.mark.parametrize("case", SENT)
def test_the_probe_sends_what_consul_sends(ruler: Ruler, service: Origin, case: str) -> None:
    fields = dict(SENT[case])
    user, redirect = fields.pop("path", ""), fields.pop("redirect", "302 Found")
    service.answers |= {"/r1": redirects(redirect), "/r0": redirects(redirect)}
    check = check_of(f"http://{user}127.0.0.1:{service.port}/r1?a=b%20c&d#fragment", **fields)

    def sent() -> list[tuple[str, list[str]]]:
        lines = [request.split("\r\n") for request in service.requests]
        service.requests.clear()
        return [(line[0], sorted(line[1:])) for line in lines]

    service.answers["/r1?a=b%20c&d"] = lambda talk: talk.status(redirect, "Location: /r0")
    assert ruler.consul_says(check) == "passing"
    of_consul = sent()
    assert ruler.prober.probe(check, 60).status == "passing"
    own = sent()

    assert own == of_consul[: len(own)]
    assert len(own) == 2


def test_credentials_are_not_sent_to_another_host(service: Origin) -> None:
    with origin("127.0.0.5") as other:
        service.answers["/check"] = answered("302 Found", f"Location: http://127.0.0.5:{other.port}/x")
        header = {"Authorization": ("secret",), "Cookie": ("secret",), "X-A": ("1",)}

        result = Prober().probe(check_of(f"http://127.0.0.1:{service.port}/check", header=header), 60)

        assert result.status == "passing"
        assert "secret" not in other.requests[0]
        assert "X-A: 1" in other.requests[0]


def test_a_certificate_of_the_organisations_authority_in_the_hosts_store_passes(ruler: Ruler) -> None:
    with origin(certificate=ruler.authority.issue("web", "IP:127.0.0.1")) as service:
        check = check_of(f"https://127.0.0.1:{service.port}/hc")

        assert (ruler.prober.probe(check, 60).status, ruler.consul_says(check)) == ("passing", "passing")
        stranger = Prober(environ={"SSL_CERT_FILE": "/nonexistent", "SSL_CERT_DIR": "/nonexistent"}).probe(check, 60)
        assert (stranger.status, stranger.failure) == ("critical", "tls")
        assert "certificate verify failed" in stranger.message


def test_a_directory_of_certificates_needs_no_hashed_names(ruler: Ruler, tmp_path: Path) -> None:
    """OpenSSL needs them; Go, and so Consul, reads every file, and passes over what is no certificate."""
    (tmp_path / "organisation.crt").write_bytes(ruler.authority.certificate.read_bytes())
    (tmp_path / "README").write_text("no certificate")
    store = {"SSL_CERT_FILE": "/nonexistent", "SSL_CERT_DIR": f"/nonexistent:{tmp_path}"}
    with origin(certificate=ruler.authority.issue("dir", "IP:127.0.0.1")) as service:
        assert Prober(environ=store).probe(check_of(f"https://127.0.0.1:{service.port}/"), 60).status == "passing"


def test_a_certificate_for_another_name_fails_for_both(ruler: Ruler) -> None:
    with origin(certificate=ruler.authority.issue("other", "DNS:web.example")) as service:
        check = check_of(f"https://127.0.0.1:{service.port}/hc")

        assert (ruler.prober.probe(check, 60).status, ruler.consul_says(check)) == ("critical", "critical")


def test_a_server_name_is_asked_for_and_verified(ruler: Ruler) -> None:
    with origin(certificate=ruler.authority.issue("named", "DNS:web.example")) as service:
        url = f"https://127.0.0.1:{service.port}/hc"

        good = ruler.prober.probe(check_of(url, tls_server_name="web.example"), 60)
        bad = ruler.prober.probe(check_of(url, tls_server_name="other.example"), 60)

        assert (good.status, bad.status) == ("passing", "critical")
        assert service.names == ["web.example", "other.example"]


def test_verification_can_be_skipped_without_a_warning(ruler: Ruler) -> None:
    with origin(certificate=ruler.authority.issue("any", "DNS:web.example")) as service, warnings.catch_warnings():
        warnings.simplefilter("error")
        check = check_of(f"https://127.0.0.1:{service.port}/hc", tls_skip_verify=True)

        assert (Prober(environ={}).probe(check, 60).status, ruler.consul_says(check)) == ("passing", "passing")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"tcp_use_tls": True, "tls_server_name": "web.example"}, "passing"),
        ({"tcp_use_tls": True, "tls_skip_verify": True}, "passing"),
        ({"tcp_use_tls": True}, "critical"),
        ({}, "passing"),
    ],
)
def test_a_tcp_check_with_tls_does_the_handshake(ruler: Ruler, fields: dict[str, Any], status: str) -> None:
    with origin(certificate=ruler.authority.issue("tcp", "DNS:web.example")) as service:
        check = Check(tcp=f"127.0.0.1:{service.port}", interval="1s", timeout="2s", **fields)

        assert ruler.prober.probe(check, 60).status == status


def test_a_server_that_never_finishes_the_handshake_does_not_outlast_the_check() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        check = check_of(f"https://127.0.0.1:{silent.getsockname()[1]}/", timeout="200ms")

        assert Prober(environ={}).probe(check, 60).failure == "timeout"


def test_checks_over_tls_are_left_to_an_agent_that_uses_its_own_certificate_for_them() -> None:
    """svcagent has not got it."""
    prober = Prober(is_agent_tls_used=True)
    checks = [
        check_of("https://127.0.0.1:1/"),
        check_of("http://127.0.0.1:1/"),
        Check(tcp="127.0.0.1:1", interval="1s", tcp_use_tls=True),
        Check(tcp="127.0.0.1:1", interval="1s"),
    ]

    assert [prober.can_probe(check) for check in checks] == [False, True, False, True]


@pytest.mark.parametrize("is_used", [True, False])
def test_a_consul_agent_says_whether_it_uses_its_own_certificate_for_checks(is_used: bool) -> None:
    with claimed() as ground:
        address = ground.address(1)
        environment = environment_in(ground.directory, ground.directory)
        more = {"enable_agent_tls_for_checks": is_used}
        server = parts.consul_server(ground.directory, address, environment, more)
        with server.running(), consul_at(f"{address}:8500") as consul:
            assert consul.agent_self().is_tls_used_for_checks is is_used


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_ipv6_addresses_work(ruler: Ruler, kind: str) -> None:
    with origin("::1", family=socket.AF_INET6) as service:
        where = f"http://[::1]:{service.port}/hc" if kind == "http" else f"[::1]:{service.port}"
        check = Check(interval="1s").replace(**{kind: where})

        assert (ruler.prober.probe(check, 60).status, ruler.consul_says(check)) == ("passing", "passing")


def test_every_address_of_a_name_is_tried(service: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may stand for ::1 first, where the service listens on 127.0.0.1 only."""
    found = socket.getaddrinfo

    def both(host: str, port: int, **how: Any) -> Any:
        if host != "web.test":
            return found(host, port, **how)
        if how.get("flags"):
            raise socket.gaierror
        return found("::1", port, **how) + found("127.0.0.1", port, **how)

    monkeypatch.setattr(socket, "getaddrinfo", both)

    assert Prober().probe(Check(tcp=f"web.test:{service.port}", interval="1s"), 60).status == "passing"


def test_a_resolver_that_does_not_answer_does_not_outlast_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver of libc has no timeout that could be set."""
    over = threading.Event()

    def hang(_host: str, _port: int, **how: Any) -> Any:
        if not how.get("flags"):
            over.wait(60)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        result = Prober().probe(Check(tcp="web.test:80", interval="1s", timeout="100ms"), 60)
    finally:
        over.set()

    assert (result.status, result.failure) == ("critical", "timeout")


@pytest.mark.parametrize("error", [RuntimeError, ValueError, UnicodeError, RecursionError, MemoryError, OSError])
def test_no_exception_leaves_a_probe(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(*_arguments: Any, **_options: Any) -> Any:
        raise error("odd\n\x1b[31m")

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    results: list[ProbeResult] = [
        Prober().probe(check_of("http://web.test/"), 1),
        Prober().probe(Check(tcp="web.test:80", interval="1s"), 1),
        Prober().warm_up("http://web.test/", 1),
    ]

    assert {result.status for result in results} == {"critical"}
    assert all(result.message.isprintable() for result in results)


@pytest.mark.parametrize("case", ["100 Continue without end", "103 Early Hints without end", "headers without end"])
def test_what_is_sent_slowly_without_end_does_not_outlast_the_limit(service: Origin, case: str) -> None:
    """The limit of the caller counts where it is shorter than the check's timeout."""
    service.answers["/check"] = JUDGED[case][0]
    clock = SystemClock()
    began = clock.monotonic()

    result = Prober().probe(check_of(f"http://127.0.0.1:{service.port}/check", timeout="60s"), 0.3)

    assert result.status == "critical"
    assert clock.monotonic() - began < 30  # the server would go on for ever


def test_a_huge_body_is_not_read_to_its_end(service: Origin) -> None:
    def pour(talk: Conversation) -> None:
        talk.say("HTTP/1.1 200 OK\r\n\r\n")
        while True:
            talk.connection.sendall(bytes(1 << 16))

    service.answers["/check"] = pour

    assert Prober().probe(check_of(f"http://127.0.0.1:{service.port}/check", timeout="60s"), 60).status == "passing"


def test_a_warm_up_request_ends_when_the_caller_says_so(service: Origin) -> None:
    """With an exception of the caller's, not as a failure of the service."""

    class LostError(Exception):
        pass

    def lost() -> None:
        raise LostError

    def hang(talk: Conversation) -> None:
        talk.connection.recv(1)

    service.answers["/a"] = hang

    with pytest.raises(LostError):
        Prober().warm_up(f"http://127.0.0.1:{service.port}/a", 60, lost)


def test_what_may_be_secret_in_a_url_is_not_repeated(service: Origin) -> None:
    service.answers["/hc?token=secret"] = answered("503 No")

    said = Prober().probe(check_of(f"http://me:secret@127.0.0.1:{service.port}/hc?token=secret"), 60).message

    assert "secret" not in said
    assert f"http://127.0.0.1:{service.port}/hc" in said


def test_a_proxy_of_the_environment_is_not_asked(service: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setitem(os.environ, name, "http://127.0.0.1:1")

    assert Prober().probe(check_of(f"http://127.0.0.1:{service.port}/"), 60).status == "passing"
