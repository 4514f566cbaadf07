"""A fleet of two hosts for the tests of a module, and what they all ask of it."""

import itertools
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.lab.lab import LOCK, Lab

NAME = "keyword-suggest"


@dataclass
class Fleet:
    """A lab whose service is registered by svcagent, passing on every host, with a version counter."""

    lab: Lab
    load_seconds: float
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(2))

    def push_next(self, **how: Any) -> str:
        """A newer image, and no rollout under way that would have to end before it; its version."""
        self.lab.consul().delete(f"/v1/kv/svcagent/{NAME}/rollout")
        version = str(next(self._versions))
        self.lab.push(version, **how)
        return version

    def run(self, host: int, *arguments: str, seconds: float = 90) -> tuple[int, str, str]:
        """svcagent on one host (0 is the first) to its end: exit code, output, errors."""
        process = self.lab.svcagent(self.lab.hosts[host], *arguments)
        output, errors = process.communicate(timeout=seconds)
        return process.returncode, output, errors

    def define(self, *, interval: str = "1s", **reload: Any) -> None:
        """Write the definition of every host again."""
        for host in self.lab.hosts:
            self.lab.write_definition(host, interval=interval, **reload)

    def reset(self) -> None:
        """Every host on the newest good image, registered and passing."""
        self.define()
        for host in self.lab.hosts:
            code, _output, errors = self.run(self.lab.hosts.index(host), "register")
            assert code == 0, errors
        self.lab.wait_passing()

    def leftovers(self) -> list[str]:
        """Locks, sessions, maintenance, and containers that no reload should leave behind."""
        sessions = [f"session {one['Name']}" for one in self.lab.consul().get("/v1/session/list")]
        keys = [key for key in self.lab.consul().get("/v1/kv/?keys") if key == f"{LOCK}/.lock"]
        critical = self.lab.consul().get("/v1/health/state/critical")
        held = [f"{one['Node']} {one['CheckID']}" for one in critical if "_maintenance" in one["CheckID"]]
        containers = [
            f"{host.name} {name}"
            for host in self.lab.hosts
            for container in host.engine.api.containers(all=True)
            for name in container["Names"]
            if name != f"/{NAME}"
        ]
        return sessions + keys + held + containers


def until_step(process: "subprocess.Popen[str]", step: str) -> None:
    """Return when a reload that was started with ``-v`` begins a step."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if f"step={json.dumps(step) if ' ' in step else step} phase=begin" in line:
            return
    raise AssertionError(f"it ended without reaching {step}: {seen}")


def start(lab: Lab, load_seconds: float) -> Fleet:
    """Version 1 runs and passes on every host."""
    lab.push("1")
    fleet = Fleet(lab, load_seconds)
    lab.consul().put("/v1/kv/some-key", 1)
    for host in lab.hosts:
        lab.run_service(host, load_seconds)
    fleet.reset()
    return fleet


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Two hosts whose containers load for 0.2 s."""
    with Lab(2) as lab:
        yield start(lab, 0.2)


@pytest.fixture
def is_full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--full-matrix"))
