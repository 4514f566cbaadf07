"""What the daemon costs while nothing happens: resident memory, processor time and requests to Consul.

The peer in the same run is a Python process that has imported the same libraries and sleeps: what svcagent itself needs
beyond it is shown as a ratio. Requests are counted by Consul, in its log.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.registration import write
from tests.lab import parts
from tests.lab.ground import Ground, claimed, wait_until
from tests.lab.host import environment_in
from tests.lab.server import svcagent_argv

MEMORY_LIMIT_MB = 45.0
PROCESSOR_LIMIT = 0.001
"""Of one processor: 60 ms a minute, most of them one convergence."""
REQUESTS_LIMIT = 1.0
"""A minute and service."""
SETTLE_SECONDS = 10.0
"""What starting costs is not what resting costs: the measurement begins so long after the start is over."""
LIBRARIES = "import apscheduler.schedulers.asyncio, asyncio, click, consul, cronsim, watchdog.observers"

_REQUEST = re.compile(r"Request finished: .*?method=(\w+) .*?url=(\S+)")


def kilobytes(pid: int, field: str) -> int:
    """A field of the process's status, with all of its children's."""
    text = Path(f"/proc/{pid}/status").read_text()
    own = int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1])  # type: ignore[index]  # Linux has them
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(kilobytes(int(child), field) for child in children)


def processor_seconds(pid: int) -> float:
    """User and system time so far, of ended children too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def daemon_environment(ground: Ground, address: str) -> dict[str, str]:
    """For a daemon beside the Consul agent at that address, its files where the bench is."""
    return environment_in(ground.directory, ground.directory) | {
        "CONSUL_HTTP_ADDR": f"{address}:8500",
        "SVCAGENT_SERVICES_DIR": str(ground.directory / "services.d"),
        "SVCAGENT_STATE_DIR": str(ground.directory / "state"),
        "SVCAGENT_STATUS_FILE": str(ground.directory / "status.json"),
    }


def main() -> int:
    """Measure, print, and say by the exit code whether the limits hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    with claimed() as ground:
        address, directory, state = ground.address(1), ground.directory / "services.d", ground.directory / "state"
        state.mkdir(mode=0o700)
        environment = daemon_environment(ground, address)
        write(directory, options.services)
        server = parts.consul_server(ground.directory, address, environment, {"log_level": "DEBUG"})
        server.start()
        daemon = peer = None
        try:
            server.wait_ready()
            peer = subprocess.Popen([sys.executable, "-c", f"{LIBRARIES}; input()"], stdin=subprocess.PIPE)
            with (ground.directory / "daemon.log").open("wb") as log:
                daemon = subprocess.Popen([*svcagent_argv(), "run"], env=environment, stderr=log)

            def is_ready() -> bool:
                status = subprocess.run(
                    [*svcagent_argv(), "--json", "status"], env=environment, capture_output=True, check=False
                )
                return status.returncode == 0 and bool((json.loads(status.stdout).get("daemon") or {}).get("is_ready"))

            wait_until(is_ready, 60, "the daemon has converged", every=0.5)
            time.sleep(SETTLE_SECONDS)
            seen = len(_REQUEST.findall(server.log.read_text()))
            used, began, most = processor_seconds(daemon.pid), time.monotonic(), 0
            while time.monotonic() - began < 60 * options.minutes:
                most = max(most, kilobytes(daemon.pid, "VmRSS"))
                time.sleep(1)  # between two looks at its memory
            took = time.monotonic() - began
            share = (processor_seconds(daemon.pid) - used) / took
            requests = _REQUEST.findall(server.log.read_text())[seen:]
            least = kilobytes(peer.pid, "VmRSS")
        finally:
            for process in (daemon, peer):
                if process is not None:
                    process.terminate()
                    process.wait(30)
            server.discard()
    a_minute = len(requests) / options.services / (took / 60)
    print(f"{options.services} services, idle for {took / 60:.1f} minutes")
    megabytes, bare = most / 1024, least / 1024
    print(
        f"resident memory, the most      {megabytes:7.1f} MB  {megabytes / bare:.2f} x its libraries alone "
        f"({bare:.1f} MB), limit {MEMORY_LIMIT_MB:.0f} MB"
    )
    print(f"processor time                 {100 * share:7.3f} %   limit {100 * PROCESSOR_LIMIT:.2f} % of one processor")
    print(f"requests to Consul             {a_minute:7.3f}     a minute and service, limit {REQUESTS_LIMIT:.0f}")
    for request in sorted(set(requests)):
        print(f"    {requests.count(request):5d} x {' '.join(request)[:100]}")
    holds = megabytes < MEMORY_LIMIT_MB and share < PROCESSOR_LIMIT and a_minute <= REQUESTS_LIMIT
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
