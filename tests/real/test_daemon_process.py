"""``svcagent run`` as a process beside one Consul agent: how it starts, waits, stops, and what it lets nobody see."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.schedule import spread
from tests.lab.ground import wait_until
from tests.lab.interrupted import leave_unfinished_reload
from tests.lab.unit import Unit
from tests.real.conftest import ConsulHost
from tests.support.svcagent import Svcagent

TOKEN = "b1f5c1de-5ec8-4e7e-8e7e-5ec8e75ec8e7"
STOP_SECONDS = 2.0
FROZEN_SECONDS = 8.0
"""To stop while Consul is frozen: a convergence is waited for, and given up."""
DUE_IN_SECONDS = 5.0
METRICS_PORT = 9632


class DaemonHost(Svcagent):
    """A daemon, the directories that it has for itself, and the Consul agent beside it."""

    def __init__(self, home: Path, host: ConsulHost) -> None:
        self.host, self.status_file = host, home / "status.json"
        super().__init__(home, CONSUL_HTTP_ADDR=f"{host.address}:8500", SVCAGENT_STATUS_FILE=str(self.status_file))
        self.daemon = Unit("this host", home, self.start)

    def define_passing(self, name: str, service_id: str = "", **more: Any) -> None:
        """Write one definition, of a service that passes."""
        check = {"tcp": f"{self.host.address}:8500", "interval": "1s", "timeout": "1s"}
        service = {"name": name, "id": service_id or name, "port": 8500, "checks": [check]}
        self.write(name, {"service": service, **more})

    def define_reload(self, name: str, service_id: str = "", **more: Any) -> None:
        """The same of one that a command restarts."""
        reload = {"restart": ["/bin/true"], "min_healthy": 0, "drain": {"connections": False}}
        self.define_passing(name, service_id, reload={**reload, **more})

    def printed(self, *arguments: str) -> tuple[int, str]:
        """Run a verb as a process; its exit code, and all that it printed."""
        result = self.process(*arguments)
        return result.code, result.text

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.status_file.read_text())
        return found

    def wait_logged(self, text: str, seconds: float = 20) -> None:
        wait_until(lambda: text in self.daemon.log, seconds, f"the daemon logs {text!r}")


@pytest.fixture
def site(host: ConsulHost, tmp_path: Path) -> Iterator[DaemonHost]:
    found = DaemonHost(tmp_path, host)
    found.define_passing("web")
    try:
        yield found
    finally:
        found.daemon.discard()


@contextmanager
def frozen(host: ConsulHost) -> Iterator[None]:
    """Consul takes connections, and answers none, until the end of the block."""
    host.server.freeze()
    try:
        yield
    finally:
        host.server.thaw()


@contextmanager
def silent_server(kind: socket.SocketKind) -> Iterator[str]:
    """The address of one that never answers."""
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            server.listen()
        yield "{}:{}".format(*server.getsockname())


def metrics(site: DaemonHost) -> str:
    with urllib.request.urlopen(f"http://{site.host.address}:{METRICS_PORT}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def command_line(pid: int) -> str:
    """Of a process, empty when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def test_the_first_daemon_of_a_host_recovers_by_its_own_copy(site: DaemonHost) -> None:
    """A host that had cron has a journal, and no copy of its definitions yet: nothing is recovered without them."""
    site.define_reload("app")
    (site.state_dir / "reload-app.journal").write_text("damaged")
    with frozen(site.host):
        site.daemon.start()
        site.wait_logged("started")
        over = time.monotonic() + 2
        while time.monotonic() < over:
            assert site.daemon.children == []
            time.sleep(0.05)

    site.daemon.wait_ready()
    site.wait_logged("reload-app.journal")
    assert "no such directory" not in site.daemon.log


def test_a_second_daemon_is_refused(site: DaemonHost) -> None:
    """Exit 75, and it says which process is the first."""
    site.daemon.start_ready()

    code, printed = site.printed("run")

    assert code == 75
    assert f"pid {site.daemon.pid}" in printed


def test_it_is_ready_after_the_first_convergence(site: DaemonHost) -> None:
    """Not while Consul does not answer; and then the service is registered."""
    with frozen(site.host):
        site.daemon.start()
        site.wait_logged("started")
        wait_until(lambda: site.daemon.told("STATUS=starting"), 10, "systemd is told that it starts")
        assert not site.daemon.told("READY=1")

    site.daemon.wait_ready()
    assert "web" in site.host.ask.get("/v1/agent/services")


def test_consul_absent_at_start(site: DaemonHost) -> None:
    site.host.server.stop()
    site.daemon.start()
    site.wait_logged("level=warning")
    site.host.server.restart()
    site.daemon.wait_ready()

    assert site.daemon.log.count("level=warning") == 1
    assert site.daemon.log.count("Consul answers again") == 1


def test_definitions_where_it_keeps_its_own(site: DaemonHost) -> None:
    """Refused before a file is touched: there it would delete what is faulty, and ask itself for its own work."""
    (site.state_dir / "definitions").symlink_to(site.services_dir)
    (site.services_dir / "faulty.json").write_text("{")

    code, printed = site.printed("run")

    assert code == 78
    assert str(site.services_dir) in printed
    assert (site.services_dir / "faulty.json").exists()


def test_a_directory_named_from_where_it_starts(site: DaemonHost, tmp_path: Path) -> None:
    """Its children and those who read its status find the same one."""
    site.define_reload("web")
    leave_unfinished_reload(site.state_dir, "web")
    site.daemon.discard()
    site.daemon = Unit("this host", tmp_path, partial(site.start, "--state-dir", "state", cwd=tmp_path))
    site.daemon.start()

    site.wait_logged("outcome=reloaded")
    assert "daemon: runs since" in site.printed("status")[1]


def test_no_secret_is_seen(site: DaemonHost) -> None:
    """The token stands in no command line and in no line of the log, and what is kept is its owner's alone."""
    site.define_reload("web", hooks={"before_drain": ["/bin/sleep", "0.5"]})
    leave_unfinished_reload(site.state_dir, "web")
    site.daemon.start(CONSUL_HTTP_TOKEN=TOKEN)

    site.wait_logged("step=drain phase=begin")
    seen = [command_line(pid) for pid in (site.daemon.pid, *site.daemon.children)]
    modes = {file.name: file.stat().st_mode & 0o777 for file in site.state_dir.rglob("*") if file.is_file()}
    site.wait_logged("outcome=reloaded")

    assert [" reload " in line for line in seen] == [False, True]
    assert not any(TOKEN in text for text in (*seen, site.daemon.log))
    assert {"reload-web.lock", "daemon.lock", "web.json"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_an_id_that_looks_like_an_option(site: DaemonHost) -> None:
    """Is an id all the same, and it is that service that is reloaded."""
    site.define_reload("web", service_id="--check")
    leave_unfinished_reload(site.state_dir, "--check")
    site.daemon.start()

    site.wait_logged("outcome=reloaded")


def test_many_wishes_are_one(site: DaemonHost) -> None:
    """However often it is told to read everything again, CNAMEs are kept by one process at a time."""
    with silent_server(socket.SOCK_DGRAM) as dns:
        site.define_passing("web", cname=[{"name": "web.example.", "zone": "example."}])
        site.daemon.start_ready(SVCAGENT_DNS_SERVER=dns)
        for number in range(5):
            site.daemon.hang_up()
            wait_until(lambda: site.daemon.log.count("all definitions again") > number, 10, "it was heard")  # noqa: B023 - at once

        assert len(site.daemon.children) == 1
        assert site.daemon.stop() == 0


def test_what_is_wrong_with_a_schedule_is_reported_once(site: DaemonHost) -> None:
    site.define_reload("web", schedule="0 4 * * *")
    site.daemon.start_ready(TZ="Nowhere/At_All")
    for name in ("one", "two"):
        site.define_passing(name)
        site.wait_logged(f"{name}: registered")

    assert site.daemon.log.count("of this host is unknown") == 1


def test_due_while_consul_is_away(site: DaemonHost) -> None:
    """A reload waits for it without a word, and is not lost."""
    delay = (time.time() + DUE_IN_SECONDS) % 60
    jitter = delay / spread(1.0, os.uname().nodename, "web").total_seconds()
    site.define_reload("web", schedule="* * * * *", jitter=f"{jitter:.3f}s")
    site.daemon.start_ready()
    due = time.time() + DUE_IN_SECONDS
    site.host.server.stop()
    site.wait_logged("level=warning")
    # And time for a reload to begin, and to fail: that none does cannot be waited for.
    wait_until(lambda: time.time() > due + 2, 2 * DUE_IN_SECONDS, "it was due")

    site.host.server.restart()

    site.wait_logged("outcome=reloaded")
    assert site.daemon.log.count("level=warning") == 1
    assert "level=error" not in site.daemon.log


def test_a_reload_of_an_operator_is_followed(site: DaemonHost, tmp_path: Path) -> None:
    """The daemon counts it and shows its step; a second one is refused, and says who is at it and how to watch."""
    may_go_on = tmp_path / "go-on"
    wait = f"until test -e {may_go_on}; do sleep 0.1; done"
    site.define_reload("web", hooks={"before_drain": ["/bin/sh", "-c", wait]})
    site.daemon.start_ready(SVCAGENT_LISTEN=f"{site.host.address}:{METRICS_PORT}")
    reload = site.start("reload", "web", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: [one["step"] for one in site.status()["reloads"]] == ["drain"], 20, "the daemon shows its step")

    code, printed = site.printed("reload", "web")
    _code, shown = site.printed("status", "web")
    may_go_on.touch()

    assert code == 75
    assert f"pid {reload.pid}" in printed
    assert "svcagent status web" in printed
    assert f"reload of web (pid {reload.pid}): step drain" in shown
    assert reload.wait(20) == 0
    wait_until(lambda: 'svcagent_reloads_total{result="reloaded",service="web"} 1.0' in metrics(site), 20, "counted")
    assert site.status()["reloads"] == []


def test_a_reload_waits_for_another_one(site: DaemonHost) -> None:
    site.define_reload("web", hooks={"before_drain": ["/bin/sleep", "1"]})
    site.daemon.start_ready()
    first = site.start("reload", "web", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: bool(site.status()["reloads"]), 20, "the first one runs")

    code, printed = site.printed("reload", "web", "--lock-timeout", "20s")

    assert (first.wait(20), code) == (0, 0), printed


def test_the_status_file_of_a_daemon_that_was_killed(site: DaemonHost) -> None:
    """Is not taken for one that runs; only its owner and group may read it."""
    site.daemon.start_ready()
    wait_until(lambda: site.status()["is_ready"], 10, "it is ready")
    assert site.status_file.stat().st_mode & 0o777 == 0o640

    site.daemon.kill(with_children=True)

    assert f"daemon: does not run: process {site.daemon.pid} has ended" in site.printed("status")[1]
    site.daemon.start()
    wait_until(lambda: "daemon: runs since" in site.printed("status")[1], 20, "the next one is found")


def test_a_maintenance_ends_on_time(site: DaemonHost) -> None:
    """Not at the next convergence, up to a minute later: the daemon hears of it from the verb that enabled it."""
    site.daemon.start_ready()
    wait_until(lambda: is_passing(site, "web"), 20, "the service passes")

    code, printed = site.printed("maint", "enable", "web", "--reason", "disk swap", "--for", "5s")

    began = time.monotonic()
    assert code == 0, printed
    wait_until(lambda: is_passing(site, "web"), 60, "the service is in service again")
    assert time.monotonic() - began < 15


def test_what_would_come_back_is_not_deregistered(site: DaemonHost) -> None:
    """Refused while the daemon runs, or may run, and a definition defines it; without the daemon it is done."""
    site.daemon.start_ready()
    wait_until(lambda: site.status()["service_ids"] == ["web"], 10, "the daemon shows its services")

    refused = site.process("--json", "deregister", "web")
    assert (refused.code, refused.kind) == (75, "still-defined")
    assert "web" in site.host.ask.get("/v1/agent/services")

    assert site.daemon.stop() == 0
    site.status_file.write_text("{}")
    refused = site.process("--json", "deregister", "web")
    assert (refused.code, refused.kind) == (75, "daemon-unknown")
    assert "web" in site.host.ask.get("/v1/agent/services")
    site.status_file.unlink()
    assert site.printed("deregister", "web")[0] == 0
    assert "web" not in site.host.ask.get("/v1/agent/services")


def test_the_schedule_says_what_holds_it(site: DaemonHost) -> None:
    site.define_reload("web", schedule="0 4 * * *")
    _code, alone = site.printed("--json", "schedule", "web")
    site.daemon.start_ready()
    wait_until(lambda: site.status()["is_ready"], 10, "the status file shows it")
    _code, held_by_none = site.printed("--json", "schedule", "web")
    assert site.printed("pause", "web", "--reason", "release party")[0] == 0
    _code, paused = site.printed("--json", "schedule", "web")
    printed = site.printed("schedule", "web")[1]
    site.printed("resume", "web")

    held = [
        json.loads(text[text.index("[") : text.rindex("]") + 1])[0]["held"] for text in (alone, held_by_none, paused)
    ]
    assert held[:2] == ["the daemon does not run", None]
    assert "release party" in held[2]
    assert "svcagent resume web" in printed


def test_it_stops_on_sigterm(site: DaemonHost) -> None:
    """SIGTERM: exit 0, soon, systemd is told, and its status file is gone."""
    site.daemon.start_ready()

    began = time.monotonic()
    assert site.daemon.stop() == 0

    assert time.monotonic() - began < STOP_SECONDS
    assert site.daemon.told("STOPPING=1")
    assert not site.status_file.exists()


@pytest.mark.parametrize("is_ready", [False, True])
def test_it_stops_in_a_convergence(site: DaemonHost, is_ready: bool) -> None:
    if is_ready:
        site.daemon.start_ready()
    with frozen(site.host):
        if is_ready:
            site.daemon.hang_up()
        else:
            site.daemon.start()
        site.wait_logged("reading all definitions again" if is_ready else "started")

        began = time.monotonic()
        assert site.daemon.stop() == 0

        assert time.monotonic() - began < FROZEN_SECONDS
    assert "Traceback" not in site.daemon.log


def test_it_stops_while_it_recovers(site: DaemonHost) -> None:
    """The verb that does it is asked to end too, and waited for: nothing is left running, and nothing forgotten."""
    site.define_passing("web", reload={"image": "registry.invalid/web", "container": "web", "min_healthy": 0})
    lock = leave_unfinished_reload(site.state_dir, "web")
    left = lock.read_text()
    with silent_server(socket.SOCK_STREAM) as docker:
        site.daemon.start(DOCKER_HOST=f"tcp://{docker}")
        wait_until(
            lambda: any(" recover " in f"{command_line(pid)} " for pid in site.daemon.children), 20, "it recovers"
        )
        [child] = site.daemon.children

        assert site.daemon.stop() == 0

        assert command_line(child) == ""
    assert lock.read_text() == left


def test_the_daemon_recovers_a_crashed_reload_of_cron(site: DaemonHost, tmp_path: Path) -> None:
    """It was started by cron or by an operator; without the daemon's help the instance would stay out."""
    killed_once = tmp_path / "killed"
    script = f"test -e {killed_once} || {{ touch {killed_once}; kill -9 $PPID; }}"
    site.define_reload("web", restart=["/bin/sh", "-c", script])
    site.daemon.start_ready()
    wait_until(lambda: is_passing(site, "web"), 20, "the service passes")

    code, output = site.printed("--services-dir", str(site.services_dir), "--json", "reload", "web", "--force")

    assert killed_once.exists(), output
    assert code != 0
    wait_until(lambda: not list(site.state_dir.glob("*.journal")), 60, "the daemon recovers it")
    wait_until(lambda: is_passing(site, "web"), 20, "the service is in service again")


def is_passing(site: DaemonHost, service: str) -> bool:
    return bool(site.host.ask.get(f"/v1/health/service/{service}?passing"))
