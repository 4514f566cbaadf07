"""Every exception that a server, a library or a file causes in an edge becomes a typed error."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import pytest

from agent.clock import SystemClock
from agent.cname.plan import RecordOutcome
from agent.cname.provider import RecordPlace
from agent.cname.queries import DnsServer
from agent.cname.route53 import _translated as aws  # the one place through which boto3's errors pass
from agent.cname.sync import CnameSync
from agent.consul import Consul, ask_dns
from agent.definitions import ConsulSettings
from agent.errors import ConsulUnreachable, DnsUnreachable, OutcomeUnknown, Rejected, SvcagentError
from agent.files import NotRegularFile, read_regular
from agent.metrics.textfile import HOST, RELOAD, Textfiles
from tests.support.kinds import raises_kind

OTHERS: tuple[object, ...] = (7.5, [[]], {"x": {}}, True, "x", -1)
NO_DNS = [b"", b"\x00", b"\x00\x03abc", b"\xff\xff" + b"\xff" * 100, b"HTTP/1.1 400 No\r\n\r\n"]
FOREIGN = [RuntimeError, OSError, ValueError, KeyError, RecursionError, MemoryError, AttributeError]


@contextmanager
def server(*answers: bytes, host: str = "127.0.0.1", asked: list[bytes] | None = None) -> Iterator[int]:
    """A server that gives these bytes to each connection in turn, the last again and again; its port.

    ``asked`` is given the first line of each request.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        left = list(answers)

        def serve() -> None:
            while True:
                try:
                    accepted, _address = listening.accept()
                except OSError:
                    return
                with accepted:
                    accepted.settimeout(5)
                    request = accepted.recv(1 << 16)
                    if asked is not None:
                        asked.append(request.partition(b"\r\n")[0])
                    accepted.sendall(left.pop(0) if len(left) > 1 else left[0])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def consul(port: int) -> Consul:
    return Consul(ConsulSettings(address=f"http://127.0.0.1:{port}", address_source="a test"))


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}", *headers))
    return head.encode() + b"\r\n\r\n" + body


CHECK = {
    "CheckID": "c",
    "Name": "n",
    "Status": "passing",
    "Notes": "",
    "ServiceID": "web",
    "Output": "",
    "Type": "http",
}
INSTANCE = {
    "Node": {"Node": "h1", "Address": "127.0.0.1"},
    "Service": {"ID": "web", "Address": "", "Port": 80},
    "Checks": [CHECK],
}
PAIR = {"Key": "k", "Value": "e30=", "Flags": 0, "Session": "s", "ModifyIndex": 1, "CreateIndex": 1}
INDEX = "X-Consul-Index: 7"

RAW = {
    "a page": http(b"<html>", "Content-Type: text/html"),
    "a page without a type": http(b"<html>"),
    "nothing": b"",
    "no HTTP": b"\x00\xff\x00\xff\r\n\r\n",
    "a bad status": b"HTTP/1.1 abc OK\r\n\r\n",
    "a bad length": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nConnection: close\r\n\r\n{",
    "a length that is not kept": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}",
    "bad chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n{}\r\n",
    "a huge header": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    "bad UTF-8": http(b'[{"Node": "\xff\xfe"}]', INDEX),
    "deep JSON": http(b"[" * 50_000 + b"]" * 50_000, INDEX),
    "a long number": http(b"9" * 4301, INDEX),
    "NaN": http(b"NaN", INDEX),
    "a text": http(b'"x"', INDEX),
    "a number": http(b"7", INDEX),
    "no index": http(json.dumps([INSTANCE]).encode()),
    "a bad index": http(json.dumps([INSTANCE]).encode(), "X-Consul-Index: x"),
    "a long index": http(json.dumps([INSTANCE]).encode(), f"X-Consul-Index: {'9' * 4301}"),
    "a negative index": http(json.dumps([INSTANCE]).encode(), "X-Consul-Index: -1"),
}

ASKED: dict[str, Callable[[Consul], object]] = {
    "instances": lambda found: found.instances("web"),
    "kv_get": lambda found: found.kv_get("k"),
    "kv_tree": lambda found: found.kv_tree("k/"),
    "node_checks": lambda found: found.node_checks("h1"),
    "services": lambda found: found.services(),
    "checks": lambda found: found.checks(),
    "agent_self": lambda found: found.agent_self(),
    "session": lambda found: found.session("s"),
    "service_hash": lambda found: found.service_hash("web"),
    "kv_keys": lambda found: found.kv_keys("k/"),
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
@pytest.mark.parametrize("asked", ["instances", "kv_get", "agent_self"])
def test_nonsense_in_consuls_place_is_an_agent_that_cannot_be_reached(raw: bytes, asked: str) -> None:
    with server(raw) as port:
        connection = consul(port)
        with pytest.raises(ConsulUnreachable):
            ASKED[asked](connection)
        connection.close()


def broken(document: Any) -> Iterator[Any]:
    """The document with each of its parts replaced by values of other types, one at a time."""
    if isinstance(document, dict):
        for key, value in document.items():
            for other in OTHERS:
                if type(other) is not type(value) and not (isinstance(value, int) and other == -1):
                    yield {**document, key: other}
            for inner in broken(value):
                yield {**document, key: inner}
    elif isinstance(document, list):
        for inner in broken(document[0]):
            yield [inner]


@pytest.mark.parametrize(
    ("asked", "document"),
    [("instances", [INSTANCE]), ("kv_tree", [PAIR]), ("kv_get", [PAIR]), ("node_checks", [CHECK])],
)
def test_a_field_of_another_type_is_an_agent_that_cannot_be_reached(asked: str, document: Any) -> None:
    answers = list(broken(document))
    assert len(answers) > 20
    with server(*(http(json.dumps(one).encode(), INDEX) for one in answers)) as port:
        for _one in answers:
            connection = consul(port)
            with pytest.raises(ConsulUnreachable):
                ASKED[asked](connection)
            connection.close()


def test_a_key_that_is_no_unicode_is_refused_before_it_is_sent() -> None:
    for act in (lambda: consul(1).kv_get("a/\ud800"), lambda: consul(1).kv_put("a", "\ud800")):
        with pytest.raises((Rejected, ConsulUnreachable)):
            act()


@pytest.mark.parametrize(("name", "host"), [("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")])
def test_a_dns_server_may_be_given_by_name(name: str, host: str) -> None:
    """Each address of the name is tried; dnspython itself takes addresses only."""
    with answering(host) as port:
        found = ask_dns((name, port), "web.service.dc1.consul", timeout=5)
    assert found.instances == frozenset({("192.0.2.1", 80)})


@contextmanager
def answering(host: str) -> Iterator[int]:
    """A DNS server over TCP on one address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:

        def serve() -> None:
            accepted, _address = listening.accept()
            with accepted:
                length = int.from_bytes(accepted.recv(2, socket.MSG_WAITALL), "big")
                query = dns.message.from_wire(accepted.recv(length, socket.MSG_WAITALL))
                answer = dns.message.make_response(query)
                owner = query.question[0].name
                answer.answer.append(dns.rrset.from_text(owner, 0, "IN", "SRV", "1 1 80 a.test."))
                answer.additional.append(dns.rrset.from_text("a.test.", 0, "IN", "A", "192.0.2.1"))
                wire = answer.to_wire()
                accepted.sendall(len(wire).to_bytes(2, "big") + wire)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        thread.join(5)


@pytest.mark.parametrize(
    "where",
    [("no-such-host.invalid", 53), ("a" * 64 + ".invalid", 53), ("a..b", 53), ("a\0b", 53), ("127.0.0.1", 70_000)],
)
def test_a_dns_server_that_cannot_be_resolved_is_a_typed_error_that_names_the_setting(where: tuple[str, int]) -> None:
    with pytest.raises(ConsulUnreachable, match="drain_dns"):
        ask_dns(where, "web.service.dc1.consul", timeout=1)
    with pytest.raises(DnsUnreachable):
        DnsServer(*where, timeout=1).ask("web.example.com.", "A")


@pytest.mark.parametrize(
    "answer", [b"", b"\x00", b"\x00\x03abc", b"\xff\xff" + b"\xff" * 100, b"HTTP/1.1 400 No\r\n\r\n"]
)
def test_nonsense_in_the_place_of_a_dns_answer_is_typed(answer: bytes) -> None:
    with server(answer) as port:
        with pytest.raises(ConsulUnreachable):
            ask_dns(("127.0.0.1", port), "web.service.dc1.consul", timeout=2)
        with pytest.raises(DnsUnreachable):
            DnsServer("127.0.0.1", port, timeout=2).ask("web.example.com.", "A")


@pytest.mark.parametrize("name", ["a" * 64, "a..b", "x." * 200])
def test_what_dns_cannot_be_asked_for_is_typed(name: str) -> None:
    with pytest.raises(ConsulUnreachable):
        ask_dns(("127.0.0.1", 1), name, timeout=1)
    with pytest.raises(Rejected):
        DnsServer("127.0.0.1", 1, timeout=1).ask(name, "A")


@pytest.mark.parametrize("kind", FOREIGN)
def test_every_exception_of_boto3_is_typed(kind: type[Exception]) -> None:
    with pytest.raises(Rejected), aws("x", is_write=False):
        raise kind
    with pytest.raises(OutcomeUnknown), aws("x", is_write=True):
        raise kind


@pytest.mark.parametrize("kind", FOREIGN)
def test_one_record_whose_provider_raises_keeps_no_other_from_its_turn(kind: type[Exception]) -> None:
    def provider_of(_name: str) -> Any:
        raise kind

    keeper = CnameSync(provider_of, lambda _target: True)
    place = RecordPlace("example.org.", "www.example.org.", "cname-www._svcagent.example.org.")
    assert keeper.remove(place, "broken", None, None).outcome is RecordOutcome.UNKNOWN


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_neither_waited_for_nor_touched(tmp_path: Path, make: Any) -> None:
    strange = tmp_path / "strange"
    make(strange)
    with pytest.raises((NotRegularFile, IsADirectoryError)):
        read_regular(strange)


def test_a_fifo_among_textfiles_blocks_nothing_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / HOST)
    os.mkfifo(tmp_path / RELOAD.format("gone"))
    os.mkfifo(tmp_path / RELOAD.format("web"))
    (tmp_path / RELOAD.format("old")).write_text("")
    (tmp_path / "linked").mkdir()
    files = Textfiles(tmp_path, SystemClock(), lambda _text: None)

    with raises_kind(SvcagentError, "not-regular-file"):
        files.update_host(lambda host: host.consul(is_up=True))
    with raises_kind(SvcagentError, "not-regular-file"):
        files.reloads_ended([{"service": "web"}])
    (tmp_path / HOST).unlink()
    files.converged(["web"], {}, [], 0)

    assert (tmp_path / HOST).is_file()
    assert not (tmp_path / RELOAD.format("old")).exists()
    assert (tmp_path / RELOAD.format("gone")).is_fifo()
    assert (tmp_path / RELOAD.format("web")).is_fifo()


def test_a_link_to_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / HOST).symlink_to(tmp_path / "fifo")
    with raises_kind(SvcagentError, "not-regular-file"):
        Textfiles(tmp_path, SystemClock(), lambda _text: None).update_host(lambda host: host.consul(is_up=True))
