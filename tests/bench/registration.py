"""How long registering takes, against the bare HTTP calls and against ``consul services register``, in one run.

svcagent is measured as a process, from its start to its end; of the bare calls nothing counts but the calls.
"""

import argparse
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from agent.definitions import load
from agent.registration import registration
from tests.lab import asking, parts
from tests.lab.ground import claimed
from tests.lab.host import environment_in
from tests.lab.server import svcagent_argv

BARE_LIMIT, UNCHANGED_LIMIT, CONSUL_LIMIT = 1.3, 0.5, 5.0
ROUNDS = 5
"""Of each the fastest counts: whatever disturbs a measurement makes it slower."""


def write(directory: Path, count: int) -> None:
    """Services as hosts have them: one HTTP check each."""
    directory.mkdir()
    for number in range(count):
        check = {"http": f"http://127.0.0.1:1/{number}", "interval": "1h", "timeout": "5s"}
        service = {"name": f"s{number:04}", "tags": ["production"], "port": 8080, "checks": [check]}
        (directory / f"s{number:04}.json").write_text(json.dumps({"service": service}))


def bare(address: str, bodies: Iterable[str]) -> None:
    """These bodies over one kept-alive connection, and nothing else."""
    connection = http.client.HTTPConnection(address, 8500)
    for body in bodies:
        connection.request("PUT", "/v1/agent/service/register", body)
        if connection.getresponse().read():
            raise RuntimeError("the agent refused a registration")
    connection.close()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    """Measure, print, and say by the exit code whether the limits hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=1000)
    count = parser.parse_args().services
    with claimed() as ground:
        address, directory = ground.address(1), ground.directory / "services.d"
        environment = environment_in(ground.directory, ground.directory)
        environment |= {"CONSUL_HTTP_ADDR": f"{address}:8500", "SVCAGENT_SERVICES_DIR": str(directory)}
        server = parts.consul_server(ground.directory, address, environment)
        ask = asking.Consul(f"http://{address}:8500")
        write(directory, count)
        bodies = [json.dumps(registration(definition.service)) for definition in load(directory)]

        def run(*argv: str) -> None:
            subprocess.run(argv, env=environment, check=True, stdout=subprocess.DEVNULL)

        def register() -> None:
            run(*svcagent_argv(), "register")

        def cleared() -> None:
            for service_id in ask.get("/v1/agent/services"):
                ask.deregister_service(service_id)

        server.start()
        try:
            server.wait_ready()
            # In turns, now the one and now the other first: what else the machine does falls on both.
            turns = [lambda: bare(address, bodies), register]
            took: list[list[float]] = [[], []]
            for round_number in range(ROUNDS):
                for which in (0, 1) if round_number % 2 else (1, 0):
                    took[which].append(seconds(turns[which]))
                    cleared()
            register()
            unchanged = min(seconds(register) for _ in range(2 * ROUNDS))
            cleared()
            few = sorted(directory.iterdir())[: max(1, count // 10)]
            consul = sum(seconds(partial(run, "consul", "services", "register", str(file))) for file in few)
            consul *= count / len(few)
        finally:
            ask.close()
            server.discard()
    calls, first = map(min, took)
    rows = [
        (f"bare HTTP calls, one connection, {count} services", calls, ""),
        ("svcagent register, the first time", first, f"{first / calls:.2f} x bare, limit {BARE_LIMIT}"),
        ("svcagent register, unchanged", unchanged, f"limit {UNCHANGED_LIMIT} s"),
        ("consul services register, one file a call", consul, f"{consul / first:.1f} x svcagent, limit {CONSUL_LIMIT}"),
    ]
    for what, took, ratio in rows:
        print(f"{what:<52} {took:7.2f} s  {ratio}")
    holds = first <= BARE_LIMIT * calls and unchanged <= UNCHANGED_LIMIT and consul >= CONSUL_LIMIT * first
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
