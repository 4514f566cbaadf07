"""Compare this host's clock with those of the Consul servers and the Docker Engine.

svcagent judges windows, ages, ends of maintenance and signatures of DNS updates by the host's clock. Serf's clocks
count events, not seconds, and the local agent has this host's time, so the servers' HTTP APIs are queried.
"""

from collections.abc import Iterator
from datetime import datetime

from agent.doctor.diagnosis import Diagnosis, ok, unknown, warning
from agent.doctor.examined import ExaminedHost

TOLERATED = 5.0
"""Seconds. An HTTP date has a resolution of one second."""


def judge_clock(whose: str, theirs: datetime, ours: datetime) -> Diagnosis:
    """Judge the difference between two clocks that were read at the same moment."""
    ahead = (ours - theirs).total_seconds()
    if abs(ahead) <= TOLERATED:
        return ok(f"agrees with {whose}")
    direction = "ahead of" if ahead > 0 else "behind"
    remedy = "synchronise the clocks of both machines (chrony, systemd-timesyncd); see: timedatectl"
    return warning(f"this host's clock is {abs(ahead):.0f} s {direction} {whose}", remedy)


def examine_servers(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.consul_survey() as survey:
        servers = survey.servers()
        found = [(server, survey.server_time(server), examined.clock.now()) for server in servers]
    for server, theirs, ours in found:
        if theirs is not None:
            yield judge_clock(f"the Consul server {server}", theirs, ours)
    if not any(theirs for _server, theirs, _ours in found):
        yield ok("not compared: no Consul server's own HTTP API can be reached from here")


def examine_engine(examined: ExaminedHost) -> Iterator[Diagnosis]:
    with examined.engine_survey() as engine:
        theirs, ours = engine.facts().system_time, examined.clock.now()
    if theirs:
        yield judge_clock("the Docker Engine", theirs, ours)
    else:
        yield unknown("the Docker Engine does not report its time")
