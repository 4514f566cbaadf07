"""``svcagent run`` as a process beside one Consul agent: how it starts, waits, stops, and what it leaves nobody to see."""

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.ground import wait_until
from tests.lab.server import spawn, svcagent_argv
from tests.lab.unit import Unit
from tests.real.conftest import ConsulHost

TOKEN = "b1f5c1de-5ec8-4e7e-8e7e-5ec8e75ec8e7"
STOP_SECONDS = 2.0


class Site:
    """A daemon, the directories that it has for itself, and the Consul agent beside it."""

    def __init__(self, host: ConsulHost, directory: Path) -> None:
        self.host = host
        self.services_dir, self.state_dir = directory / "services.d", directory / "state"
        self.services_dir.mkdir()
        self.state_dir.mkdir(mode=0o700)
        self.environment = host.environment() | {
            "SVCAGENT_SERVICES_DIR": str(self.services_dir),
            "SVCAGENT_STATE_DIR": str(self.state_dir),
            "SVCAGENT_SOCKET": str(directory / "svcagent.sock"),
        }
        self.daemon = Unit("this host", directory, self.svcagent)

    def svcagent(self, *arguments: str, env: dict[str, str] | None = None, **popen: Any) -> "subprocess.Popen[str]":
        """Start it with any verb."""
        argv = (*svcagent_argv(), *arguments)
        return spawn(argv, self.environment | (env or {}), stdin=subprocess.DEVNULL, text=True, **popen)

    def define(self, name: str, **more: Any) -> None:
        """Write one definition, of a service that passes."""
        service = {"name": name, "port": 8080, "checks": [{"ttl": "1h", "status": "passing"}]}
        (self.services_dir / f"{name}.json").write_text(json.dumps({"service": service, **more}))

    def wait_logged(self, text: str, seconds: float = 20) -> None:
        """Wait until the daemon logs it."""
        wait_until(lambda: text in self.daemon.log, seconds, f"the daemon logs {text!r}")


@pytest.fixture
def site(host: ConsulHost, tmp_path: Path) -> Iterator[Site]:
    """With one service."""
    found = Site(host, tmp_path)
    found.define("web")
    try:
        yield found
    finally:
        if host.server.is_running:
            host.server.thaw()
        found.daemon.discard()


def test_a_second_daemon_is_told_so(site: Site) -> None:
    """Exit 75, and it says which process is the first."""
    site.daemon.start()
    site.daemon.wait_ready()

    second = site.svcagent("run", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _output, errors = second.communicate(timeout=20)

    assert second.returncode == 75
    assert f"pid {site.daemon.pid}" in errors


def test_it_stops_when_it_is_told(site: Site) -> None:
    """SIGTERM: exit 0, soon, and systemd is told."""
    site.daemon.start()
    site.daemon.wait_ready()

    began = time.monotonic()
    assert site.daemon.stop() == 0

    assert time.monotonic() - began < STOP_SECONDS
    assert site.daemon.told("STOPPING=1")
    assert not Path(site.environment["SVCAGENT_SOCKET"]).exists()


def test_it_is_ready_after_the_first_convergence(site: Site) -> None:
    """While Consul does not answer it is not; with that comes the registration."""
    site.host.server.freeze()
    site.daemon.start()
    site.wait_logged("started")
    wait_until(lambda: site.daemon.told("STATUS=starting"), 10, "it tells systemd that it starts")
    assert not site.daemon.told("READY=1")

    site.host.server.thaw()
    site.daemon.wait_ready()

    assert "web" in site.host.ask.get("/v1/agent/services")


def test_consul_absent_at_start(site: Site) -> None:
    """One warning, and ready when it comes."""
    site.host.server.stop()
    site.daemon.start()
    site.wait_logged("level=warning")
    site.host.server.start()
    site.host.server.wait_ready()
    site.daemon.wait_ready()

    assert site.daemon.log.count("level=warning") == 1


def test_it_stops_while_consul_is_frozen(site: Site) -> None:
    """In the middle of a convergence, and asked twice."""
    site.daemon.start()
    site.daemon.wait_ready()
    site.host.server.freeze()
    site.define("another")
    time.sleep(1)
    began = time.monotonic()
    os.kill(site.daemon.pid, signal.SIGTERM)
    assert site.daemon.stop() == 0
    print("STOP took", time.monotonic() - began)


def test_no_secret_is_seen(site: Site) -> None:
    """The token is in no command line and in no line of the log; what is kept is its owner's alone."""
    site.define("web", reload={"restart": ["/bin/true"], "min_healthy": 0, "schedule": "* * * * *"})
    site.daemon.start(CONSUL_HTTP_TOKEN=TOKEN)
    site.daemon.wait_ready()
    seen = set()
    process = site.svcagent("reload", "web", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while process.poll() is None:
        seen |= {Path(f"/proc/{pid}/cmdline").read_text() for pid in (site.daemon.pid, *site.daemon.children) if Path(f"/proc/{pid}").exists()}
        time.sleep(0.01)
    print(process.stdout.read(), site.daemon.log)
    print(seen)
    for f in site.state_dir.rglob("*"):
        print(f, oct(f.stat().st_mode))
    assert 0
