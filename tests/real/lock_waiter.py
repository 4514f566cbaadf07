"""svcagent's lock in a process of its own, which a test can stop and kill: ``python -m tests.real.lock_waiter``.

It says what happens to it, a line each (``session ID``, ``place N HOLDER``, ``held``), and obeys what it is told on
standard input: ``ask``, ``lost``, ``release``. Its end without ``release`` is a death.
"""

import os
import sys
from contextlib import closing

from agent.clock import Deadline, SystemClock
from agent.consul import Consul, Lock
from agent.definitions import Settings
from agent.errors import ConsulUnreachable, LockLost

SECONDS = 120.0


def say(*words: object) -> None:
    print(*words, flush=True)


def main(prefix: str, limit: str, node: str) -> None:
    clock = SystemClock()
    consul = Consul(Settings.load(None, os.environ).consul)
    lock = Lock(
        consul,
        prefix,
        f"svcagent reload {node}",
        {"node": node, "pid": os.getpid(), "command": "svcagent reload"},
        clock,
        limit=int(limit),
        on_session=lambda session: say("session", session),
        report_place=lambda place, holder: say("place", place, holder),
    )
    with closing(consul), lock:
        lock.acquire(Deadline.after(clock, SECONDS))
        say("held")
        for line in sys.stdin:
            match line.strip():
                case "ask":
                    say("asked", _asked(lock))
                case "lost":
                    say("lost", lock.is_lost)
                case "release":
                    break
                case other:
                    raise ValueError(other)
    say("released")


def _asked(lock: Lock) -> str:
    try:
        lock.check_held()
    except LockLost:
        return "lost"
    except ConsulUnreachable:
        return "unreachable"
    return "held"


if __name__ == "__main__":
    main(*sys.argv[1:])
