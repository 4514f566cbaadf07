"""Digests, pulls and prunes, against a real engine and a real registry."""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from docker.errors import ImageNotFound

from agent.clock import SystemClock
from agent.engine.client import Engine
from agent.engine.model import Fetched, PullProgress
from agent.errors import Denied, DockerUnreachable, NotFound, RegistryUnreachable, Rejected
from tests.lab import image as lab_image
from tests.lab.server import Server
from tests.real.engine_fixture import SLEEP, DockerHost
from tests.support.kinds import raises_kind

# "user", "secret"
HTPASSWD = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"
ZERO = "sha256:" + "0" * 64


def ignore(_: PullProgress) -> None:
    pass


def deploy(docker: DockerHost, content: str) -> str:
    """Push a version and pull it as svcagent does; its image ID."""
    digest = docker.push(content)
    docker.engine.pull(docker.latest, digest, ignore)
    return str(docker.image(f"{docker.repository}@{digest}")["Id"])


def test_a_newer_image_is_seen_by_its_digest(docker: DockerHost) -> None:
    first = docker.push("1")
    docker.engine.pull(docker.latest, first, ignore)
    docker.run("app", docker.latest)
    app = docker.engine.container("app")

    second = docker.push("2")

    assert docker.engine.registry_digest(docker.latest) == second
    assert docker.engine.runs_digest(app, docker.latest, first)
    assert not docker.engine.runs_digest(app, docker.latest, second)
    assert docker.engine.digest_of(app, docker.latest) == first


def test_a_pull_elsewhere_does_not_change_what_a_container_is_said_to_run(docker: DockerHost) -> None:
    first = docker.push("1")
    docker.engine.pull(docker.latest, first, ignore)
    docker.run("app", docker.latest)
    second = docker.push("2")

    docker.engine.pull(docker.latest, second, ignore)

    assert not docker.engine.runs_digest(docker.engine.container("app"), docker.latest, second)


def test_the_digest_of_a_container_stays_known_when_its_tag_moves(docker: DockerHost) -> None:
    """Run by an operator from the tag; one of Docker's image stores forgets the old image's names then."""
    first = docker.push("1")
    lab_image.pull(docker.api, docker.latest)
    docker.run("app", docker.latest)
    second = docker.push("2")
    lab_image.pull(docker.api, docker.latest)
    app = docker.engine.container("app")

    assert docker.engine.digest_of(app, docker.latest) == first
    assert docker.engine.runs_digest(app, docker.latest, first)
    assert not docker.engine.runs_digest(app, docker.latest, second)
    assert docker.engine.digest_of(app, docker.repository.replace("/app", "/other")) is None


def test_a_container_that_was_run_from_the_tag_can_be_made_again_when_a_pull_moves_the_tag(docker: DockerHost) -> None:
    """What the image set has to be known then, although the image may have no name any more."""
    first = docker.push("1")
    lab_image.pull(docker.api, docker.latest)
    docker.run("app", docker.latest)
    second = docker.push("2", tag="next")

    docker.engine.pull(docker.latest, second, ignore)

    app = docker.engine.container("app")
    assert docker.engine.digest_of(app, docker.latest) == first
    docker.engine.check_recreatable("app")
    docker.engine.prepare("app", docker.latest, second)
    docker.engine.replace("app", second, 0)
    docker.engine.roll_back("app")
    assert docker.engine.digest_of(docker.engine.container("app"), docker.latest) == first
    docker.engine.check_recreatable("app")


def test_the_digest_of_what_svcagent_fetched_is_known_without_image_names(docker: DockerHost, image: str) -> None:
    digest = docker.engine.registry_digest(image)
    fetched = (Fetched(image, digest, docker.engine.image_id(image, digest)),)
    docker.run("app", image)
    for name in (image, f"{docker.repository}@{digest}"):
        with suppress(ImageNotFound):
            docker.api.remove_image(name, force=True)
    app = docker.engine.container("app")

    assert docker.engine.digest_of(app, image, fetched) == digest
    assert docker.engine.runs_digest(app, image, digest, fetched)


def test_a_pull_brings_the_digest_gives_it_the_tag_and_reports_its_progress(docker: DockerHost) -> None:
    digest = docker.push("1")
    docker.push("2")
    seen: list[PullProgress] = []

    assert not docker.engine.has_image(docker.latest, digest)
    docker.engine.pull(docker.latest, digest, seen.append)

    assert docker.engine.has_image(docker.latest, digest)
    assert set(docker.image(docker.latest)["RepoDigests"]) == {f"{docker.repository}@{digest}"}
    assert seen[-1].layers_done == seen[-1].layers == 1
    assert seen[-1].bytes_done == seen[-1].bytes_total


def test_an_image_has_its_build_time(docker: DockerHost) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    digest = docker.push("1")

    with pytest.raises(NotFound):
        docker.engine.image_created(docker.latest, digest)
    docker.engine.pull(docker.latest, digest, ignore)
    created = docker.engine.image_created(docker.latest, digest)

    assert before <= created <= datetime.now(UTC)
    assert created.tzinfo is UTC


def test_pulling_what_is_here_already_moves_the_tag_back(docker: DockerHost) -> None:
    first, second = docker.push("1"), docker.push("2")
    for digest in (first, second, first):
        docker.engine.pull(docker.latest, digest, ignore)

    assert set(docker.image(docker.latest)["RepoDigests"]) == {f"{docker.repository}@{first}"}


def test_a_reference_with_a_digest_needs_no_registry(docker: DockerHost) -> None:
    assert docker.engine.registry_digest(f"{docker.repository}:latest@{ZERO}") == ZERO


def test_a_missing_tag_and_a_missing_digest_are_not_found(docker: DockerHost) -> None:
    docker.push("1")

    with raises_kind(NotFound, "not-in-registry"):
        docker.engine.registry_digest(f"{docker.repository}:nope")
    with raises_kind(NotFound, "not-in-registry"):
        docker.engine.pull(docker.latest, ZERO, ignore)


def test_a_reference_that_is_none_is_refused_before_docker_is_asked(docker: DockerHost) -> None:
    with raises_kind(Rejected, "image-invalid"):
        docker.engine.registry_digest("Not An Image")


def test_a_registry_that_is_down_is_unreachable_and_named(docker: DockerHost) -> None:
    digest = docker.push("1")
    docker.registry.stop()
    try:
        with pytest.raises(RegistryUnreachable, match=docker.repository.partition("/")[0]):
            docker.engine.registry_digest(docker.latest)
        with pytest.raises(RegistryUnreachable):
            docker.engine.pull(docker.latest, digest, ignore)
    finally:
        docker.registry.restart()


def test_a_layer_that_the_registry_lost_fails_the_pull_and_leaves_no_image(docker: DockerHost) -> None:
    digest = docker.push("lost")
    manifest = json.loads(blob(docker, digest).read_text())
    blob(docker, manifest["layers"][0]["digest"]).unlink()

    with pytest.raises((RegistryUnreachable, NotFound)):
        docker.engine.pull(docker.latest, digest, ignore)

    assert not docker.engine.has_image(docker.latest, digest)


def blob(docker: DockerHost, digest: str) -> Path:
    algorithm, _, name = digest.partition(":")
    blobs = docker.directory / "registry/data/docker/registry/v2/blobs"
    return blobs / algorithm / name[:2] / name / "data"


def test_an_engine_that_exits_during_a_pull_fails_it_and_the_next_pull_succeeds(docker: DockerHost) -> None:
    digest = docker.push("cut")

    def cut(_: PullProgress) -> None:
        if docker.server.is_running:
            docker.registry.freeze()
            docker.server.kill()

    try:
        with pytest.raises(DockerUnreachable):
            docker.engine.pull(docker.latest, digest, cut)
    finally:
        docker.registry.thaw()
        docker.server.restart()

    assert not docker.engine.has_image(docker.latest, digest)
    docker.engine.pull(docker.latest, digest, ignore)
    assert docker.engine.has_image(docker.latest, digest)


def test_what_the_progress_callback_raises_ends_the_pull(docker: DockerHost) -> None:
    digest = docker.push("1")

    def interrupt(_: PullProgress) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        docker.engine.pull(docker.latest, digest, interrupt)


@pytest.fixture
def private(docker: DockerHost) -> Iterator[str]:
    """The same images behind a registry that asks for a password."""
    directory = docker.directory / "private"
    directory.mkdir(exist_ok=True)
    (directory / "htpasswd").write_text(HTPASSWD)
    address = docker.repository.partition("/")[0].replace(":5000", ":5001")
    config = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(docker.directory / "registry/data")}},
        "http": {"addr": address},
        "auth": {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}},
    }
    (directory / "registry.yml").write_text(json.dumps(config))
    argv = ["docker-registry", "serve", str(directory / "registry.yml")]
    log = directory / "log"
    server = Server("private registry", argv, log, docker.environment, lambda: "listening on" in log.read_text())
    with server.running():
        yield f"{address}/app:latest"


@pytest.mark.parametrize("which", ["none", "wrong", "malformed file", "missing helper"])
def test_refused_credentials_differ_from_an_absent_registry_and_name_the_file(
    docker: DockerHost, private: str, tmp_path: Path, which: str
) -> None:
    digest = docker.push("1")
    config = tmp_path / "config.json"
    registry = private.partition("/")[0]
    content = {
        "wrong": json.dumps({"auths": {registry: {"auth": "dXNlcjp3cm9uZw=="}}}),
        "malformed file": "{",
        "missing helper": json.dumps({"credHelpers": {registry: "absent"}}),
    }
    if which in content:
        config.write_text(content[which])
    engine = Engine(docker.server.url, docker.environment | {"DOCKER_CONFIG": str(tmp_path)}, SystemClock())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the SDK warns of a missing helper before it raises
            with pytest.raises(Denied, match=str(config)):
                engine.registry_digest(private)
            with raises_kind(Denied, "registry-denied"):
                engine.pull(private, digest, ignore)
    finally:
        engine.close()


def test_a_docker_login_counts_from_the_next_call_on(docker: DockerHost, private: str, tmp_path: Path) -> None:
    digest = docker.push("1")
    engine = Engine(docker.server.url, docker.environment | {"DOCKER_CONFIG": str(tmp_path)}, SystemClock())
    try:
        with pytest.raises(Denied):
            engine.registry_digest(private)
        auth = {"auths": {private.partition("/")[0]: {"auth": "dXNlcjpzZWNyZXQ="}}}
        (tmp_path / "config.json").write_text(json.dumps(auth))

        assert engine.registry_digest(private) == digest
        engine.pull(private, digest, ignore)
        assert engine.has_image(private, digest)
    finally:
        engine.close()


def test_a_helper_is_asked(docker: DockerHost, private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Docker's configuration names it: for one registry, or for all."""
    digest = docker.push("1")
    registry = private.partition("/")[0]
    helper = tmp_path / "docker-credential-lab"
    answer = json.dumps({"ServerURL": registry, "Username": "user", "Secret": "secret"})
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    engine = Engine(docker.server.url, dict(os.environ) | {"DOCKER_CONFIG": str(tmp_path)}, SystemClock())
    try:
        for content in ({"credHelpers": {registry: "lab"}}, {"credsStore": "lab"}):
            (tmp_path / "config.json").write_text(json.dumps(content))
            assert engine.registry_digest(private) == digest
        engine.pull(private, digest, ignore)
    finally:
        engine.close()


def test_an_engine_that_is_not_there_is_named_and_so_is_the_variable_that_moves_it() -> None:
    engine = Engine(None, {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}, SystemClock())

    with pytest.raises(DockerUnreachable, match=r"unix:///nonexistent/docker\.sock.*DOCKER_HOST"):
        engine.find("app")


def digests(docker: DockerHost) -> set[str]:
    """Those of all images, of whichever repository."""
    return {name.partition("@")[2] for image in docker.api.images() for name in image["RepoDigests"]}


def test_pruning_keeps_the_one_in_use_and_the_newest_up_to_the_number_asked_for(docker: DockerHost) -> None:
    ids = [deploy(docker, str(version)) for version in range(4)]
    docker.run("app", docker.latest)

    ran = digests(docker)

    assert docker.engine.prune(docker.latest, 2, (), ran) == (ids[0], ids[1])
    assert {image["Id"] for image in docker.api.images()} == {ids[2], ids[3]}
    assert docker.engine.prune(docker.latest, 2, (), ran) == ()


def test_pruning_spares_containers_tags_and_other_repositories(docker: DockerHost) -> None:
    old, tagged, shared, other = (deploy(docker, name) for name in ("old", "tagged", "shared", "other"))
    latest = deploy(docker, "latest")
    docker.api.create_container(old, list(SLEEP), name="stopped")
    docker.api.tag(tagged, docker.repository, "keep-me")
    elsewhere = docker.repository.replace("/app", "/elsewhere")
    docker.api.tag(shared, elsewhere, "latest")
    list(docker.api.push(elsewhere, tag="latest", stream=True, decode=True, auth_config={}))
    docker.api.remove_image(f"{elsewhere}:latest")
    digest = docker.engine.registry_digest(f"{elsewhere}:latest")
    docker.engine.pull(f"{elsewhere}@{digest}", digest, ignore)
    docker.run("app", docker.latest)

    ran = digests(docker)
    digest = docker.push("by hand")
    docker.api.pull(docker.repository, digest)  # by a person, who gave it no tag
    by_hand = docker.engine.image_id(docker.latest, digest)

    assert docker.engine.prune(docker.latest, 1, (), ran) == (other,)
    assert {image["Id"] for image in docker.api.images()} == {old, tagged, shared, latest, by_hand}


def test_pruning_counts_what_svcagent_pulled_under_other_tags(docker: DockerHost) -> None:
    """A tag for each version, as the definition follows them; tags of others stay."""
    fetched, ids = [], []
    for version in range(5):
        image = f"{docker.repository}:{version}"
        digest = docker.push(str(version), tag=str(version))
        docker.engine.pull(image, digest, ignore)
        ids.append(docker.engine.image_id(image, digest))
        fetched.append(Fetched(image, digest, ids[-1]))
        if version == 1:
            docker.engine.pull(f"{docker.repository}:again", digest, ignore)
            fetched.append(Fetched(f"{docker.repository}:again", digest, ids[-1]))
    docker.api.tag(ids[0], docker.repository, "keep-me")
    docker.run("app", f"{docker.repository}:4")

    assert docker.engine.prune(f"{docker.repository}:4", 2) == ()
    assert docker.engine.prune(f"{docker.repository}:4", 2, fetched) == (ids[1], ids[2])
    assert {image["Id"] for image in docker.api.images()} == {ids[0], ids[3], ids[4]}
