"""How long svcagent takes from its start to its end where there is nothing to do, beside its rivals in the same run.

A reload with nothing new is measured beside the script's question (``docker pull`` under ``consul lock``) and beside
``docker pull`` alone, the floor; all else beside Python that does nothing.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping

from tests.lab.image import NAME
from tests.lab.lab import LOCK, Lab
from tests.lab.server import svcagent_argv

RELOAD_LIMIT, HELP_LIMIT = 3.0, 3.0
SCRIPT, FLOOR, PYTHON = "consul lock, docker pull", "docker pull", "python -c pass"
RELOAD, HELP = f"svcagent reload {NAME}", "svcagent --help"


def commands(image: str) -> dict[str, tuple[str, ...]]:
    """What is measured, by the name it is printed under."""
    own = svcagent_argv()
    pull = ("docker", "pull", "--quiet", image)
    return {
        FLOOR: pull,
        SCRIPT: ("consul", "lock", f"{LOCK}_script", " ".join(pull)),
        RELOAD: (*own, "reload", NAME),
        PYTHON: (sys.executable, "-c", "pass"),
        HELP: (*own, "--help"),
        "svcagent validate": (*own, "validate"),
        "svcagent register, unchanged": (*own, "register"),
    }


def seconds(argv: tuple[str, ...], environment: Mapping[str, str]) -> float:
    """How long the process takes, which must succeed."""
    start = time.perf_counter()
    subprocess.run(argv, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measured(rounds: int) -> dict[str, float]:
    """Of each command the fastest run counts, taken in turns: whatever disturbs a measurement makes it slower."""
    with Lab(hosts=1) as lab:
        (host,) = lab.hosts
        lab.push("1")
        lab.run_service(host)
        lab.write_definition(host, lock=LOCK)
        seconds((*svcagent_argv(), "register"), host.environment())
        found = commands(f"{lab.repository}:latest")
        took: dict[str, float] = {}
        for _ in range(rounds):
            for name, argv in found.items():
                took[name] = min(took.get(name, 60.0), seconds(argv, host.environment()))
    return took


def main() -> int:
    """Measure, print, and say by the exit code whether the limits hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    took = measured(parser.parse_args().rounds)
    limits = {RELOAD: RELOAD_LIMIT, HELP: HELP_LIMIT}
    holds = True
    for name, value in took.items():
        rival = SCRIPT if name in (FLOOR, SCRIPT, RELOAD) else PYTHON
        ratio = value / took[rival]
        limit = f", limit {limits[name]:g}" if name in limits else ""
        holds = holds and ratio <= limits.get(name, ratio)
        print(f"{name:<32} {1000 * value:6.0f} ms  {ratio:5.2f} x {rival}{limit}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
