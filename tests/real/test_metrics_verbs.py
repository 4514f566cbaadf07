"""What the verbs tell of themselves, on a real Consul: by files for node_exporter, and to a daemon that runs them."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.clock import Deadline, SystemClock
from agent.consul import Consul, Lock
from agent.daemon.host_reloads import HostReloads
from agent.metrics.exposition import Metrics, text_of
from agent.reload.host_lock import HostLock
from tests.lab.ground import wait_until
from tests.lab.server import spawn, svcagent_argv
from tests.real.conftest import ConsulHost
from tests.support.svcagent import Svcagent

Found = dict[tuple[str, ...], float]


class MetricsHost(Svcagent):
    """One host with a service that a command restarts, and the directory of its node_exporter."""

    def __init__(self, home: Path, host: ConsulHost) -> None:
        self.host, self.directory = host, home / "textfile"
        self.directory.mkdir()
        super().__init__(
            home,
            CONSUL_HTTP_ADDR=f"{host.address}:8500",
            SVCAGENT_TEXTFILE_DIR=str(self.directory),
            DOCKER_HOST="unix:///nowhere/docker.sock",
        )

    def define_web(self, **reload: Any) -> None:
        """Define web, which passes as long as Consul runs."""
        service = {"name": "web", "port": 8500, "checks": [{"tcp": f"{self.host.address}:8500", "interval": "1s"}]}
        section = {"restart": ["/bin/true"], "min_healthy": 0, "drain": {"connections": False}, **reload}
        self.write("web", {"service": service, "reload": section})

    def series(self) -> Found:
        """All that node_exporter would read there; a series in two files would be an error to it."""
        found: Found = {}
        for file in self.directory.glob("*.prom"):
            for metric in text_string_to_metric_families(file.read_text()):
                for sample in metric.samples:
                    key = (sample.name, *(value for _label, value in sorted(sample.labels.items())))
                    assert key not in found, key
                    found[key] = sample.value
        return found

    def ended(self) -> dict[str, float]:
        """How often reloads of web ended how."""
        return {key[1]: value for key, value in self.series().items() if key[0] == "svcagent_reloads_total" and value}


@pytest.fixture
def site(host: ConsulHost, tmp_path: Path) -> Iterator[MetricsHost]:
    site = MetricsHost(tmp_path, host)
    site.define_web()
    site.run("register")
    wait_until(lambda: host.ask.get("/v1/health/service/web?passing") != [], 10, "web is passing")
    yield site
    host.ask.deregister_service("web")
    host.ask.delete("/v1/kv/svcagent/?recurse")


def test_reloads_are_counted_over_processes(site: MetricsHost) -> None:
    """However they end: done, refused, for want of Consul. What only looks is not counted."""
    site.run("reload", "web")
    site.run("reload", "web")
    site.run("reload", "web", "--check")
    with HostLock(site.state_dir, "web", SystemClock(), 0):
        site.run("reload", "web", code=75)
    site.run("reload", "web", code=69, CONSUL_HTTP_ADDR="127.0.0.1:9")

    assert site.ended() == {"reloaded": 2, "refused": 1, "failed": 1}
    found = site.series()
    assert found["svcagent_reload_step_seconds_count", "web", "drain"] == 2
    assert found["svcagent_lock_wait_seconds_count", "web"] == 2


def test_the_lock_is_released_before_the_end_is_reported(site: MetricsHost) -> None:
    """Somebody who holds the directory delays no reload but this one's own end."""
    service = HostLock(site.state_dir, "web", SystemClock(), 0)
    directory = os.open(site.directory, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    environment = site.environment()
    with spawn([*svcagent_argv(), "-q", "reload", "web"], environment) as process:
        wait_until(lambda: service.holder() is not None, 20, "the reload has begun")
        wait_until(lambda: service.holder() is None, 20, "the reload is over")
        assert process.poll() is None
        assert site.host.ask.get("/v1/session/list") == []
        assert site.ended() == {}
        os.close(directory)
        assert process.wait(20) == 0

    assert site.ended() == {"reloaded": 1}


def test_register_reports_faults_consul_and_maintenance(site: MetricsHost) -> None:
    """Each as it is now: after the last registration nothing of the troubles is left."""
    bad = site.services_dir / "bad.json"
    bad.write_text('{"service": {"name": "x", "prot": 1, "tagz": []}}')
    site.run("maint", "enable", "web", "--reason", "disk swap", SUDO_USER="alice")
    site.run("register", code=78)
    faulty = site.series()
    bad.unlink()
    site.run("register", "--wait", "0s", code=69, CONSUL_HTTP_ADDR="127.0.0.1:9")
    away = site.series()
    site.run("register")
    held = site.series()
    site.run("maint", "disable", "web")
    site.run("register")
    well = site.series()

    since = ("svcagent_maintenance_since_timestamp_seconds", "alice", "web")
    faults = ("svcagent_definition_faults", str(bad))
    up = ("svcagent_consul_up",)
    assert (faulty[faults], away[up]) == (2, 0)
    assert since in held
    assert held[up] == well[up] == 1
    assert not {since, faults} & well.keys()
    assert well["svcagent_last_convergence_timestamp_seconds",] > faulty["svcagent_last_convergence_timestamp_seconds",]


def test_a_partial_registration_and_a_dry_run_notify_nothing(site: MetricsHost) -> None:
    before = site.series()
    site.run("register", "web")
    site.run("register", "--dry-run")

    assert site.series() == before


def test_without_the_setting_nothing_is_written_nor_imported(site: MetricsHost) -> None:
    """An empty variable takes away what the settings file says: the daemon tells for its children."""
    for file in site.directory.iterdir():
        file.unlink()
    config = site.directory.parent / "svcagent.toml"
    config.write_text(f'[metrics]\ntextfile_dir = "{site.directory}"\n')
    argv = [*svcagent_argv(), "--config", str(config), "reload", "web"]
    environment = site.environment(PYTHONPROFILEIMPORTTIME="1")

    def run(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True)

    silent = run(environment | {"SVCAGENT_TEXTFILE_DIR": ""})
    assert list(site.directory.iterdir()) == []
    assert "prometheus_client" not in silent.stderr

    del environment["SVCAGENT_TEXTFILE_DIR"]
    told = run(environment)
    assert [file.name for file in site.directory.iterdir()] == ["svcagent_reload_web.prom"]
    assert "prometheus_client" in told.stderr


def test_a_daemon_reports_what_a_lock_file_says(site: MetricsHost, consul: Consul) -> None:
    """The step that it is at, its place in the queue while another host has the lock, and how it ended."""
    metrics, reloads = Metrics(SystemClock()), HostReloads(site.state_dir, SystemClock())
    environment = site.environment()

    def told() -> str:
        for _service_id, record in reloads.update():
            for result in record.results:
                metrics.reload_ended(result)
        metrics.reloads_run(reloads.running.items())
        return text_of(metrics.collect()).decode()

    with Lock(consul, "svcagent/web/lock", "svcagent reload web", {"node": "host2"}, SystemClock()) as lock:
        lock.acquire(Deadline.after(SystemClock(), 10))
        with spawn([*svcagent_argv(), "-q", "reload", "web"], environment, stderr=subprocess.DEVNULL) as process:
            wait_until(lambda: "svcagent_lock_queue_length" in told(), 20, "it waits for the lock")
            waiting = told()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 143
    ended = told()

    assert 'svcagent_lock_queue_length{service="web"} 1.0' in waiting
    assert 'svcagent_reload_step_since_timestamp_seconds{service="web",step="acquire"}' in waiting
    assert 'svcagent_reloads_total{result="interrupted",service="web"} 1.0' in ended
    assert 'svcagent_lock_wait_seconds_count{service="web"} 1.0' in ended
    assert "svcagent_lock_queue_length" not in ended
    assert "step_since" not in ended


@contextmanager
def full_disk(directory: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(directory)], check=True)
    try:
        done = subprocess.run(["dd", "if=/dev/zero", f"of={directory / 'ballast'}"], capture_output=True, check=False)
        assert b"No space left" in done.stderr
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.parametrize("arguments", [("reload", "web"), ("register",), ("recover",)])
def test_a_full_disk_is_a_warning(site: MetricsHost, arguments: tuple[str, ...]) -> None:
    """The work is done, and the exit code says so."""
    with full_disk(site.directory):
        said = site.run(*arguments).err
        assert [file.name for file in site.directory.iterdir()] == ["ballast"]

    assert ("No space left on device" in said) is (arguments != ("recover",))  # which had nothing to recover


def test_a_missing_directory_is_a_warning(site: MetricsHost) -> None:
    nowhere = site.directory / "nowhere"
    for arguments in (("reload", "web"), ("register",)):
        said = site.run(*arguments, SVCAGENT_TEXTFILE_DIR=str(nowhere)).err

        assert f"the metrics of this command are not written: cannot use {nowhere}: No such file or directory" in said
    assert not nowhere.exists()
