"""The long run: reloads killed at moments that seeds choose, each repaired and checked, with clients all the while.

Repeatable by its seeds. On a machine of 2 cores a kill with its repair takes about 4 s, so 1,000 take some 70 minutes.
"""

import argparse
import sys
import time

from tests.fleet.conftest import start
from tests.fleet.crash import assert_survives_random_kills
from tests.lab.lab import Lab

A_SEED = 50
"""Kills with one seed."""


def main() -> int:
    """Kill, print a line for each seed, and say by the exit code whether every instance came back."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1000, help="the first of the seeds")
    asked = parser.parse_args()
    began, done, seed = time.monotonic(), 0, asked.seed
    with Lab(2) as lab:
        fleet = start(lab, 0.2)
        while done < asked.kills:
            count = min(A_SEED, asked.kills - done)
            try:
                assert_survives_random_kills(fleet, seed, count)
            except AssertionError as error:
                print(f"seed {seed}: {error}")
                return 1
            done, seed = done + count, seed + 1
            print(f"{done} kills, every instance back, no request lost, {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
