"""One real Docker Engine and a registry for the tests of `agent.engine`; images are made from nothing but busybox.

Networks: besides host networking, user-defined bridges work; the engine has no default bridge and no iptables.
"""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import NotFound as NoSuchContainer
from docker.types import IPAMConfig, IPAMPool

from agent.clock import SystemClock
from agent.engine.client import Engine
from agent.engine.model import Replacement
from tests.lab import image, parts
from tests.lab.ground import claimed
from tests.lab.host import environment_in
from tests.lab.server import Server

BUSYBOX = "/bin/busybox"
INDEXES = {
    "application/vnd.docker.distribution.manifest.v2+json": "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json": "application/vnd.oci.image.index.v1+json",
}
"""The media types of manifests, as the two image stores push them, with that of an index of such manifests."""
SLEEP = (BUSYBOX, "sleep", "3600")
# A first process ignores every signal that it does not trap; a trap is heard only while `wait` waits.
POLITE = (BUSYBOX, "sh", "-c", f"trap 'exit 0' TERM; {BUSYBOX} sleep 3600 & wait $!")


@dataclass
class DockerHost:
    """A host with an engine, and a registry beside it."""

    directory: Path
    server: parts.Engine
    registry: Server
    repository: str
    engine: Engine

    @property
    def api(self) -> docker.APIClient:
        """The SDK, for what tests arrange and look at."""
        return self.server.api

    @property
    def environment(self) -> dict[str, str]:
        """As on a host of its own."""
        return environment_in(self.directory, self.directory)

    @property
    def proc(self) -> Path:
        """The process table of the engine's PID namespace."""
        # dockerd runs below nsenter, in the namespaces whose /proc is mounted for them.
        return Path(f"/proc/{self.server.pid}/root/proc")

    def make(self, content: str, *changes: str, tag: str = "latest", name: str = "") -> str:
        """Make an image whose file ``/version`` has that content; its name. ``changes``: Dockerfile instructions."""
        repository = name or self.repository
        self.api.import_image_from_data(
            _tar({"version": content}), repository=repository, tag=tag, changes=list(changes) or [cmd(POLITE)]
        )
        return f"{repository}:{tag}"

    def push(self, content: str, *changes: str, tag: str = "latest", name: str = "") -> str:
        """Make an image as `make` does, push it, and forget it here; its digest."""
        made = self.make(content, *changes, tag=tag, name=name)
        digest = image.push(self.api, made)
        self.api.remove_image(made)
        return digest

    def push_for_platforms(self, content: str, name: str, *platforms: str) -> str:
        """Make an image for each platform, and push an index of them as ``latest``; its digest."""
        manifests, path = [], name.partition("/")[2]
        for platform in platforms:
            tag = platform.replace("/", "-")
            options = ("--platform", platform, "--change", cmd(POLITE))
            command = ("docker", "--host", self.server.url, "import", *options, "-", f"{name}:{tag}")
            subprocess.run(
                command, input=_tar({"version": content, "platform": platform}), env=self.environment, check=True
            )
            for event in self.api.push(name, tag=tag, stream=True, decode=True, auth_config={}):
                assert "error" not in event, event
            self.api.remove_image(f"{name}:{tag}")
            manifests.append(_built_for(f"http://{self.repository.partition('/')[0]}/v2/{path}", tag, platform))
        media_type = INDEXES[manifests[0]["mediaType"]]
        index = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
        done = requests.put(
            f"http://{self.repository.partition('/')[0]}/v2/{path}/manifests/latest",
            data=json.dumps(index),
            headers={"Content-Type": media_type},
            timeout=10,
        )
        done.raise_for_status()
        return done.headers["Docker-Content-Digest"]

    @property
    def latest(self) -> str:
        """The name of the newest image."""
        return f"{self.repository}:latest"

    def run(self, name: str, image: str, command: Sequence[str] | None = None, **options: Any) -> str:
        """Create and start a container, under host networking unless ``host_config`` says otherwise; its ID."""
        host = {"network_mode": "host", **options.pop("host_config", {})}
        container = self.api.create_container(
            image,
            list(command) if command else None,
            name=name,
            host_config=self.api.create_host_config(**host),
            **options,
        )
        self.api.start(container)
        return str(container["Id"])

    def replace(self, name: str, image: str, digest: str, stop_timeout: float | None) -> Replacement:
        """Prepare the successor and put it in the container's place."""
        self.engine.prepare(name, image, digest)
        return self.engine.replace(name, digest, stop_timeout)

    def inspect(self, name: str) -> dict[str, Any]:
        """All that Docker knows of a container."""
        found: dict[str, Any] = self.api.inspect_container(name)
        return found

    def image(self, name: str) -> dict[str, Any]:
        """All that Docker knows of an image."""
        found: dict[str, Any] = self.api.inspect_image(name)  # type: ignore[no-untyped-call]  # so in types-docker
        return found

    def executed(self, name: str, *command: str) -> str:
        """What a command inside a container prints."""
        output: bytes = self.api.exec_start(self.api.exec_create(name, [BUSYBOX, *command])["Id"])
        return output.decode().strip()

    def names(self) -> set[str]:
        return {name.removeprefix("/") for entry in self.api.containers(all=True) for name in entry["Names"]}

    def address(self, host: str) -> str:
        """An address for networks that no other run uses, in the block set aside for tests (RFC 2544)."""
        second, third = self.repository.split(".")[1:3]
        return f"198.{18 + int(second) % 2}.{third}.{host}"

    def add_network(self, name: str, first: int, *, internal: bool = True) -> None:
        """Make a user-defined network of 64 addresses from ``first`` on; one that is not internal publishes ports."""
        pool = IPAMPool(subnet=self.address(f"{first}/26"))
        self.api.create_network(name, internal=internal, ipam=IPAMConfig(pool_configs=[pool]))

    def clear(self, *, keep_images: bool = False) -> None:
        """Remove every container, volume, network and image that tests have made."""
        for entry in self.api.containers(all=True):
            try:
                self.api.remove_container(entry["Id"], v=True, force=True)
            except NoSuchContainer:
                continue
        for one in [] if keep_images else self.api.images():
            self.api.remove_image(one["Id"], force=True)
        for volume in self.api.volumes()["Volumes"] or []:
            self.api.remove_volume(volume["Name"], force=True)
        for network in self.api.networks():
            if network["Name"] not in {"host", "none", "bridge"}:
                self.api.remove_network(network["Id"])


@contextmanager
def docker_host(*, has_proxy: bool = False, has_bridge: bool = False) -> Iterator[DockerHost]:
    """A running engine and registry; all of it is gone afterwards."""
    with claimed() as ground, ExitStack() as stack:
        environment = environment_in(ground.directory, ground.directory)
        server = parts.Engine(
            "engine", ground.directory, ground.name, environment, has_proxy=has_proxy, has_bridge=has_bridge
        )
        (ground.directory / "registry").mkdir()
        registry = parts.registry(ground.directory / "registry", ground.address(1), environment)
        for part in (server, registry):
            stack.callback(part.discard)
            part.start()
        server.wait_ready()
        registry.wait_ready()
        engine = Engine(server.url, environment, SystemClock())
        stack.callback(engine.close)
        yield DockerHost(ground.directory, server, registry, f"{ground.address(1)}:5000/app", engine)


def newer(docker: DockerHost, image: str, *changes: str, content: str = "2") -> str:
    """The second version, pushed and here; its digest."""
    digest = docker.push(content, *changes)
    docker.engine.pull(image, digest, lambda _: None)
    return digest


def flat(document: Any, path: str = "") -> dict[str, Any]:
    """Every leaf by its path; lists of plain values are leaves."""
    if isinstance(document, Mapping) and document:
        return {key: leaf for name, part in document.items() for key, leaf in flat(part, f"{path}/{name}").items()}
    if isinstance(document, list) and any(isinstance(part, Mapping) for part in document):
        named = {str(part.get("Destination", part.get("Target", at))): part for at, part in enumerate(document)}
        return flat(named, path)
    return {path: document}


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs in all that a container is made of, by path."""
    parts = (
        "Config",
        "HostConfig",
        "Mounts",
        "NetworkSettings",
        "Path",
        "Args",
        "RestartCount",
        "Platform",
        "AppArmorProfile",
    )
    one, other = (flat({part: inspect[part] for part in parts}) for inspect in (before, after))
    return {path: (one.get(path), other.get(path)) for path in {*one, *other} if one.get(path) != other.get(path)}


def cmd(command: Sequence[str]) -> str:
    quoted = ", ".join(f'"{part}"' for part in command)
    return f"CMD [{quoted}]"


def _built_for(repository: str, tag: str, platform: str) -> dict[str, Any]:
    """Push a tag again with its platform, which Engine 20.10 does not write into an import; its entry of an index."""
    system, _, machine = platform.partition("/")
    accepted = {"Accept": ", ".join((*INDEXES, *INDEXES.values()))}
    found = requests.get(f"{repository}/manifests/{tag}", headers=accepted, timeout=10)
    if "manifests" in found.json():  # containerd's image store pushes an index of the one image
        digest = found.json()["manifests"][0]["digest"]
        found = requests.get(f"{repository}/manifests/{digest}", headers=accepted, timeout=10)
    manifest = found.json()
    configuration = requests.get(f"{repository}/blobs/{manifest['config']['digest']}", timeout=10).json()
    blob = json.dumps({**configuration, "os": system, "architecture": machine}).encode()
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    place = requests.post(f"{repository}/blobs/uploads/", timeout=10).headers["Location"]
    requests.put(f"{place}&digest={digest}", data=blob, timeout=10).raise_for_status()
    manifest["config"] |= {"size": len(blob), "digest": digest}
    headers = {"Content-Type": found.headers["Content-Type"]}
    body = json.dumps(manifest).encode()
    done = requests.put(f"{repository}/manifests/{tag}", data=body, headers=headers, timeout=10)
    done.raise_for_status()
    return {
        "mediaType": headers["Content-Type"],
        "size": len(body),
        "digest": done.headers["Docker-Content-Digest"],
        "platform": {"os": system, "architecture": machine},
    }


def _tar(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(BUSYBOX, arcname="bin/busybox")
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content.encode())
            tar.addfile(entry, io.BytesIO(content.encode()))
    return packed.getvalue()
