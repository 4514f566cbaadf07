"""The watch over Consul's agent, where there is something that nothing can cut off."""

import socket
import time
from contextlib import ExitStack
from pathlib import Path

from agent.clock import SystemClock
from agent.consul import Consul
from agent.daemon.agent_watch import STOP_SECONDS, AgentWatch
from agent.definitions import Settings
from tests.lab.ground import wait_until

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
