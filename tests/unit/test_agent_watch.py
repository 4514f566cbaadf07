"""The watch over Consul's agent: what an answer about the canary means, and its end while nobody answers."""

import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.consul import Consul
from agent.daemon.agent_watch import STOP_SECONDS, AgentWatch, SeenRegistrations, after_answer
from agent.definitions import Settings
from tests.lab.ground import wait_until


@pytest.mark.parametrize(
    ("seen", "answer", "expected", "is_waking"),
    [
        # Asked for the first time.
        (SeenRegistrations("web"), "1", SeenRegistrations("web", "1"), False),
        (SeenRegistrations("web"), None, SeenRegistrations("web", None), True),
        # As it was.
        (SeenRegistrations("web", "1"), "1", SeenRegistrations("web", "1"), False),
        # Defined otherwise: by the convergence or by hand, so it is converged, and then asked for anew.
        (SeenRegistrations("web", "1"), "2", SeenRegistrations("web", ""), True),
        # Gone: told once, for it may not come back.
        (SeenRegistrations("web", "1"), None, SeenRegistrations("web", None), True),
        (SeenRegistrations("web", None), None, SeenRegistrations("web", None), False),
        (SeenRegistrations("web", None), "1", SeenRegistrations("web", "1"), False),
        # The agent was away, and whatever it says, it is back.
        (SeenRegistrations("web", "1", is_away=True), "1", SeenRegistrations("web", ""), True),
        (SeenRegistrations("web", "", is_away=True), "1", SeenRegistrations("web", ""), True),
        (SeenRegistrations("web", None, is_away=True), None, SeenRegistrations("web", None), True),
        # Without a canary there is only here and away.
        (SeenRegistrations(), None, SeenRegistrations(known=None), False),
        (SeenRegistrations(known=None), None, SeenRegistrations(known=None), False),
        (SeenRegistrations(known=None, is_away=True), None, SeenRegistrations(known=None), True),
        (SeenRegistrations(is_away=True), "1", SeenRegistrations(known=None), True),
    ],
)
def test_waking_answers(
    seen: SeenRegistrations, answer: str | None, expected: SeenRegistrations, is_waking: bool
) -> None:
    """A convergence is woken when it may have something to do, and not again before that can have changed."""
    assert after_answer(seen, answer) == (expected, is_waking)


def test_another_canary_is_queried_again() -> None:
    assert SeenRegistrations("web", "1").with_canary("web") == SeenRegistrations("web", "1")
    assert SeenRegistrations("web", "1", is_away=True).with_canary("api") == SeenRegistrations("api", "", is_away=True)


SYN_SENT = "02"
"""In the fourth column of /proc/net/tcp (proc(5)); the third one is the other end."""


def test_it_stops_while_it_connects() -> None:
    """A host that does not even refuse a connection holds up no daemon that is to end."""
    with ExitStack() as open_sockets:
        full = open_sockets.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):  # what the kernel takes for a program that takes nothing
            waiting = open_sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        address = "{}:{}".format(*full.getsockname())
        consul = Consul(Settings.load(None, {"CONSUL_HTTP_ADDR": address}).consul)
        watch = AgentWatch(consul, SystemClock(), lambda: None)
        before = _connecting_to(full)
        watch.start()
        wait_until(lambda: _connecting_to(full) > before, 10, "it is connecting")

        began = time.monotonic()
        watch.stop()

        assert time.monotonic() - began < STOP_SECONDS + 0.5


def _connecting_to(server: socket.socket) -> int:
    end = f":{server.getsockname()[1]:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(line[2].endswith(end) and line[3] == SYN_SENT for line in lines[1:])
