"""Killing reloads of one host, and what has to hold after each: shared by the tests and the long run."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from agent.daemon.schedule import spread
from tests.fleet.conftest import NAME, Fleet
from tests.lab.ground import LabError, wait_until
from tests.lab.traffic import Load
from tests.support.threads import repeating

LONGEST_REPAIR = 90
SOON_SECONDS = 3.0


@dataclass
class Victim:
    """The first host of a fleet, whose svcagent dies."""

    fleet: Fleet
    started: int = 0
    before: str | None = None
    wanted: str = ""
    log: list[str] = field(default_factory=list)

    def push(self, **how: Any) -> None:
        self.before = self.fleet.lab.versions()["host1"]
        self.wanted = self.fleet.push_next(**how)

    def die_at(self, change: int) -> int:
        """A reload that is killed after so many changes of its journal; its exit status."""
        argv = (sys.executable, "-m", "tests.lab.dying", str(change), "reload", NAME)
        process = self.fleet.lab.command(self.fleet.lab.hosts[0], *argv)
        _output, errors = process.communicate(timeout=90)
        self.log.append(errors)
        return process.returncode

    def run_python(self, *arguments: str) -> tuple[int, str]:
        """One run of Python in the first host's place: exit status and errors."""
        process = self.fleet.lab.command(self.fleet.lab.hosts[0], sys.executable, *arguments)
        _output, errors = process.communicate(timeout=120)
        self.log.append(errors)
        return process.returncode, errors

    def die_after(self, seconds: float) -> int:
        """A reload that is killed after so long; its exit status."""
        process = self.fleet.lab.svcagent(self.fleet.lab.hosts[0], "-v", "reload", NAME)
        try:
            _output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            _output, errors = process.communicate(timeout=10)
        self.log.append(errors)
        return process.returncode

    def repair(self, verb: str) -> tuple[int, str]:
        """One run of what boot or cron would start."""
        arguments = ("register",) if verb == "register" else ("reload", NAME)
        code, _output, errors = self.fleet.run(0, "-v", *arguments, seconds=LONGEST_REPAIR)
        return code, errors

    def assert_back(self, context: str, *, is_just_started: bool = False) -> None:
        """The instance runs, is ready and in service, on the old image or the new; nothing is left of the dead one."""
        lab = self.fleet.lab
        try:
            # The checks of an agent or a container that was just started are critical until they have run once.
            wait_until(lambda: "host1" in lab.consul().passing(), 15 if is_just_started else 0, "host1 is in service")
        except LabError as error:
            raise AssertionError(context) from error
        assert lab.versions()["host1"] in (self.before, self.wanted), context
        try:
            # A session that was made and not yet noted down ends by itself.
            wait_until(lambda: self.fleet.leftovers() == [], 40, "nothing is left behind", every=0.1)
        except LabError as error:
            raise AssertionError(f"{context}: {self.fleet.leftovers()}") from error
        assert list(lab.hosts[0].state_dir.glob("*.journal")) == [], context


def pushed(fleet: Fleet, **how: Any) -> Victim:
    """A victim for which a version has been pushed."""
    victim = Victim(fleet)
    victim.push(**how)
    return victim


def begin_everywhere(fleet: Fleet) -> None:
    """Each host's daemon reloads in a few seconds, and then each minute: the jitter of its schedule is chosen so."""
    delay = (time.time() + SOON_SECONDS) % 60
    jitter = delay / spread(1.0, os.uname().nodename, NAME).total_seconds()
    fleet.define(schedule="* * * * *", jitter=f"{jitter:.3f}s")


def is_rolled_out(fleet: Fleet, version: str) -> bool:
    """Does every host run and pass it?"""
    hosts = tuple(host.name for host in fleet.lab.hosts)
    return set(fleet.lab.versions().values()) == {version} and fleet.lab.consul().passing() == hosts


def is_at_rest(fleet: Fleet) -> bool:
    """Is nothing held, waited for or out, and no journal left?"""
    journals = [file for host in fleet.lab.hosts for file in host.state_dir.glob("*.journal")]
    return not fleet.leftovers() and not journals


@contextmanager
def least_passing(fleet: Fleet) -> Iterator[list[int]]:
    """Inside the block the catalog is watched; at its end the list holds the fewest instances ever seen passing."""
    fewest, indexes = [len(fleet.lab.hosts)], [0]
    asked = f"{fleet.lab.consul().url}/v1/health/service/{NAME}"

    with requests.Session() as session:
        session.trust_env = False

        def look() -> None:
            reply = session.get(f"{asked}?passing&index={indexes[-1]}&wait=200ms", timeout=10)
            indexes.append(int(reply.headers["X-Consul-Index"]))
            fewest[0] = min(fewest[0], len(reply.json()))

        with repeating(look):
            yield fewest


def random_kills(fleet: Fleet, seed: int, count: int, longest: float) -> None:
    """``count`` reloads killed at moments between start and end that ``seed`` chooses, each repaired and checked.

    The other host reloads at the same time now and then. ``longest``: seconds that a reload takes at most.
    """
    chance = random.Random(seed)
    victim = Victim(fleet)
    killed = 0
    while killed < count:
        victim.push()
        other = fleet.lab.svcagent(fleet.lab.hosts[1], "reload", NAME) if chance.random() < 0.3 else None
        seconds = chance.uniform(0.25, longest)
        status = victim.die_after(seconds)
        killed += status == -signal.SIGKILL
        verb = chance.choice(("register", "reload"))
        code, errors = victim.repair(verb)
        context = f"seed {seed}, kill {killed} after {seconds:.3f} s, then {verb}: {code} {errors}\n{victim.log[-1]}"
        assert code == 0, context
        victim.assert_back(context)
        if other is not None:
            _output, said = other.communicate(timeout=LONGEST_REPAIR)
            assert other.returncode == 0, f"{context}\nthe other host: {said}"


def assert_survives_random_kills(fleet: Fleet, seed: int, count: int) -> None:
    """The same under load: no request lost, and never fewer instances in service than the other host."""
    with Load(fleet.lab, rate=100) as load, least_passing(fleet) as fewest:
        random_kills(fleet, seed, count, longest=2.5)
        summary = load.stop()
    assert summary.failed == ()
    assert fewest[0] >= 1
