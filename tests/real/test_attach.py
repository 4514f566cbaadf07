"""``svcagent reload`` and ``status`` beside a daemon: processes of their own, and the real local API."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.ground import wait_until
from tests.lab.host import environment_in
from tests.lab.server import spawn, svcagent_argv
from tests.real.api_fixture import Daemon, daemon_in, directory, event
from tests.real.conftest import ConsulHost

NOWHERE = "127.0.0.1:1"
"""No Consul: a reload that is not the daemon's ends there with 69."""
DEFINITION = {
    "service": {"name": "web", "port": 8080, "checks": [{"http": "http://127.0.0.1:8080/", "interval": "10s"}]},
    "reload": {"image": "web:1", "container": "web"},
}
STEPS = (
    event("check", "begin"),
    event("check", "end"),
    event("pull", "progress", layers_done=2, layers=2, bytes_done=5_000_000, bytes_total=5_000_000),
    event("pull", "end"),
    event("acquire", "note", "waits for host2"),
    event("restart", "end"),
)


@dataclass
class Site:
    """A services.d, a state directory, and the environment of a verb."""

    place: Path
    consul: str = NOWHERE

    def start(self, *argv: str) -> "subprocess.Popen[str]":
        """A verb that goes on."""
        environment = environment_in(self.place, self.place) | {
            "CONSUL_HTTP_ADDR": self.consul,
            "DOCKER_HOST": f"unix://{self.place}/docker.sock",
            "SVCAGENT_SERVICES_DIR": str(self.place / "services.d"),
            "SVCAGENT_STATE_DIR": str(self.place / "state"),
            "SVCAGENT_SOCKET": str(self.place / "svcagent.sock"),
        }
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return spawn([*svcagent_argv(), *argv], environment, **pipes)

    def run(self, *argv: str) -> tuple[int, str, str]:
        """A verb to its end."""
        return ended(self.start(*argv))


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Its exit code, and what it printed."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.fixture
def site() -> Iterator[Site]:
    """One service, no Consul, no Docker."""
    with directory() as place:
        (place / "services.d").mkdir()
        (place / "services.d" / "web.json").write_text(json.dumps(DEFINITION))
        (place / "state").mkdir(mode=0o700)
        yield Site(place)


@pytest.fixture
def daemon(site: Site) -> Iterator[Daemon]:
    """A daemon of the same directories."""
    with daemon_in(site.place) as found:
        yield found


def _looked_on(daemon: Daemon) -> None:
    wait_until(lambda: bool(daemon.backend.lookers_on), 30, "the verb shows the reload")


def test_the_daemon_reloads_and_the_verb_shows_it(site: Site, daemon: Daemon) -> None:
    """The same lines as of a reload of its own."""
    process = site.start("reload", "web", "--force", "--lock-timeout", "90s")
    _looked_on(daemon)
    daemon.backend.tell(*STEPS)
    daemon.backend.end(steps=[{"step": "pull", "seconds": 1.5}, {"step": "restart", "seconds": 2.0}])
    code, out, err = ended(process)

    assert [line.rstrip() for line in out.splitlines()] == [
        "pull 100%  2/2 layers  5.0 of 5.0 MB",
        "pull          0.25 s",
        "restart       0.25 s",
        "web runs sha256:2 on host1 after 3.5 s",
    ]
    assert err == "svcagent: web: waits for host2\n"
    assert code == 0
    daemon.backend.asked[0].pop("asker")
    assert daemon.backend.asked == [{"force": True, "in_maintenance": False, "lock_timeout": 90.0}]


def test_json_is_the_document_of_a_reload_of_its_own(site: Site, daemon: Daemon) -> None:
    """Every field, also those that the daemon left out."""
    process = site.start("--json", "reload", "web")
    _looked_on(daemon)
    daemon.backend.tell(*STEPS)
    daemon.backend.end()
    code, out, _err = ended(process)

    document = json.loads(out)
    assert (code, document["outcome"], document["steps"], document["exit_code"]) == (0, "reloaded", [], 0)


def test_with_nothing_to_do_nothing_is_printed(site: Site, daemon: Daemon) -> None:
    """Cron mails whatever is."""
    process = site.start("reload", "web")
    _looked_on(daemon)
    daemon.backend.tell(*STEPS[:2])
    daemon.backend.end(outcome="up to date")

    assert ended(process) == (0, "", "")


@pytest.mark.parametrize("is_under_way", [True, False])
def test_a_failure_is_told_once_with_its_exit_code(site: Site, daemon: Daemon, *, is_under_way: bool) -> None:
    """The child's log has it too."""
    process = site.start("reload", "web")
    _looked_on(daemon)
    error = "web: paused by alice"
    last = {"outcome": "refused"} if is_under_way else {}
    daemon.backend.tell({"level": "warning", "text": error, "exit_code": 75, **last})
    daemon.backend.end(outcome="refused", error=error, exit_code=75)

    assert ended(process) == (75, "", f"svcagent: {error}\n")


def test_a_reload_that_runs_is_attached_to(site: Site, daemon: Daemon) -> None:
    """From its first record on; options that it does not have are said to be without effect."""
    daemon.backend.is_running = True
    daemon.backend.tell(*STEPS[:2], STEPS[3])
    process = site.start("reload", "web", "--force", "--lock-timeout", "1s")
    _looked_on(daemon)
    daemon.backend.end()
    code, out, err = ended(process)

    assert out.splitlines() == [
        "the daemon reloads web already, since 2026-03-01T10:00:00Z (schedule); this is that reload",
        "pull          0.25 s",
        "web runs sha256:2 on host1 after 0.0 s",
    ]
    assert err.startswith("svcagent: --force, --lock-timeout: without effect")
    assert code == 0


def test_attached_to_one_with_nothing_to_do_nothing_is_printed(site: Site, daemon: Daemon) -> None:
    """Cron and the daemon at the same minute."""
    daemon.backend.is_running = True
    process = site.start("reload", "web")
    _looked_on(daemon)
    daemon.backend.tell(*STEPS[:2])
    daemon.backend.end(outcome="up to date")

    assert ended(process) == (0, "", "")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_a_reload_that_was_started(site: Site, daemon: Daemon, signum: int, code: int) -> None:
    """The put-back is waited for, and shown."""
    process = site.start("--json", "reload", "web")
    _looked_on(daemon)
    daemon.backend.tell(*STEPS[:2])
    process.send_signal(signum)
    wait_until(lambda: daemon.backend.cancelled == ["web"], 30, "the reload is cancelled")
    assert process.poll() is None
    daemon.backend.tell(event("return", "end"))
    error = "SIGTERM ended the reload; the service was put back as it was"
    daemon.backend.end(outcome="interrupted", exit_code=143, error=error)
    found, out, err = ended(process)

    assert (found, json.loads(out)["exit_code"], err) == (code, code, f"svcagent: {error}\n")
    assert daemon.backend.cancelled == ["web"]


def test_a_signal_only_detaches_from_a_reload_of_another(site: Site, daemon: Daemon) -> None:
    """It goes on, and that is said."""
    daemon.backend.is_running = True
    process = site.start("reload", "web")
    _looked_on(daemon)
    process.send_signal(signal.SIGINT)
    code, _out, err = ended(process)

    assert code == 130
    assert err.startswith("svcagent: the reload of web goes on, in the daemon; to see it: svcagent status\n")
    wait_until(lambda: daemon.backend.lookers_on[0].is_closed, 10, "the daemon knows that it has gone")
    assert daemon.backend.cancelled == []


def test_a_killed_verb_leaves_no_reload_of_its_own(site: Site, daemon: Daemon) -> None:
    """As if the reload had been the verb's own process."""
    process = site.start("reload", "web")
    _looked_on(daemon)
    process.kill()
    ended(process)

    wait_until(lambda: daemon.backend.cancelled == ["web"], 10, "the reload is cancelled")


def test_the_daemon_dies_while_it_is_shown(site: Site) -> None:
    """What is left half done, and who sees to it."""
    with daemon_in(site.place) as daemon:
        process = site.start("reload", "web")
        _looked_on(daemon)
        daemon.backend.lookers_on[0].is_dead = True
        code, out, err = ended(process)

    assert (code, out) == (1, "")
    assert "the daemon has ended while it reloaded web" in err
    assert "svcagent recover" in err


def test_a_reload_of_the_daemons_imports_no_slow_library() -> None:
    """Cron asks every few minutes, for every service."""
    slow = {"agent.cli.reload_here", "consul", "docker", "requests", "rich"}
    code = f"import sys, agent.cli.reload; print(sorted(sys.modules.keys() & {slow}))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("option", ["--check", "--dry-run"])
def test_what_changes_nothing_needs_no_daemon(site: Site, daemon: Daemon, option: str) -> None:
    """It asks Consul itself."""
    assert site.run("reload", option, "web")[0] == 69
    assert daemon.backend.asked == []


@pytest.mark.parametrize("name", ["state", "services.d"])
def test_a_daemon_of_other_directories_is_none(site: Site, daemon: Daemon, name: str) -> None:
    """The daemon's own child verbs read another directory: they must not ask the daemon back."""
    daemon.backend.directory = site.place / "others"
    for one in ("state", "services.d"):
        if one != name:
            (site.place / "others").mkdir()
            (site.place / "others" / one).symlink_to(site.place / one)

    assert site.run("reload", "web")[0] == 69
    assert daemon.backend.asked == []


def test_a_definition_that_the_daemon_has_not_read_yet_is_reloaded_without_it(site: Site, daemon: Daemon) -> None:
    """It was written just now."""
    other = json.loads(json.dumps(DEFINITION).replace('"web"', '"api"'))
    (site.place / "services.d" / "api.json").write_text(json.dumps(other))

    assert site.run("reload", "api")[0] == 69
    assert daemon.backend.lookers_on == []


def test_a_daemon_that_cannot_be_asked_is_a_warning(site: Site) -> None:
    """The reload is done without it."""
    (site.place / "svcagent.sock").touch()
    assert "daemon" not in site.run("reload", "web")[2]
    (site.place / "svcagent.sock").unlink()
    with daemon_in(site.place) as daemon:
        daemon.backend.status = lambda: ["none of ours"]  # type: ignore[assignment,method-assign,return-value]  # that is the fault
        code, _out, err = site.run("reload", "web")

    assert code == 69
    assert err.startswith(f"svcagent: what listens on {site.place}/svcagent.sock does not answer as svcagent does")


def test_status_says_whether_the_daemon_runs(site: Site, host: ConsulHost) -> None:
    """For people in lines, with what comes next; in JSON its whole document."""
    site.consul = f"{host.address}:8500"
    (site.place / "services.d" / "web.json").write_text(json.dumps({"service": DEFINITION["service"]}))
    assert site.run("status")[1].splitlines()[-1] == "daemon: does not run"
    assert json.loads(site.run("--json", "status")[1])["daemon"] is None
    with daemon_in(site.place) as daemon:
        lines = site.run("status")[1].splitlines()[2:]
        of_web = site.run("status", "web")[1].splitlines()[2:]
        document = json.loads(site.run("--json", "status")[1])
        daemon.backend.directory = Path("/elsewhere")
        of_others = site.run("status")[1].splitlines()[-1]
        daemon.backend.status = lambda: ["none of ours"]  # type: ignore[assignment,method-assign,return-value]  # that is the fault
        unknown = site.run("status")[1].splitlines()[-1]

    runs = "daemon: runs since 2026-03-01T10:00:00Z (pid 4711): 1 service"
    cnames, web = "next cname sync: 2026-03-01T10:00:00Z", "next reload web: 2026-03-01T10:10:00Z"
    assert lines == [runs, cnames, web, "next reload api: 2026-03-01T10:10:00Z"]
    assert of_web == [runs, web]
    assert of_others == "daemon: runs, but for other directories: /elsewhere/state and /elsewhere/services.d"
    assert unknown == "daemon: cannot be asked"
    assert document["daemon"]["is_ready"]
    assert [row["service"] for row in document["services"]] == ["web"]
