"""Containers that an older Engine made, or the same one before its daemon.json was changed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.real.engine_fixture import SLEEP, DockerHost, docker_host, newer

OLDER: dict[str, Any] = {
    "CgroupnsMode": "",
    "IpcMode": "",
    "MaskedPaths": None,
    "ReadonlyPaths": None,
    "PidsLimit": 0,
    "ShmSize": 0,
    "OomKillDisable": None,
    "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
}
"""What older Engines wrote of a container for which nothing was asked."""


@pytest.fixture
def host() -> Iterator[DockerHost]:
    with docker_host() as docker:
        yield docker


def change(docker: DockerHost, name: str, container: dict[str, Any], daemon: dict[str, Any]) -> None:
    """Change a container's HostConfig and daemon.json while the Engine is stopped."""
    place = docker.directory / "data" / "containers" / docker.inspect(name)["Id"] / "hostconfig.json"
    docker.server.stop()
    for file, changes in ((place, container), (docker.directory / "daemon.json", daemon)):
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    docker.server.restart()


def test_a_container_of_an_older_engine_is_replaced_by_one_that_means_the_same(host: DockerHost) -> None:
    image = host.latest
    newer(host, image, content="1")
    options = host.api.create_host_config(network_mode="none")
    host.api.create_container(image, list(SLEEP), name="app", host_config=options)
    change(host, "app", OLDER, {"log-opts": {"max-size": "10m", "max-file": "3"}})
    host.api.start("app")
    namespace = host.executed("app", "readlink", "/proc/self/ns/cgroup")

    host.engine.check_recreatable("app")
    host.replace("app", image, newer(host, image), 0)

    after = host.inspect("app")["HostConfig"]
    assert (after["CgroupnsMode"], after["IpcMode"]) == ("host", "shareable")
    assert after["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert host.executed("app", "readlink", "/proc/self/ns/cgroup") == namespace
