"""What svcagent adds to each host's share of a rollout: the time between two hosts' releases of the lock.

Apart from it are the bare floor (Docker's own stop, create and start, and what the service needs to load) and settle,
which the definition asks for. Of each host the quickest of all rollouts counts: whatever disturbs one makes it slower.
"""

import argparse
import sys

from tests.lab.image import NAME
from tests.lab.lab import LOCK, Lab
from tests.lab.rollout import HostReport, Rollout
from tests.lab.server import svcagent_argv

LIMIT, LOAD_SECONDS = 0.4, 0.2


def added(report: HostReport) -> float:
    """Seconds of the share that neither Docker, the service nor settle needs."""
    return report.share - report.inevitable - report.steps.get("settle", 0.0)


def measured(rounds: int) -> list[HostReport]:
    """The reports of all hosts of all rollouts."""
    found: list[HostReport] = []
    with Lab(hosts=3) as lab:
        lab.push("1")
        for host in lab.hosts:
            lab.run_service(host, LOAD_SECONDS)
            lab.write_definition(host, interval="1s", lock=LOCK, settle={"canary": "0.3s", "each": "0.3s"})
            lab.command(host, *svcagent_argv(), "register").communicate()
        lab.wait_passing()
        for number in range(rounds):
            lab.push(str(number + 2))
            found += Rollout(lab, NAME).reports(LOAD_SECONDS)
            lab.wait_passing()
    return found


def main() -> int:
    """Measure, print, and say by the exit code whether the limit holds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    reports = measured(parser.parse_args().rounds)
    if failed := [report for report in reports if report.error]:
        print(f"{failed[0].name}: {failed[0].error}")
        return 1
    best = min(reports, key=added)
    print(f"{'share of a host, between two releases of the lock':<52} {best.share:7.3f} s")
    print(f"{'floor: docker stop, create, start, and loading':<52} {best.inevitable:7.3f} s")
    print(f"{'settle':<52} {best.steps.get('settle', 0.0):7.3f} s")
    print(f"{'svcagent adds':<52} {added(best):7.3f} s  limit {LIMIT} s")
    for step, seconds in best.steps.items():
        print(f"  {step:<50} {seconds:7.3f} s")
    return 0 if added(best) <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
