"""Containers that could not be started again: they are refused while they still run."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.engine.client import Engine
from agent.engine.queries import Queries
from agent.engine.sdk import Client
from agent.errors import Conflict, NotReady, SvcagentError
from tests.real.engine_fixture import POLITE, DockerHost, docker_host, newer
from tests.support.kinds import raises_kind


@pytest.fixture
def engine(docker: DockerHost) -> Iterator[Engine]:
    """One that sees the process table of the containers, as on a host of its own."""
    engine = Engine(docker.server.url, docker.environment, SystemClock(), docker.proc)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture
def file(docker: DockerHost) -> Iterator[Path]:
    """A file of the host, which is bound over one of the image."""
    path = docker.directory / "bound-file"
    path.write_text("host")
    yield path
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)


def run(docker: DockerHost, image: str, **host: Any) -> str:
    """Run ``app``, and have the next version here; its digest."""
    docker.run("app", image, POLITE, host_config=host)
    return newer(docker, image)


def assert_refused(engine: Engine, docker: DockerHost, image: str, digest: str, why: str) -> None:
    """Refused at every step until the container is stopped, which goes on as before."""
    before = docker.inspect("app")["State"]
    with raises_kind(Conflict, "not-startable") as checked:
        engine.check_recreatable("app")
    with raises_kind(Conflict, "not-startable") as prepared:
        engine.prepare("app", image, digest)
    assert why in str(checked.value)
    assert why in str(prepared.value)
    assert docker.inspect("app")["State"] == before
    assert docker.names() == {"app"}


@pytest.mark.parametrize("form", ["bind", "mount"])
def test_a_bind_source_that_is_gone(engine: Engine, docker: DockerHost, image: str, file: Path, form: str) -> None:
    """Docker would make a directory of its name at the next start, or fail to."""
    mount = {"Type": "bind", "Source": str(file), "Target": "/etc/app.conf"}
    options: dict[str, Any] = {"mounts": [mount]} if form == "mount" else {"binds": [f"{file}:/etc/app.conf:ro"]}
    digest = run(docker, image, **options)
    engine.check_recreatable("app")
    file.unlink()

    assert_refused(engine, docker, image, digest, f"bind source {file} does not exist")
    assert not file.exists()


def test_a_file_that_became_a_directory(engine: Engine, docker: DockerHost, image: str, file: Path) -> None:
    """So it is after another container was started with it while it was gone."""
    digest = run(docker, image, binds=[f"{file}:/version"])
    file.unlink()
    file.write_text("another file is fine")
    engine.check_recreatable("app")
    file.unlink()
    file.mkdir()

    assert_refused(engine, docker, image, digest, f"{file} is a directory, but was a file")


def test_a_device_that_is_gone(engine: Engine, docker: DockerHost, image: str) -> None:
    device = docker.directory / "device"
    os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    digest = run(docker, image, devices=[f"{device}:/dev/app:r"])
    engine.check_recreatable("app")
    device.unlink()

    assert_refused(engine, docker, image, digest, f"device {device} does not exist")


def test_a_log_collector_that_is_down(engine: Engine, docker: DockerHost, image: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as collector:
        address = f"127.0.0.1:{collector.getsockname()[1]}"
        digest = run(docker, image, log_config={"Type": "fluentd", "Config": {"fluentd-address": address}})
        engine.check_recreatable("app")

    assert_refused(engine, docker, image, digest, f"fluentd cannot connect to tcp://{address}")


def test_what_is_lost_after_preparation_is_found(engine: Engine, docker: DockerHost, image: str, file: Path) -> None:
    digest = run(docker, image, binds=[f"{file}:/etc/app.conf"])
    engine.prepare("app", image, digest)
    file.unlink()

    with raises_kind(Conflict, "not-startable"):
        engine.check_startable("app")


def test_an_image_is_not_blamed_for_what_the_host_loses_during_the_stop(
    engine: Engine, docker: DockerHost, image: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's words are those for an image that has a file where a directory is mounted."""
    digest = run(docker, image, binds=[f"{file}:/version"])
    engine.prepare("app", image, digest)
    stop = Client.stop

    def stop_and_lose(client: Client, container: str, timeout: int) -> None:
        stop(client, container, timeout)
        file.unlink()

    monkeypatch.setattr(Client, "stop", stop_and_lose)
    with pytest.raises(SvcagentError, match="mount a directory onto a file") as caught:
        engine.replace("app", digest, 0)

    assert not isinstance(caught.value, NotReady)


def test_an_engine_elsewhere_is_not_judged_by_this_hosts_paths(
    engine: Engine, docker: DockerHost, image: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own files of the container are not here."""
    run(docker, image, binds=[f"{file}:/etc/app.conf"])
    file.unlink()
    inspect = Queries.inspect
    monkeypatch.setattr(Queries, "inspect", lambda *named: {**inspect(*named), "HostsPath": "/elsewhere/hosts"})

    engine.check_recreatable("app")


def test_a_link_on_the_default_network_to_a_container_that_has_stopped() -> None:
    with docker_host(has_bridge=True) as docker:
        image = docker.make("1")
        docker.run("db", image, host_config={"network_mode": "bridge"})
        docker.run("app", image, host_config={"network_mode": "bridge", "links": {"db": "database"}})
        docker.engine.check_recreatable("app")
        docker.api.kill("db")

        with raises_kind(Conflict, "not-startable"):
            docker.engine.check_recreatable("app")
