"""``svcagent doctor`` on a real Consul agent and a real Docker Engine: a healthy host, and one with many faults."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from agent.maintenance.reason import Maintenance, by_operator, by_reload, render
from tests.lab.ground import wait_until
from tests.lab.unit import Unit
from tests.real.access_fixture import Listener
from tests.real.conftest import ConsulHost
from tests.real.engine_fixture import SLEEP, DockerHost
from tests.support.svcagent import Svcagent

NODE = "server"


class DoctorHost(Svcagent):
    """One host with Consul, Docker and a registry."""

    def __init__(self, home: Path, consul: ConsulHost, docker: DockerHost, image: str) -> None:
        super().__init__(
            home,
            CONSUL_HTTP_ADDR=f"{consul.address}:8500",
            DOCKER_HOST=docker.server.url,
            DOCKER_CONFIG=str(home / "docker"),
            SVCAGENT_STATUS_FILE=str(home / "status.json"),
        )
        self.consul, self.docker, self.image = consul, docker, image

    def define_reload(self, name: str, *, image: str = "", **reload: Any) -> None:
        """Define a service that passes, whose reload replaces the container of its name."""
        check = {"tcp": f"{self.consul.address}:8500", "interval": "1s", "timeout": "1s", "status": "passing"}
        service = {"name": name, "port": 8500, "address": self.consul.address, "checks": [check]}
        section = {"image": image or self.image, "container": name, "min_healthy": 0, **reload}
        self.write(name, {"service": service, "reload": section})

    def hold(self, service: str, maintenance: Maintenance) -> None:
        """Take it out of service by this maintenance."""
        reason = quote(render(maintenance))
        self.consul.ask.put(f"/v1/agent/service/maintenance/{service}?enable=true&reason={reason}")

    def examined(self, *arguments: str, **settings: str) -> tuple[int, list[dict[str, str]]]:
        result = self("--json", "doctor", *arguments, **settings)
        assert "Traceback" not in result.err, result.err
        found: list[dict[str, str]] = json.loads(result.out)
        assert all(one.get("remedy") for one in found if one["level"] in ("error", "warning", "note"))
        return result.code, found


@pytest.fixture
def site(host: ConsulHost, docker: DockerHost, image: str, tmp_path: Path) -> Iterator[DoctorHost]:
    yield DoctorHost(tmp_path, host, docker, image)
    for service_id in host.ask.get("/v1/agent/services"):
        host.ask.put(f"/v1/agent/service/deregister/{service_id}")
    host.ask.delete("/v1/kv/svcagent/?recurse")


@pytest.fixture
def daemon(site: DoctorHost, tmp_path: Path) -> Iterator[Unit]:
    """svcagent run, as soon as it is started."""

    unit = Unit("this host", tmp_path, site.start)
    yield unit
    unit.discard()


def faults(found: list[dict[str, str]], *levels: str) -> set[tuple[str, str, str]]:
    """Subject, check and service of what matters that much."""
    return {(one["subject"], one["check"], one.get("service", "")) for one in found if one["level"] in levels}


def test_a_healthy_host_has_no_findings(site: DoctorHost, daemon: Unit) -> None:
    """Registered and watched by the daemon. What is known of the release of Consul depends on which one is there."""
    site.docker.run("web", site.image, SLEEP)
    site.define_reload("web")
    daemon.start()
    wait_until(lambda: bool(site.consul.ask.passing("web")), 20, "the daemon has registered web")
    keys = site.consul.ask.get("/v1/kv/?keys")
    services = site.consul.ask.get("/v1/agent/services")

    code, found = site.examined()

    bad = [one for one in found if one["level"] not in ("ok", "note") and one["check"] != "release"]
    assert (bad, code) == ([], 0)
    assert site.consul.ask.get("/v1/kv/?keys") == keys
    assert site.consul.ask.get("/v1/agent/services") == services
    assert site.consul.ask.get("/v1/session/list") == []
    text = site.run("doctor", "web").out
    assert "error" not in text
    assert text.splitlines()[-1].endswith(" ok")


def test_many_faults_are_all_named(site: DoctorHost, tmp_path: Path) -> None:
    site.docker.run("web", site.image, SLEEP, host_config={"auto_remove": True})
    site.docker.run("api", site.image, SLEEP)
    site.docker.run("api.svcagent-old", site.image, SLEEP)
    site.define_reload("web")
    site.define_reload("api")
    site.define_reload("gone")
    site.consul.ask.put("/v1/kv/svcagent/gone/quarantine/sha256:00", {"v": 1})
    assert site.run("register", "api", "web").code == 0
    site.write("bad", {"service": {"name": "bad", "prot": 80}})
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text('{"credsStore": "nowhere"}')
    (site.state_dir / "reload-web.journal").write_text("{}")
    now = datetime.now(UTC)
    site.hold("api", by_reload("1", NODE, "x", now))
    site.hold("web", by_operator("alice", NODE, "disk swap", now - timedelta(hours=2), now - timedelta(hours=1)))
    site.state_dir.chmod(0o777)

    code, found = site.examined()

    assert code == 1
    assert faults(found, "error") >= {
        ("definitions", "faults", ""),
        ("consul", "agent", "gone"),
        ("docker", "containers", "web"),
        ("docker", "containers", "gone"),
        ("docker", "credentials", ""),
        ("host", "runner", ""),
        ("files", "ownership", ""),
        ("leftovers", "journals", "web"),
        ("leftovers", "containers", "api"),
        ("leftovers", "maintenance", "api"),
    }
    assert ("leftovers", "maintenance", "web") in faults(found, "warning")
    assert ("upgrade", "keys", "gone") in faults(found, "note")
    assert not any("bug" in one.get("remedy", "") for one in found)


def test_without_consul_docker_is_examined(site: DoctorHost) -> None:
    site.docker.run("web", site.image, SLEEP, host_config={"auto_remove": True})
    site.define_reload("web")

    code, found = site.examined(CONSUL_HTTP_ADDR="127.0.0.1:1")

    assert code == 1
    assert ("consul", "agent", "") in faults(found, "error")
    assert ("docker", "containers", "web") in faults(found, "error")
    assert ("consul", "leader", "") in faults(found, "unknown")
    shown = site("doctor", CONSUL_HTTP_ADDR="127.0.0.1:1").out
    assert shown.count("127.0.0.1:1") == 1, shown
    assert "\nnot checked, because Consul does not answer: definitions requirements, consul release, " in shown


def test_a_container_that_could_not_be_started_again(site: DoctorHost, tmp_path: Path) -> None:
    """What the guard of a reload refuses is an error here; of any other container nothing more is claimed."""
    bound = tmp_path / "app.conf"
    bound.write_text("x")
    site.docker.run("web", site.image, SLEEP, host_config={"binds": [f"{bound}:/etc/app.conf"]})
    site.define_reload("web")

    def diagnosed() -> tuple[str, str]:
        _code, found = site.examined("--only", "docker")
        [one] = [one for one in found if one["check"] == "containers"]
        return one["level"], one["what"]

    assert diagnosed() == ("ok", "container web can be recreated")
    bound.unlink()
    level, what = diagnosed()
    assert level == "error"
    assert f"{bound} does not exist" in what


def test_without_docker_consul_is_examined(site: DoctorHost) -> None:
    site.define_reload("web")

    code, found = site.examined(DOCKER_HOST="unix:///nonexistent.sock")

    assert code == 1
    assert ("docker", "engine", "") in faults(found, "error")
    assert ("consul", "agent", "web") in faults(found, "error")
    assert ("consul", "node", "") in faults(found, "ok")


def test_a_socket_proxy_that_only_reads(site: DoctorHost) -> None:
    """What it refuses is named by section; asking changes nothing."""
    site.docker.run("web", site.image, SLEEP)
    site.define_reload("web")
    before = site.docker.inspect("web")["State"]
    with Listener(_reading_proxy(site.docker.server.url.removeprefix("unix://"))) as proxy:
        _code, found = site.examined("--only", "docker", DOCKER_HOST=f"tcp://127.0.0.1:{proxy.port}")
    _code, direct = site.examined("--only", "docker")

    refused = [one["what"] for one in found if one["check"] == "sections" and one["level"] == "error"]
    assert {what.split(" refuses ")[1].split(",")[0] for what in refused} == {
        "POST /containers",
        "POST /images",
        "POST /networks",
        "DELETE /containers",
        "DELETE /images",
    }
    assert faults(direct, "error", "unknown") == set()
    assert site.docker.inspect("web")["State"] == before
    assert site.docker.names() == {"web"}


def test_one_subject_and_one_service_alone(site: DoctorHost) -> None:
    """One subject of one service, whose container runs and whose tag the registry does not have."""
    site.docker.run("api", site.image, SLEEP)
    site.define_reload("web")
    site.define_reload("api", image=f"{site.image}-missing")

    code, found = site.examined("api", "--only", "docker")
    unknown = site("doctor", "nobody")

    assert ({one["subject"] for one in found}, code) == ({"docker"}, 1)
    assert faults(found, "error", "warning", "unknown") == {("docker", "registry", "api")}
    assert unknown.code == 2


def _reading_proxy(engine: str) -> Callable[[socket.socket], None]:
    """Refuse whatever is not a GET or HEAD, as a proxy for the Docker socket does; a connection for each request."""

    def serve(connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := connection.recv(65536)):
                return
            head += data
        if not head.startswith((b"GET ", b"HEAD ")):
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with socket.socket(socket.AF_UNIX) as onward, suppress(OSError):
            onward.connect(engine)
            onward.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            while data := onward.recv(65536):
                connection.sendall(data)

    return serve
