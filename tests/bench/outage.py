"""The daemon while its Consul agent is away for long: what it says, what it costs, and how soon all is well again.

While the agent is away a definition is added. The agent comes back with nothing of what it held.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time

import requests

from tests.bench.idle import daemon_environment, processor_seconds
from tests.bench.registration import write
from tests.lab import asking, parts
from tests.lab.ground import LabError, claimed, wait_until
from tests.lab.server import svcagent_argv

BACK_LIMIT_SECONDS = 1.0
LINES_LIMIT = 2
"""One warning and one "back"; each service that is registered anew has a line of its own."""


def main() -> int:
    """Measure, print, and say by the exit code whether the limits hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    with claimed() as ground:
        address, directory, state = ground.address(1), ground.directory / "services.d", ground.directory / "state"
        state.mkdir(mode=0o700)
        environment = daemon_environment(ground, address)
        write(directory, options.services)
        leader = parts.consul_server(ground.directory, ground.address(2), environment)
        home = ground.directory / "host1"
        home.mkdir()
        agent = parts.consul_agent("host1", home, address, ground.address(2), environment)
        ask = asking.Consul(f"http://{address}:8500")
        log = ground.directory / "daemon.log"
        leader.start()
        agent.start()
        daemon = None
        try:
            leader.wait_ready()
            agent.wait_ready()
            with log.open("wb") as stream:
                daemon = subprocess.Popen([*svcagent_argv(), "run"], env=environment, stderr=stream)
            wait_until(lambda: len(ask.get("/v1/agent/services")) == options.services, 30, "all are registered")
            before = log.read_text().splitlines()
            agent.kill()
            used, began = processor_seconds(daemon.pid), time.monotonic()
            half = 30 * options.minutes
            time.sleep(half)  # not a wait for anything: this is the outage
            (directory / "new.json").write_text(json.dumps({"service": {"name": "new", "port": 80}}))
            time.sleep(half)
            share = (processor_seconds(daemon.pid) - used) / (time.monotonic() - began)
            shutil.rmtree(home / "consul")
            agent.start()
            wait_until(lambda: _answers(ask), 60, "the agent answers", every=0.005)
            came = time.monotonic()
            wait_until(lambda: len(ask.get("/v1/agent/services")) == options.services + 1, 60, "all are there again")
            back = time.monotonic() - came
            wait_until(lambda: "back after" in log.read_text(), 10, "the daemon says so")
            lines = [line for line in log.read_text().splitlines()[len(before) :] if ": registered: " not in line]
        finally:
            if daemon is not None:
                daemon.terminate()
                daemon.wait(30)
            ask.close()
            agent.discard()
            leader.discard()
    print(f"{options.services} services, Consul away for {options.minutes:g} minutes")
    print(f"all registered again, and the new one {back:7.2f} s after its first answer, limit {BACK_LIMIT_SECONDS:g} s")
    print(f"lines logged                          {len(lines):4d}     limit {LINES_LIMIT}")
    print(f"processor time meanwhile              {100 * share:7.2f} %")
    for line in lines:
        print(f"    {line}")
    return 0 if back <= BACK_LIMIT_SECONDS and len(lines) == LINES_LIMIT else 1


def _answers(ask: asking.Consul) -> bool:
    try:
        ask.get("/v1/agent/services")
    except (requests.RequestException, LabError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
