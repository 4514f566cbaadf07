"""Containers as people make them (``tests/corpus``): each is made, replaced, compared, rolled back and compared.

An entry that needs what the engine or the machine does not have is created and prepared, but not started. How many
those are is printed at the end.
"""

import json
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.engine.answers import with_volume_names
from agent.engine.compare import differences as found_differences
from agent.engine.recreate import COMPOSE_IMAGE_LABEL
from agent.engine.sdk import Client
from agent.engine.swap import ReplacementState
from agent.errors import Conflict, SvcagentError
from tests.real.engine_fixture import BUSYBOX, POLITE, DockerHost, cmd, differences, docker_host
from tests.real.test_engine_flags import comparable
from tests.support.kinds import raises_kind

CORPUS = Path(__file__).parent.parent / "corpus"
RICH = (
    *("ENV A=1", "VOLUME /data", "EXPOSE 8080", "LABEL team=search", "WORKDIR /srv"),
    f'HEALTHCHECK --interval=30s CMD ["{BUSYBOX}", "true"]',
    cmd(POLITE),
)
RICHER = (
    *("ENV A=2", "ENV C=3", "VOLUME /data", "EXPOSE 8081", "LABEL team=other", "WORKDIR /opt"),
    f'HEALTHCHECK --interval=40s CMD ["{BUSYBOX}", "false"]',
    cmd((*POLITE[:-1], POLITE[-1].replace("3600", "7200"))),
)
SAYING = ("EXPOSE 8080", "LABEL com.docker.compose.project=shop com.docker.compose.service=web", cmd(POLITE))
"""The next version of this image says nothing of it."""
FROM_IMAGE = ("/Config/", "/Path", "/Args", "/Platform")


@dataclass(frozen=True)
class Place:
    """An engine with two versions of three images, two networks, and a container ``db`` that others refer to."""

    docker: DockerHost
    digests: Mapping[str, tuple[str, str]]
    values: Mapping[str, str]

    def image(self, name: str) -> str:
        return f"{self.docker.repository}/{name}:latest"

    def filled(self, text: str, image: str = "plain") -> str:
        """Return an entry's text with this place's values."""
        known = {**self.values, "image": self.image(image), "image_id": self.docker.image(self.image(image))["Id"]}
        for name, value in known.items():
            text = text.replace(f"{{{name}}}", value)
        return text


NEEDS: dict[str, Callable[[DockerHost], bool]] = {
    "bridge": lambda docker: any(one["Name"] == "bridge" for one in docker.api.networks()),
    "ipv6": lambda docker: any(one.get("EnableIPv6") for one in docker.api.networks()),
    "nvidia": lambda docker: "nvidia" in docker.api.info()["Runtimes"],
    "shared mounts": lambda _: False,  # the lab's mounts are private
    "loop device": lambda _: Path("/dev/loop0").is_block_device(),
    "every capability": lambda _: int(status_of_this_process("CapBnd"), 16) & 0x1FFFFFFFFFF == 0x1FFFFFFFFFF,
    "annotations": lambda docker: api_of(docker) >= (1, 43),
    "start interval": lambda docker: api_of(docker) >= (1, 44),
}
CANNOT_BE_CREATED = {"annotations", "bridge", "loop device", "shared mounts"}
"""Needs without which not even the create succeeds."""
MISSING: Counter[str] = Counter()


def status_of_this_process(key: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{key}:"))


def api_of(docker: DockerHost) -> tuple[int, ...]:
    return tuple(int(part) for part in docker.api.api_version.split("."))


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with docker_host(has_proxy=True) as docker:
        digests = {}
        for name, first, second in (("plain", (), ()), ("rich", RICH, RICHER), ("saying", SAYING, ())):
            repository = f"{docker.repository}/{name}"
            digests[name] = (docker.push("1", *first, name=repository), docker.push("2", *second, name=repository))
            for digest in digests[name]:
                docker.engine.pull(f"{repository}:latest", digest, lambda _: None)
        several = f"{docker.repository}/several"
        digests["several"] = (
            docker.push_for_platforms("1", several, "linux/amd64", "linux/386"),
            docker.push_for_platforms("2", several, "linux/amd64", "linux/386"),
        )
        docker.add_network("front", 0, internal=False)
        docker.add_network("back", 64)
        directory = docker.directory / "bound"
        directory.mkdir()
        (directory / "file").write_text("x")
        docker.run(
            "db",
            f"{docker.repository}/plain:latest",
            volumes=["/shared"],
            host_config={"network_mode": "front", "ipc_mode": "shareable"},
        )
        values = {
            "dir": str(directory),
            "file": str(directory / "file"),
            "port": "18080",
            "port_after": "18081",
            "front_address": docker.address("9"),
            "front_id": docker.api.inspect_network("front")["Id"],
            "cgroup": f"/{docker.directory.name}",
        }
        yield Place(docker, digests, values)


def entries(file: str) -> list[Any]:
    return [pytest.param(one, id=one["name"]) for one in json.loads((CORPUS / f"{file}.json").read_text())]


@pytest.mark.parametrize("entry", entries("docker_run"))
def test_containers_of_docker_run(place: Place, entry: dict[str, Any]) -> None:
    image, docker = entry.get("image", "plain"), place.docker
    if is_missing(docker, entry) in CANNOT_BE_CREATED:
        return
    verb = ("create",) if is_missing(docker, entry, count=False) else ("run", "--detach")
    begin_with_first(place, image)
    try:
        arguments = shlex.split(place.filled(entry["run"], image))
        command = shlex.split(entry.get("command", ""))
        cli(docker, *verb, "--name", "app", *arguments, place.image(image), *command)
        if update := entry.get("update"):
            cli(docker, "update", *shlex.split(update), "app")
        change_networks(docker, entry)
        assert_kept(place, entry, image, "app")
    finally:
        remove_all(docker)


@pytest.mark.parametrize("entry", entries("api"))
def test_containers_of_docker_py_and_ansible(place: Place, entry: dict[str, Any]) -> None:
    docker = place.docker
    begin_with_first(place, "plain")
    body = {"Image": place.image("plain"), **json.loads(place.filled(json.dumps(entry["body"])))}
    docker.api.create_container_from_config(body, "app")  # type: ignore[no-untyped-call]
    try:
        if not is_missing(docker, entry):
            docker.api.start("app")
        change_networks(docker, entry)
        assert_kept(place, entry, "plain", "app")
    finally:
        remove_all(docker)


@pytest.mark.parametrize("file", ["compose_1", "compose_2"])
def test_containers_of_docker_compose(place: Place, file: str, tmp_path: Path) -> None:
    """One project each, whose services are reloaded one after another."""
    docker = place.docker
    begin_with_first(place, "plain")
    project = json.loads(place.filled((CORPUS / f"{file}.json").read_text()))
    path = tmp_path / "docker-compose.yml"
    path.write_text(json.dumps(project))
    compose = ["docker-compose", "--file", str(path), "--project-name", file.replace("_", "")]
    environ = docker.environment | {"DOCKER_HOST": docker.server.url}
    done = subprocess.run([*compose, "up", "--detach"], capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    try:
        for service in project["services"]:
            [found] = docker.api.containers(filters={"label": f"com.docker.compose.service={service}"})
            name = found["Names"][0].removeprefix("/")
            begin_with_first(place, "plain")
            is_compose_2 = COMPOSE_IMAGE_LABEL in found["Labels"]
            differs = [f"/Config/Labels/{COMPOSE_IMAGE_LABEL}"] if is_compose_2 else []
            if service == "volumes":
                anonymous = ["/HostConfig/Mounts//anonymous/Source"]
                differs += anonymous if is_compose_2 else ["/HostConfig/Binds", "/Mounts//anonymous/Mode"]
            assert_kept(place, {"name": service, "differs": differs}, "plain", name)
    finally:
        subprocess.run([*compose, "down", "--volumes"], capture_output=True, env=environ, check=False)


def test_the_platform_that_was_chosen_is_kept(place: Place) -> None:
    """Of an image for several, the one is pulled and run that the container has, not the Engine's own."""
    docker, image, (first, second) = place.docker, place.image("several"), place.digests["several"]
    cli(docker, "pull", "--platform", "linux/386", image.replace(":latest", f"@{first}"))
    docker.api.tag(image.replace(":latest", f"@{first}"), image.removesuffix(":latest"), "latest")
    cli(docker, "run", "--detach", "--name", "app", "--network", "none", "--platform", "linux/386", image)
    try:
        docker.engine.pull(image, second, lambda _: None, container="app")
        docker.engine.prepare("app", image, second)
        docker.engine.replace("app", second, 0)

        assert docker.executed("app", "cat", "/platform") == "linux/386"
        assert docker.executed("app", "cat", "/version") == "2"
        docker.engine.roll_back("app")
    finally:
        remove_all(docker)


def test_another_platform_than_the_containers_is_refused_before_anything_is_stopped(place: Place) -> None:
    """Somebody else has pulled the image for the Engine's own."""
    docker, image, (first, second) = place.docker, place.image("several"), place.digests["several"]
    for digest in (first, second):
        docker.api.remove_image(image.replace(":latest", f"@{digest}"), force=True)
    cli(docker, "pull", "--platform", "linux/386", image.replace(":latest", f"@{first}"))
    docker.api.tag(image.replace(":latest", f"@{first}"), image.removesuffix(":latest"), "latest")
    cli(docker, "run", "--detach", "--name", "app", "--network", "none", "--platform", "linux/386", image)
    try:
        docker.engine.pull(image, second, lambda _: None)
        with pytest.raises(SvcagentError, match=r"platform|No such image"):  # the latter, of the containerd store
            docker.engine.prepare("app", image, second)

        assert docker.inspect("app")["State"]["Running"]
        docker.engine.discard("app")
        assert docker.names() == {"app", "db"}
    finally:
        remove_all(docker)


GUESTS = {
    "network": ("--network", "container:app"),
    "PID namespace": ("--network", "none", "--pid", "container:app"),
    "IPC namespace": ("--network", "none", "--ipc", "container:app"),
}


@pytest.mark.parametrize("what", GUESTS)
def test_a_container_in_which_others_live_is_refused(place: Place, what: str) -> None:
    """They would be cut off, or could not be started again."""
    docker, digest = place.docker, place.digests["plain"][1]
    begin_with_first(place, "plain")
    docker.run("app", place.image("plain"), host_config={"network_mode": "none", "ipc_mode": "shareable"})
    try:
        cli(docker, "run", "--detach", "--name", "side", *GUESTS[what], place.image("plain"))

        for refused in (
            lambda: docker.engine.check_recreatable("app"),
            lambda: docker.engine.prepare("app", place.image("plain"), digest),
        ):
            with raises_kind(Conflict, "containers-depend-on-it") as caught:
                refused()
            assert f"side uses its {what}" in str(caught.value)

        assert docker.names() == {"app", "side", "db"}
    finally:
        remove_all(docker)


def test_a_container_that_has_ended_in_its_network_is_no_obstacle(place: Place) -> None:
    docker, digest = place.docker, place.digests["plain"][1]
    begin_with_first(place, "plain")
    docker.run("app", place.image("plain"), host_config={"network_mode": "none"})
    try:
        cli(docker, "run", "--name", "debug", "--network", "container:app", place.image("plain"), BUSYBOX, "true")
        cli(docker, "create", "--name", "side", "--network", "container:app", place.image("plain"))

        with pytest.raises(Conflict, match="docker rm side"):
            docker.engine.check_recreatable("app")
        docker.api.remove_container("side")
        docker.replace("app", place.image("plain"), digest, 0)
    finally:
        remove_all(docker)


def test_a_container_whose_namespace_has_gone_is_refused(place: Place) -> None:
    docker = place.docker
    begin_with_first(place, "plain")
    docker.run("other", place.image("plain"), host_config={"network_mode": "none"})
    docker.run("app", place.image("plain"), host_config={"network_mode": "none", "pid_mode": "container:other"})
    docker.api.remove_container("other", force=True)
    try:
        with raises_kind(Conflict, "not-startable"):
            docker.engine.check_recreatable("app")
    finally:
        remove_all(docker)


def test_a_container_that_takes_volumes_from_this_one_keeps_them(place: Place) -> None:
    """They are the same volumes afterwards, also when that container is started again."""
    docker, digest = place.docker, place.digests["rich"][1]
    begin_with_first(place, "rich")
    docker.run("app", place.image("rich"), host_config={"network_mode": "none"})
    try:
        cli(
            docker,
            "run",
            "--detach",
            "--network",
            "none",
            "--name",
            "side",
            "--volumes-from",
            "app",
            place.image("plain"),
        )
        docker.executed("side", "touch", "/data/mine")
        docker.engine.prepare("app", place.image("rich"), digest)
        docker.engine.replace("app", digest, 0)
        docker.engine.remove_old("app")
        docker.api.restart("side", timeout=0)

        assert docker.executed("side", "ls", "/data") == docker.executed("app", "ls", "/data") == "mine"
    finally:
        remove_all(docker)


def test_a_difference_is_refused_by_name_and_nothing_is_stopped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    docker, digest = place.docker, place.digests["plain"][1]
    begin_with_first(place, "plain")
    cli(docker, "run", "--detach", "--name", "app", "--network", "none", "--shm-size", "128m", place.image("plain"))
    create = Client.create

    def without_size(client: Client, name: str, body: dict[str, Any], platform: str = "") -> str:
        host = {**body["HostConfig"], "ShmSize": 64 << 20}
        return create(client, name, {**body, "HostConfig": host}, platform)

    monkeypatch.setattr(Client, "create", without_size)
    try:
        with pytest.raises(Conflict, match=r"HostConfig\.ShmSize: 64 MiB, was 128 MiB"):
            docker.engine.prepare("app", place.image("plain"), digest)

        assert docker.engine.replacement_status("app").state is ReplacementState.PREPARED
        docker.engine.discard("app")
        assert docker.engine.replacement_status("app").state is ReplacementState.OLD
        assert docker.inspect("app")["State"]["Running"]
    finally:
        remove_all(docker)


def test_what_was_not_started_is_counted(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """It depends on the engine and the machine; most entries are started everywhere."""
    with capsys.disabled():
        for need, count in sorted(MISSING.items()):
            done = "not created" if need in CANNOT_BE_CREATED else "prepared, not started"
            print(f"\ncorpus, API {place.docker.api.api_version}: {count} without {need}: {done}", end="")
    assert sum(MISSING.values()) <= 12


def is_missing(docker: DockerHost, entry: Mapping[str, Any], *, count: bool = True) -> str:
    """Return what an entry needs and is not here; empty if it can be started."""
    need = str(entry.get("needs", ""))
    if not need or NEEDS[need](docker):
        return ""
    MISSING[need] += count
    return need


def begin_with_first(place: Place, image: str) -> None:
    """Let the tag stand for the first version again."""
    repository = place.image(image).rpartition(":")[0]
    place.docker.api.tag(f"{repository}@{place.digests[image][0]}", repository, "latest")


def remove_all(docker: DockerHost) -> None:
    """Remove what a test has made; also what it left half-way."""
    for name in docker.names() - {"db"}:
        docker.api.remove_container(name, v=True, force=True)


def change_networks(docker: DockerHost, entry: Mapping[str, Any]) -> None:
    for network, endpoint in entry.get("connect", {}).items():
        docker.api.connect_container_to_network("app", network, aliases=endpoint.get("Aliases"))
    for network in entry.get("disconnect", ()):
        docker.api.disconnect_container_from_network("app", network)


def assert_kept(place: Place, entry: Mapping[str, Any], image: str, name: str) -> None:
    """Replace a container and roll it back; nothing differs but what the entry and the images say."""
    docker, digest = place.docker, place.digests[image][1]
    before = docker.inspect(name)
    docker.engine.prepare(name, place.image(image), digest)
    if not before["State"]["Running"]:
        docker.engine.discard(name)
        assert docker.inspect(name)["Id"] == before["Id"]
        return

    docker.engine.replace(name, digest, 0)
    after = docker.inspect(name)
    docker.engine.roll_back(name)
    back = docker.inspect(name)

    assert after["State"]["Running"]
    assert docker.image(after["Image"])["Id"] != docker.image(before["Image"])["Id"]
    assert changed(before, after, image) == set(entry.get("differs", ()))
    first, second = docker.image(before["Image"]), docker.image(after["Image"])
    assert found_differences(with_volume_names(before), with_volume_names(after), first, second) == ()
    assert back["Id"] == before["Id"]
    assert back["State"]["Running"]
    ignored = "/NetworkSettings/Ports/" if entry.get("chosen_port") else "nothing"
    left = differences(in_order(before), in_order(back))
    # An empty name of a restart policy means "no", and reads so after it was set.
    assert {path for path in left if not path.startswith(ignored) and left[path] != ("", "no")} == set()


def in_order(inspect: dict[str, Any]) -> dict[str, Any]:
    """Return the document as `comparable` does, with what Docker writes in several ways in one of them.

    Published ports come in any order, the network by name or by ID, and no IPAMConfig also as an empty one.
    """
    document = comparable(inspect)
    settings, host = document["NetworkSettings"], document["HostConfig"]
    ports = {
        port: sorted(chosen or [], key=lambda one: (one["HostIp"], one["HostPort"]))
        for port, chosen in (settings.get("Ports") or {}).items()
    }
    networks = settings.get("Networks") or {}
    names = {one["NetworkID"]: name for name, one in inspect["NetworkSettings"]["Networks"].items()}
    networks = {name: one | {"IPAMConfig": one.get("IPAMConfig") or None} for name, one in networks.items()}
    return document | {
        "NetworkSettings": settings | {"Ports": ports, "Networks": networks},
        "HostConfig": host | {"NetworkMode": names.get(host["NetworkMode"], host["NetworkMode"])},
    }


def changed(before: dict[str, Any], after: dict[str, Any], image: str) -> set[str]:
    """Return the paths that differ, cut to the key of HostConfig, but for what the images explain."""
    ignored = FROM_IMAGE if image == "rich" else ()
    found = differences(in_order(before), in_order(after))
    return {
        "/HostConfig/PortBindings" if path.startswith("/HostConfig/PortBindings") else path
        for path in found
        if not path.startswith(ignored)
    }


def cli(docker: DockerHost, *arguments: str) -> None:
    command = ["docker", "--host", docker.server.url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=docker.environment, check=False)
    assert done.returncode == 0, done.stderr
