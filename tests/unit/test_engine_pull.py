"""Adding a pull's events up, ending a pull, and restart policies as text."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.engine.connection import EngineConnection
from agent.engine.model import PullProgress, policy_document, policy_text
from agent.engine.pull import Tally, pull
from agent.engine.reference import parse
from agent.errors import RegistryUnreachable
from tests.support.http import QuietHandler, serving


def after(*events: dict[str, Any]) -> PullProgress:
    tally = Tally()
    for event in events:
        tally.add(event)
    return tally.progress


def event(layer: str, status: str, current: int | None = None, total: int | None = None) -> dict[str, Any]:
    detail = {key: value for key, value in (("current", current), ("total", total)) if value is not None}
    return {"id": layer, "status": status, "progressDetail": detail}


SECONDS = {"id": "a", "status": "Extracting", "progressDetail": {"current": 2, "units": "s"}}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([event("latest", "Pulling from app")], (0, 0, 0, 0)),
        ([{"status": "Digest: sha256:0"}], (0, 0, 0, 0)),
        ([event("a", "Pulling fs layer"), event("b", "Waiting")], (0, 2, 0, 0)),
        ([event("a", "Already exists"), event("b", "Pulling fs layer")], (1, 2, 0, 0)),
        ([event("a", "Downloading", 10, 100), event("b", "Downloading", 5, 50)], (0, 2, 15, 150)),
        ([event("a", "Downloading", 10, 100), event("a", "Verifying Checksum")], (0, 1, 100, 100)),
        ([event("a", "Downloading", 90, 100), event("a", "Extracting", 20, 100)], (0, 1, 100, 100)),
        ([event("a", "Downloading", 90, 100), event("a", "Pull complete")], (1, 1, 100, 100)),
        ([event("a", "Downloading", 7, -1)], (0, 1, 7, 7)),
        ([event("a", "Downloading", 7, 9), event("a", "Retrying in 5 seconds")], (0, 1, 7, 9)),
    ],
)
def test_events_add_up_by_layer(events: list[dict[str, Any]], expected: tuple[int, ...]) -> None:
    assert after(*events) == PullProgress(*expected)


@pytest.mark.parametrize(
    ("before", "again", "is_new"),
    [
        (event("a", "Downloading", 5, 9), event("a", "Downloading", 5, 9), False),
        (event("a", "Downloading", 5, 9), event("a", "Downloading", 6, 9), True),
        (event("a", "Downloading", 5, 9), event("a", "Download complete"), True),
        (event("a", "Waiting"), event("a", "Waiting"), False),
        (event("a", "Extracting", 5, 9), event("a", "Extracting", 6, 9), True),
        (SECONDS | {"progressDetail": {"current": 1, "units": "s"}}, SECONDS, False),
        (event("a", "Download complete"), SECONDS, True),
        ({"status": "Digest: sha256:0"}, {"status": "Digest: sha256:0"}, False),
    ],
)
def test_repeated_or_counting_events_are_no_news(before: dict[str, Any], again: dict[str, Any], is_new: bool) -> None:
    """An Engine repeats them ten times a second while nothing moves."""
    tally = Tally()

    assert tally.add(before)
    assert tally.add(again) is is_new


# Recorded from Engine 26.1.5 with the containerd image store, while the registry was silent in the middle of a layer.
STALLED: list[dict[str, Any]] = [
    {"status": "Pulling from app", "id": "127.0.0.1:5000/app@sha256:bc6c0850e7a5"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "e6dc3faebfe5"},
    {"status": "Downloading", "progressDetail": {"current": 1048576, "total": 4219334}, "id": "e6dc3faebfe5"},
    {"status": "Downloading", "progressDetail": {"current": 2097152, "total": 4219334}, "id": "e6dc3faebfe5"},
    *[{"status": "Downloading", "progressDetail": {"current": 2097152, "total": 4219334}, "id": "e6dc3faebfe5"}] * 20,
]


def test_a_pull_that_stalls_with_the_containerd_store_says_nothing_new_though_events_keep_coming() -> None:
    tally = Tally()

    assert [tally.add(one) for one in STALLED] == [True] * 4 + [False] * 20
    assert tally.is_fetching


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], True),
        ([event("latest", "Pulling from app")], True),
        ([event("a", "Download complete"), event("b", "Waiting")], True),
        ([event("a", "Extracting", 5, 9), event("b", "Retrying in 5 seconds")], True),
        ([event("a", "Extracting", 5, 9), event("b", "Download complete")], False),
        ([event("a", "Already exists"), event("b", "Pull complete")], False),
    ],
)
def test_a_pull_is_fetching_until_every_layer_is_here(events: list[dict[str, Any]], expected: bool) -> None:
    """The extraction has more time than a download."""
    tally = Tally()
    for one in events:
        tally.add(one)

    assert tally.is_fetching is expected


@pytest.fixture
def stalled_engine() -> Iterator[tuple[str, threading.Event]]:
    """The address of an Engine whose pulls repeat one event for ever, and what is set when the client has gone."""
    gone, over = threading.Event(), threading.Event()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"ApiVersion": "1.41"}).encode())

        def do_POST(self) -> None:
            self.protocol_version = "HTTP/1.1"
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            line = json.dumps(event("a", "Downloading", 1, 2)).encode() + b"\n"
            try:
                while not over.wait(0.01):
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            except OSError:
                gone.set()

    with serving(Handler) as address:
        try:
            yield f"tcp://{address}", gone
        finally:
            over.set()


def _fail(_progress: PullProgress) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("progress", "error"), [(_fail, ZeroDivisionError), (lambda _progress: None, RegistryUnreachable)]
)
def test_the_engine_sees_that_a_pull_was_given_up(
    stalled_engine: tuple[str, threading.Event],
    progress: Callable[[PullProgress], None],
    error: type[Exception],
) -> None:
    """It stops to pull when the connection ends, and only then."""
    address, gone = stalled_engine
    docker = EngineConnection(address, {})

    with pytest.raises(error):
        pull(docker, SystemClock(), parse("registry.test/app"), f"sha256:{'0' * 64}", progress, timeout=0.2)

    assert gone.wait(10)
    docker.close()


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"Name": "no", "MaximumRetryCount": 0}, "no"),
        ({"Name": "", "MaximumRetryCount": 0}, "no"),
        ({"Name": "unless-stopped", "MaximumRetryCount": 0}, "unless-stopped"),
        ({"Name": "on-failure", "MaximumRetryCount": 0}, "on-failure"),
        ({"Name": "on-failure", "MaximumRetryCount": 3}, "on-failure:3"),
    ],
)
def test_a_restart_policy_is_written_as_docker_run_takes_it(document: dict[str, Any], text: str) -> None:
    assert policy_text(document) == text
    assert policy_text(policy_document(text)) == text
