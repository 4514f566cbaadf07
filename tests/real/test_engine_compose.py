"""Containers made by docker-compose: what it still knows of them after a replacement."""

import io
import json
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from agent.engine.recreate import COMPOSE_IMAGE_LABEL
from tests.real.engine_fixture import BUSYBOX, POLITE, DockerHost, newer


class Compose:
    """``docker-compose`` for one project of one service."""

    def __init__(self, docker: DockerHost, file: Path) -> None:
        self._docker = docker
        self._file = file

    def __call__(self, *arguments: str, **environment: str) -> str:
        """Run it; what it prints on standard output and standard error."""
        # Compose 2 has no --host.
        command = ["docker-compose", "--ansi", "never", "--file", str(self._file)]
        environ = self._docker.environment | {"DOCKER_HOST": self._docker.server.url} | environment
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environ, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def ids(self) -> list[str]:
        """The containers that it knows as the project's."""
        return self("ps", "--quiet").split()


@pytest.fixture
def compose(docker: DockerHost, image: str, tmp_path: Path) -> Compose:
    """A project whose service runs as ``app`` under host networking."""
    service = {
        "image": image,
        "container_name": "app",
        "network_mode": "host",
        "restart": "unless-stopped",
        "command": [part.replace("$", "$$") for part in POLITE],
        "labels": {"team": "search"},
        "volumes": ["data:/data", "/anonymous"],
        "stop_grace_period": "1s",
    }
    file = tmp_path / "docker-compose.yml"
    file.write_text(json.dumps({"services": {"web": service}, "volumes": {"data": {}}}))
    project = Compose(docker, file)
    project("up", "--detach")
    return project


def labels(docker: DockerHost) -> dict[str, str]:
    found: dict[str, str] = docker.inspect("app")["Config"]["Labels"]
    return {key: value for key, value in found.items() if not key.startswith("svcagent.")}


def test_a_container_of_docker_compose_stays_its_own(docker: DockerHost, image: str, compose: Compose) -> None:
    """Labels are kept, but for Compose 2's of the image; ps, stop and start act on the new container.

    up --no-recreate leaves it alone.
    """
    before = labels(docker)
    new_id = docker.replace("app", image, newer(docker, image), None).new_id
    docker.engine.remove_old("app")

    image_label = {COMPOSE_IMAGE_LABEL: docker.inspect("app")["Image"]} if COMPOSE_IMAGE_LABEL in before else {}
    assert labels(docker) == before | image_label
    assert compose.ids() == [new_id]
    compose("stop")
    assert not docker.engine.container("app").is_running
    compose("start")
    compose("up", "--detach", "--no-recreate")
    app = docker.engine.container("app")
    assert (app.id, app.is_running, app.restart_policy) == (new_id, True, "unless-stopped")


def test_the_next_up_of_docker_compose_keeps_the_data_and_1_makes_the_container_again_once(
    docker: DockerHost, image: str, compose: Compose
) -> None:
    """Compose 1 counts the image to the configuration, as after a pull; Compose 2 has a label for it.

    svcagent can replace what Compose makes.
    """
    docker.executed("app", "sh", "-c", "echo precious > /data/file; echo precious > /anonymous/file")
    new_id = docker.replace("app", image, newer(docker, image), None).new_id
    docker.engine.remove_old("app")
    is_compose_2 = COMPOSE_IMAGE_LABEL in labels(docker)
    if not is_compose_2 and "ContainerConfig" not in docker.image(image):
        # With Engine 25 and later, Compose 1 can make no container anew, whoever changed the image: its own fault.
        with pytest.raises(AssertionError, match="KeyError: 'ContainerConfig'"):
            compose("up", "--detach")
        return

    compose("up", "--detach")
    made = docker.engine.container("app").id
    compose("up", "--detach")

    assert docker.engine.container("app").id == made
    assert (made == new_id) == is_compose_2
    assert docker.executed("app", "cat", "/version", "/data/file", "/anonymous/file") == "2precious\nprecious"
    docker.replace("app", image, newer(docker, image, content="3"), None)
    assert docker.executed("app", "cat", "/version", "/data/file", "/anonymous/file") == "3precious\nprecious"


def test_during_a_replacement_docker_compose_sees_both(docker: DockerHost, image: str, compose: Compose) -> None:
    """The old one is stopped; its removal ends that."""
    docker.replace("app", image, newer(docker, image), None)

    listed = compose("ps", "--all")

    assert "app.svcagent-old" in listed
    assert listed.count(" Up ") == 1


WRITING = (BUSYBOX, "sh", "-c", f"echo mine > /written; trap 'exit 0' TERM; {BUSYBOX} sleep 3600 & wait $!")
COPIED = {"/run/secrets/token": "hush", "/etc/app.conf": "a=b"}


def up_with_copied_files(docker: DockerHost, image: str, file: Path) -> None:
    """Make ``app`` with a secret of the environment and a config whose content stands in the file.

    Compose 1 knows neither. There the calls are made that Compose 2 makes.
    """
    service: dict[str, Any] = {"image": image, "container_name": "app", "network_mode": "none"}
    service["command"] = [part.replace("$", "$$") for part in WRITING]
    service |= {"secrets": ["token"], "configs": [{"source": "settings", "target": "/etc/app.conf"}]}
    secrets, configs = {"token": {"environment": "TOKEN"}}, {"settings": {"content": "a=b"}}
    file.write_text(json.dumps({"services": {"web": service}, "secrets": secrets, "configs": configs}))
    project = Compose(docker, file)
    if "version 1." not in project("version"):
        project("up", "--detach", TOKEN="hush")
        return
    host = docker.api.create_host_config(network_mode="none")
    labels = {"com.docker.compose.project": "shop"}
    docker.api.create_container(image, list(WRITING), name="app", host_config=host, labels=labels)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, content in COPIED.items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode, member.mtime = len(content), 0o444, round(time.time())
            archive.addfile(member, io.BytesIO(content.encode()))
    docker.api.put_archive("app", "/", packed.getvalue())
    docker.api.start("app")


def own_files(docker: DockerHost, name: str) -> set[str]:
    """The files in a container's own layer."""
    paths = {one["Path"] for one in docker.api.diff(name)}
    return {path for path in paths if not any(other.startswith(f"{path}/") for other in paths)}


def test_files_that_compose_copies_into_a_container_go_with_it(docker: DockerHost, image: str, tmp_path: Path) -> None:
    """From one reload to the next, with their modes and owners; what the program writes does not."""
    up_with_copied_files(docker, image, tmp_path / "docker-compose.yml")
    docker.executed("app", "chown", "7:8", "/run/secrets/token")
    status = ("stat", "-c", "%a %u:%g %n", *COPIED)
    before = docker.executed("app", *status)

    for version in ("2", "3"):
        digest = newer(docker, image, content=version)
        docker.engine.prepare("app", image, digest)
        assert own_files(docker, "app") == {*COPIED, "/written"}
        assert own_files(docker, "app.svcagent-new") == {*COPIED}
        docker.engine.replace("app", digest, 0)
        docker.engine.remove_old("app")

        assert [docker.executed("app", "cat", path) for path in COPIED] == [*COPIED.values()]
        assert docker.executed("app", *status) == before
