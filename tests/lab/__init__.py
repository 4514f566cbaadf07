"""A fleet of real servers on one machine, for tests and the demo: see `Lab`, `Load` and `run_origin`.

Knows nothing of svcagent's insides: it starts it as a user would.
"""

from tests.lab.ground import LabError, wait_until
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.origin import OriginRun, run_origin
from tests.lab.server import Server
from tests.lab.traffic import Failure, Load, Snapshot, Summary

__all__ = [
    "Failure",
    "Host",
    "Lab",
    "LabError",
    "Load",
    "OriginRun",
    "Server",
    "Snapshot",
    "Summary",
    "run_origin",
    "wait_until",
]
