"""A socket proxy in front of the Engine that does not let everything through, as haproxy answers for it."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from agent.clock import SystemClock
from agent.engine.client import Engine
from agent.engine.survey import EngineSurvey
from agent.errors import Denied
from tests.support.http import QuietHandler, serving

FORBIDDEN = b"<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>\n"
DIGEST = "sha256:" + "0" * 64


class Proxy(QuietHandler):
    """Lets nothing through but the question for the version. ``status``: what it answers to all else."""

    status = 403

    def do_GET(self) -> None:
        is_version = self.path == "/version"
        body = json.dumps({"Version": "26.1.5", "ApiVersion": "1.45"}).encode() if is_version else FORBIDDEN
        self.send_response(200 if is_version else self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()


@contextmanager
def proxy(status: int = 403) -> Iterator[str]:
    with serving(type("Answering", (Proxy,), {"status": status})) as address:
        yield f"tcp://{address}"


@pytest.fixture
def engine() -> Iterator[Engine]:
    with proxy() as address, closing(Engine(address, {}, SystemClock())) as engine:
        yield engine


@pytest.mark.parametrize("status", [403, 404, 405, 501])
def test_the_doctor_names_what_a_socket_proxy_refuses_however_it_answers(status: int) -> None:
    with proxy(status) as address, closing(EngineSurvey(address, {})) as survey:
        refused = {one.section for one in survey.refused_sections()}

    assert {"GET /containers", "POST /containers", "DELETE /images"} <= refused


def test_what_a_socket_proxy_refuses_is_blamed_on_it_and_not_on_the_registry(engine: Engine) -> None:
    """The message names the section of the API to allow."""
    with pytest.raises(Denied, match="socket proxy, allow DISTRIBUTION there") as asked:
        engine.registry_digest("registry.example.com/app:latest")
    with pytest.raises(Denied, match="allow IMAGES and POST there") as pulled:
        engine.pull("registry.example.com/app:latest", DIGEST, lambda _: None)
    with pytest.raises(Denied, match="allow CONTAINERS there"):
        engine.find("app")

    for caught in (asked, pulled):
        assert "docker login" not in str(caught.value)
        assert "<html>" not in str(caught.value)
