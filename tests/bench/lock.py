"""What waiting for the lock costs in Raft writes and time: svcagent's line beside ``consul lock``, in one run.

Everybody waits for a lock that is held, is let go at the same moment, holds it for no time at all and leaves. The
writes are all there are, from before the first has a session until after the last has none.
"""

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from agent.clock import Deadline, SystemClock
from agent.consul import Consul, Lock
from agent.definitions import Settings
from tests.lab import asking, parts
from tests.lab.ground import claimed, wait_until
from tests.lab.host import environment_in
from tests.lab.server import spawn

WRITES_LIMIT, MILLISECONDS_LIMIT = 6.0, 30.0
CLOCK = SystemClock()
# Every waiter has two connections, and all of them come from one address here; a host has one waiter or two.
CONFIG = {"limits": {"http_max_conns_per_client": 5000}, "disable_coordinates": True}
PATIENCE = 600.0


@dataclass(frozen=True)
class Cost:
    writes: float
    milliseconds: float


class Lab:
    """The server, and what is asked of it."""

    def __init__(self, ask: asking.Consul, environment: dict[str, str]) -> None:
        self.ask = ask
        self.environment = environment
        self.settings = Settings.load(None, environment).consul

    def writes(self) -> int:
        """Entries of the Raft log so far."""
        return int(self.ask.get("/v1/agent/self")["Stats"]["raft"]["applied_index"])

    def sessions(self, prefix: str) -> int:
        """How many hold a lock or wait for it."""
        return sum(one["Name"].endswith(f" at '{prefix}'") for one in self.ask.get("/v1/session/list"))

    def await_sessions(self, prefix: str, count: int) -> None:
        wait_until(lambda: self.sessions(prefix) == count, 120, f"{count} sessions for {prefix}", every=0.1)

    @contextmanager
    def lock(self, prefix: str) -> Iterator[Lock]:
        details = {"node": "bench", "pid": 1, "command": "svcagent reload"}
        with (
            closing(Consul(self.settings)) as consul,
            Lock(consul, prefix, "svcagent reload bench", details, CLOCK) as lock,
        ):
            yield lock


def measured(lab: Lab, prefix: str, count: int, join: Callable[[], Callable[[], None]]) -> Cost:
    """``join`` lets all of them wait, and returns what waits for their end."""
    with lab.lock(prefix) as first:
        first.acquire(Deadline.after(CLOCK, 10))
        before = lab.writes()
        await_end = join()
        lab.await_sessions(prefix, count + 1)
        began = time.perf_counter()
        first.release()
        await_end()
        took = time.perf_counter() - began
    lab.await_sessions(prefix, 0)
    return Cost((lab.writes() - before) / count, took / count * 1000)


def consul_lock(lab: Lab, prefix: str, count: int) -> Callable[[], None]:
    argv = ["consul", "lock", prefix, "true"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = [spawn(argv, lab.environment, **quiet) for _ in range(count)]

    def await_end() -> None:
        if any(process.wait(PATIENCE) for process in running):
            raise RuntimeError("a consul lock failed")

    return await_end


def svcagent_lock(lab: Lab, prefix: str, count: int, order: list[int]) -> Callable[[], None]:
    """Threads with sessions and connections of their own, one behind the other; ``order`` is that of holding."""
    queue = f"/v1/kv/svcagent/{prefix}/queue/?keys"

    def wait(number: int) -> None:
        with lab.lock(prefix) as lock:
            lock.acquire(Deadline.after(CLOCK, PATIENCE))
            order.append(number)

    threads = []
    lab.ask.put(f"/v1/kv/svcagent/{prefix}/queue/", 1)  # Consul answers 404 for a listing of none
    for number in range(count):
        thread = threading.Thread(target=wait, args=(number,))
        thread.start()
        threads.append(thread)
        wait_until(lambda at=number + 2: len(lab.ask.get(queue)) == at, 30, "it stands in the line", every=0.002)  # type: ignore[misc]

    def await_end() -> None:
        for thread in threads:
            thread.join(PATIENCE)

    return await_end


@contextmanager
def consul_server() -> Iterator[Lab]:
    with claimed() as ground:
        address = ground.address(1)
        environment = environment_in(ground.directory, ground.directory) | {"CONSUL_HTTP_ADDR": f"{address}:8500"}
        server = parts.consul_server(ground.directory, address, environment, CONFIG)
        ask = asking.Consul(f"http://{address}:8500")
        server.start()
        try:
            server.wait_ready()
            yield Lab(ask, environment)
        finally:
            ask.close()
            server.discard()


def main() -> int:
    """Measure, print, and say by the exit code whether the limits hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--waiters", type=int, default=200, help="of svcagent")
    parser.add_argument("--consul-lock", type=int, default=50, help="of consul lock")
    chosen = parser.parse_args()
    order: list[int] = []
    with consul_server() as lab:
        count = chosen.consul_lock
        theirs = measured(lab, "theirs", count, lambda: consul_lock(lab, "theirs", count))
        waiters = chosen.waiters
        ours = measured(lab, "ours", waiters, lambda: svcagent_lock(lab, "ours", waiters, order))
    for what, cost in ((f"consul lock, {count} waiters", theirs), (f"svcagent, {waiters} waiters", ours)):
        print(f"{what:<28} {cost.writes:7.2f} Raft writes  {cost.milliseconds:7.1f} ms   per hand-over")
    print(
        f"{'consul lock / svcagent':<28} {theirs.writes / ours.writes:7.2f} x            "
        f"{theirs.milliseconds / ours.milliseconds:7.1f} x    "
        f"limits of svcagent: {WRITES_LIMIT:g} writes, {MILLISECONDS_LIMIT:g} ms, order of arrival"
    )
    is_in_order = order == list(range(waiters))
    if not is_in_order:
        print("svcagent's waiters did not come in order of arrival")
    holds = is_in_order and ours.writes <= WRITES_LIMIT and ours.milliseconds <= MILLISECONDS_LIMIT
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
