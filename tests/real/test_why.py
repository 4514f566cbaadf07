"""``svcagent why`` on a real Consul, Docker Engine and registry: all that stands in the way, at once."""

import json
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.clock import Deadline, SystemClock
from agent.consul import Consul, Lock
from agent.definitions import ReloadSection, Service
from agent.fleet import HostState, Pause, Pin, Quarantine, pause, quarantine, rollout, write_host_state
from agent.maintenance import by_operator, by_reload, render
from agent.reload.host_lock import HostLock
from agent.reload.journal import Journal, JournalRecord
from tests.lab.ground import wait_until
from tests.real.conftest import ConsulHost
from tests.real.engine_fixture import DockerHost
from tests.support.svcagent import Svcagent

NODE = "server"
NOW = datetime.now(UTC).replace(microsecond=0)


class ReloadHost(Svcagent):
    def __init__(self, home: Path, host: ConsulHost, docker: DockerHost, image: str) -> None:
        docker_host, alice = docker.server.url, "alice"
        super().__init__(home, CONSUL_HTTP_ADDR=f"{host.address}:8500", DOCKER_HOST=docker_host, SUDO_USER=alice)
        self.host, self.docker, self.image = host, docker, image
        self.define_web()

    def define_web(self, **reload: Any) -> None:
        """Define it; a fleet of one, unless ``reload`` says otherwise."""
        check = {"tcp": f"{self.host.address}:8500", "interval": "1s", "status": "passing"}
        section = {"image": self.image, "container": "web", "min_healthy": 0, **reload}
        self.write("web", {"service": {"name": "web", "port": 1, "checks": [check]}, "reload": section})

    def shown(self, *argv: str, code: int = 0, **settings: str) -> str:
        return self.run(*argv, code=code, **settings).text

    def why(self, code: int = 75, **settings: str) -> dict[str, str]:
        """What stands in the way, in words, by kind."""
        reasons = json.loads(self.shown("--json", "why", "web", code=code, **settings))["reasons"]
        found = {one["kind"]: f"{one['what']}; {one['remedy']}" for one in reasons}
        assert len(found) == len(reasons), reasons
        return found


@pytest.fixture
def site(host: ConsulHost, docker: DockerHost, tmp_path: Path, image: str) -> Any:
    """Version 1 runs and passes; nothing newer is in the registry."""
    docker.run("web", image)
    made = ReloadHost(tmp_path, host, docker, image)
    made.run("register")
    wait_until(lambda: host.ask.passing("web") == (NODE,), 10, "web passes")
    yield made
    made.run("deregister", "web")
    host.ask.delete("/v1/kv/svcagent/web/?recurse")


def test_nothing_newer_and_no_obstacle(site: ReloadHost) -> None:
    assert "web runs the newest image already: sha256:" in site.shown("why", "web")
    newest = site.docker.push("2")

    assert f"the newest is {newest}\nnothing blocks it; run: svcagent reload web" in site.shown("why", "web")


def test_a_stopped_container_is_not_said_to_run(site: ReloadHost) -> None:
    """Neither with the newest image nor with an older one."""
    site.docker.api.stop("web", timeout=0)

    newest = site.shown("why", "web")
    site.docker.push("2")
    older = site.shown("why", "web", code=75)

    assert "web does not run; its container has the newest image already: sha256:" in newest
    assert "web does not run; its container has sha256:" in older
    assert "to start it, run: docker start web" in newest
    assert "web runs" not in newest + older


def test_a_faulty_file_of_another_service_stops_no_reload(site: ReloadHost) -> None:
    """The fault is a warning, and in JSON it is part of the document."""
    site.write("other", {"service": {"name": "other", "prot": 80}})
    site.docker.push("2")

    assert "other.json: service.prot: " in site.shown("why", "web")
    assert json.JSONDecoder().raw_decode(site.shown("--json", "why", "web"))[0]["faults"][0]["path"] == "service.prot"
    site.shown("lock", "status", "web")
    site.shown("reload", "web")

    assert "web runs the newest image already" in site.shown("why", "web")


def test_all_obstacles_are_listed_together_with_who_can_clear_them(site: ReloadHost, consul: Consul) -> None:
    """Pause, quarantine, maintenance of an operator, another reload here: four lines, and nothing was changed."""
    newest = site.docker.push("2")
    pause.put(consul, "web", Pause("bob", "host2", "release", NOW), NOW)
    quarantine.put(consul, "web", Quarantine(newest, "host3", NOW, "not ready in 2 m"))
    consul.enable_maintenance("web", render(by_operator("carol", NODE, "disk", NOW)))
    wait_until(lambda: site.host.ask.passing("web") == (), 10, "web is out")
    before = site.host.ask.get("/v1/kv/svcagent/?recurse")
    images = site.docker.api.images()

    with HostLock(site.state_dir, "web", SystemClock(), 0):
        found = site.why()

    assert set(found) == {"paused", "quarantined", "in-maintenance", "reload-running"}
    assert "by bob on host2 since" in found["paused"]
    assert "svcagent resume web" in found["paused"]
    assert "it failed on host3" in found["quarantined"]
    assert f"svcagent quarantine clear web {newest[:19]}" in found["quarantined"]
    assert "by carol on server" in found["in-maintenance"]
    assert "svcagent maint disable web" in found["in-maintenance"]
    assert "svcagent reload web --in-maintenance" in found["in-maintenance"]
    assert f"pid {os.getpid()}" in found["reload-running"]
    assert set(site.why()) == {"paused", "quarantined", "in-maintenance"}
    assert site.host.ask.get("/v1/kv/svcagent/?recurse") == before
    assert site.docker.api.images() == images


def test_obstacles_are_listed_also_when_there_is_nothing_newer(site: ReloadHost, consul: Consul) -> None:
    pause.put(consul, "web", Pause("bob", "host2", "release", NOW), NOW)

    said = site.shown("why", "web")
    assert "the next reload is blocked by:\n- reloads of web are paused, by bob" in said


def test_too_few_others_and_a_crashed_reloads_maintenance(site: ReloadHost, consul: Consul) -> None:
    """The definition asks for another instance; then a reload's maintenance stands there, and how to lift it."""
    site.docker.push("2")
    site.define_web(min_healthy=1)
    assert "min_healthy to 0" in site.why()["too-few-healthy"]

    consul.enable_maintenance("web", render(by_reload("ab12", NODE, "to run sha256:1", NOW)))
    wait_until(lambda: site.host.ask.passing("web") == (), 10, "web is out")
    found = site.why()
    assert "svcagent recover web" in found["reload-unfinished"]
    assert not found.keys() & {"too-few-healthy", "in-maintenance"}


def test_a_crashed_reload_and_what_it_left(site: ReloadHost, consul: Consul) -> None:
    """`why` and `status` name it and its step, and do not suggest to start the container behind it."""
    site.docker.push("2")
    reload = ReloadSection(image=site.image, container="web")
    record = JournalRecord.of(Service(name="web"), reload, "ab12", NOW.isoformat())
    Journal(site.state_dir, "web").write(replace(record, step="restart"))
    site.docker.api.stop("web", timeout=0)
    details = {"node": NODE, "pid": 1, "command": "svcagent reload", "service": "web"}
    with Lock(consul, record.lock, "svcagent reload web", details, SystemClock()) as lock:
        lock.acquire(Deadline.after(SystemClock(), 10))
        found, said, status = site.why(), site.shown("why", "web", code=75), site.shown("status", "web")
        document = site.run("--json", "status").document

    assert found.keys() == {"reload-unfinished", "lock-busy"}
    assert "pid 1" not in found["lock-busy"]
    crash = "reload ab12 of web crashed at step restart"
    assert crash in said.splitlines()[1]
    assert f"{crash}. To finish it or roll it back, run: svcagent recover web" in status
    assert "docker start" not in said + status
    assert document["services"][0]["unfinished"]["step"] == "restart"


def test_the_reload_of_a_service_that_is_not_defined_any_more(site: ReloadHost) -> None:
    reload = ReloadSection(image=site.image, container="old")
    Journal(site.state_dir, "old").write(JournalRecord.of(Service(name="old"), reload, "ab12", NOW.isoformat()))

    assert "run: svcagent recover old" in site.shown("status")
    assert "recover" not in site.shown("status", "web")


def test_status_shows_the_hosts_maintenance(site: ReloadHost) -> None:
    site.run("maint", "enable", "--node", "--reason", "new kernel")
    try:
        shown = site.shown("status")
        [service] = site.run("--json", "status").document["services"]
    finally:
        site.run("maint", "disable", "--node")

    assert "\tmaintenance\t" in shown
    assert f"{NODE} (this host): by alice on {NODE}" in shown
    assert (service["state"], service["maintenance"]) == ("maintenance", None)
    assert service["host_maintenance"]["reason"] == "new kernel"


def test_windows_and_the_age_of_an_image(site: ReloadHost) -> None:
    """The window opens for a minute, half a day from now; the image's age is known once it is here."""
    newest = site.docker.push("2")
    opens = NOW + timedelta(hours=12)
    closes = opens + timedelta(minutes=1)
    site.define_web(windows=[f"{opens:%H:%M}-{closes:%H:%M}"], timezone="UTC", min_age="1h")

    found = site.why()
    assert set(found) == {"window-closed", "too-young"}
    assert f"opens at {opens:%Y-%m-%dT%H:%M:00Z}" in found["window-closed"]
    site.docker.engine.pull(site.image, newest, lambda _: None)
    assert (
        "requires an image that is at least 1h old (reload.min_age), and this one was built" in site.why()["too-young"]
    )


def test_who_holds_the_lock_and_which_place_this_host_has_in_the_line(site: ReloadHost, consul: Consul) -> None:
    """The holder by its details, those who wait by their hosts' names, this host by its number."""
    site.docker.push("2")
    clock, done = SystemClock(), threading.Event()
    details = {"service": "web", "pid": 7, "command": "svcagent reload"}

    def wait_in_line(own: Consul) -> None:
        with Lock(own, "svcagent/web/lock", "svcagent reload web", {**details, "node": NODE}, clock) as waiting:
            waiting.acquire(Deadline.after(clock, 60))
            done.wait(30)

    with Lock(consul, "svcagent/web/lock", "svcagent reload web", {**details, "node": "host2"}, clock) as lock:
        lock.acquire(Deadline.after(clock, 10))
        own = consul.another()
        waiter = threading.Thread(target=wait_in_line, args=(own,))
        waiter.start()
        wait_until(lambda: "number 1" in site.why().get("lock-busy", ""), 20, "it stands in the line")
        said = site.why()["lock-busy"]
    assert "the lock svcagent/web/lock is held by host2 (svcagent reload, pid 7" in said
    assert f"queue: {NODE}; this host is number 1" in said
    wait_until(lambda: f"held by {NODE} (" in site.why().get("lock-busy", ""), 20, "it was handed on")
    done.set()
    waiter.join(30)
    own.close()

    assert site.why(code=0) == {}


def test_a_service_that_a_command_restarts_has_no_image(site: ReloadHost) -> None:
    """No line about Docker or the registry, but the rest."""
    file = site.services_dir / "web.json"
    definition = json.loads(file.read_text())
    definition["reload"] = {"restart": ["/bin/true"], "min_healthy": 1}
    file.write_text(json.dumps(definition))

    assert set(site.why(DOCKER_HOST="unix:///nowhere/docker.sock")) == {"too-few-healthy"}
    assert "web is restarted by a command" in site.shown("why", "web", code=75)


def test_a_rollout_under_way_binds_this_host_to_its_digest(site: ReloadHost, consul: Consul) -> None:
    """Older than the newest; it says who is waited for. When it is over, nothing stands in the way."""
    newest = site.docker.push("3")
    older = f"sha256:{'2' * 64}"
    rollout.pin(consul, "web", Pin(site.image, older, "host2", NOW - timedelta(minutes=5)), 0)

    found = site.why()
    assert set(found) == {"older-rollout"}
    assert f"rollout of an older digest, {older[:19]}, is in progress, pinned by host2" in found["older-rollout"]
    assert f"it waits for: {NODE}" in found["older-rollout"]
    assert newest[:19] in found["older-rollout"]
    document = json.loads(site.shown("--json", "why", "web", code=75))
    assert (document["newest"], document["wanted"], document["is_newest"]) == (newest, older, False)

    write_host_state(consul, "web", NODE, HostState(older, "running", NOW))
    assert site.why(code=0) == {}


def test_a_digest_that_only_a_pin_speaks_for_is_not_taken(site: ReloadHost, consul: Consul) -> None:
    """A digest pushed under another tag and pinned in KV: exit 75, and the message names who wrote the pin."""
    branch = site.docker.push("3")
    newest = site.docker.push("2")
    rollout.pin(consul, "web", Pin(site.image, branch, "mallory", NOW - timedelta(minutes=5)), 0)

    for verb in (["reload", "web"], ["reload", "web", "--check"]):
        said = site.shown(*verb, code=75)
        assert "written by mallory" in said
        assert branch in said
        assert "consul kv delete svcagent/web/rollout" in said
        assert "trust_pins" in said
    assert "written by mallory" in site.why()["older-rollout"]
    assert not site.docker.engine.has_image(site.image, branch)

    settings = site.state_dir.parent / "trusting.toml"
    settings.write_text("[fleet]\ntrust_pins = true\n")
    document = json.loads(site.shown("--config", str(settings), "reload", "web", "--check", "--json"))
    assert document["wanted"] == branch
    site.shown("reload", "web", "--force")
    found, _index = rollout.find(consul, "web")
    assert found is not None
    assert found.digest == newest


def test_a_reload_that_keeps_its_version_for_a_rollout_says_so(site: ReloadHost, consul: Consul) -> None:
    """The tag has moved, and another host has not got the pinned version yet: exit code 0, but not in silence."""
    site.docker.push("2")
    site.shown("reload", "web")
    found, _index = rollout.find(consul, "web")
    assert found is not None
    newest = site.docker.push("3")
    other = {"Node": "host2", "Address": "127.0.0.9", "Service": {"Service": "web", "Port": 1}}
    site.host.ask.put("/v1/catalog/register", other)
    try:
        said, checked = site.shown("reload", "web"), site.shown("reload", "--check", "web")
        document = site.run("--json", "reload", "--check", "web").document
    finally:
        site.host.ask.put("/v1/catalog/deregister", {"Node": "host2"})

    waiting = f"web: newer image {newest[:19]}; it waits for the rollout of {found.digest[:19]}: "
    assert waiting in said
    assert waiting in checked
    assert (document["is_newer"], document["wanted"], document["newest"]) == (False, found.digest, newest)
    assert "it waits for host2" in said


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"CONSUL_HTTP_ADDR": "127.0.0.1:1"}, "consul-unreachable"),
        ({"DOCKER_HOST": "unix:///nowhere/docker.sock"}, "docker-unreachable"),
    ],
)
def test_who_cannot_be_asked_is_one_line_and_the_others_are_asked(
    site: ReloadHost, consul: Consul, settings: dict[str, str], kind: str
) -> None:
    """Without Consul what Docker says is known, and the other way round."""
    site.docker.push("2")
    pause.put(consul, "web", Pause("bob", "host2", "release", NOW), NOW)

    found = site.why(69, **settings)
    assert set(found) == ({kind} if kind == "consul-unreachable" else {kind, "paused"})
    assert next(iter(settings.values())).removeprefix("unix://") in found[kind]


def test_no_server_can_be_asked(site: ReloadHost) -> None:
    """Each is a line, also when the definition refers to the agent's address."""
    file = site.services_dir / "web.json"
    file.write_text(file.read_text().replace('"port"', '"address": "${ADDRESS}", "port"'))

    found = site.why(69, CONSUL_HTTP_ADDR="127.0.0.1:1", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert set(found) == {"consul-unreachable", "docker-unreachable"}


def test_an_image_that_does_not_exist(site: ReloadHost) -> None:
    """The exit code is that of a reload."""
    site.define_web(image=site.image.replace(":latest", ":nowhere"))

    assert site("why", "web").code == site("reload", "web").code == 1


def test_a_registry_that_is_away_and_a_container_that_is_missing(site: ReloadHost, consul: Consul) -> None:
    pause.put(consul, "web", Pause("bob", "host2", "release", NOW), NOW)
    site.define_web(image="127.0.0.1:1/web:latest", container="nobody")

    found = site.why(69)
    assert set(found) == {"registry-unreachable", "not-found", "paused"}
    assert "127.0.0.1:1" in found["registry-unreachable"]
    assert "nobody" in found["not-found"]


def test_an_instance_that_is_not_registered_is_reported(site: ReloadHost) -> None:
    """The catalog does not show it, so nobody could see it leave."""
    site.docker.push("2")
    site.host.ask.deregister_service("web")
    wait_until(lambda: site.host.ask.passing("web") == (), 10, "web is gone")

    assert "svcagent register" in site.why()["not-in-catalog"]


def test_a_name_without_a_definition_or_reload_is_a_usage_error(site: ReloadHost) -> None:
    assert "web" in site.shown("why", "nothing", code=2)
    site.define("still")
    assert "reload" in site.shown("why", "still", code=2)
