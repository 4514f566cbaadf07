"""Image references, taken apart and compared."""

import pytest

from agent.engine import reference
from agent.engine.reference import Reference, parse, tags_of
from agent.errors import Rejected
from tests.support.kinds import raises_kind

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("image", "expected", "registry"),
    [
        ("app", Reference("app", "latest", ""), "docker.io"),
        ("team/app:1.2", Reference("team/app", "1.2", ""), "docker.io"),
        ("registry.example.com/app", Reference("registry.example.com/app", "latest", ""), "registry.example.com"),
        ("127.0.0.1:5000/a/b:v-1_x", Reference("127.0.0.1:5000/a/b", "v-1_x", ""), "127.0.0.1:5000"),
        ("localhost/app:1", Reference("localhost/app", "1", ""), "localhost"),
        ("[::1]:5000/app:1", Reference("[::1]:5000/app", "1", ""), "[::1]:5000"),
        (f"app@{DIGEST}", Reference("app", "", DIGEST), "docker.io"),
        (f"host:1/app:2@{DIGEST}", Reference("host:1/app", "2", DIGEST), "host:1"),
    ],
)
def test_a_reference_is_taken_apart_as_docker_does(image: str, expected: Reference, registry: str) -> None:
    assert parse(image) == expected
    assert parse(image).registry == registry


@pytest.mark.parametrize(
    "image",
    ["", "App", "app:", "app:-x", "a b", "app@sha256:12", "app@", "http://host/app", "/app", "app/", "a//b", ":1"],
)
def test_what_docker_would_refuse_is_refused_with_the_right_form(image: str) -> None:
    with raises_kind(Rejected, "image-invalid"):
        parse(image)


def test_a_container_is_created_from_the_tag_if_there_is_one() -> None:
    assert parse(f"app:2@{DIGEST}").local_name == "app:2"
    assert parse(f"app@{DIGEST}").local_name == f"app@{DIGEST}"


@pytest.mark.parametrize(
    ("names", "repository", "expected"),
    [
        ([f"app@{DIGEST}"], "docker.io/library/app", (DIGEST,)),
        ([f"index.docker.io/team/app@{DIGEST}"], "team/app", (DIGEST,)),
        ([f"host:1/app@{DIGEST}"], "host:1/app", (DIGEST,)),
        ([f"host:1/app@{DIGEST}"], "host:2/app", ()),
        ([f"app@{DIGEST}"], "team/app", ()),
        ([], "app", ()),
        (None, "app", ()),
    ],
)
def test_repo_digests_count_for_their_repository_however_it_is_spelled(
    names: list[str] | None, repository: str, expected: tuple[str, ...]
) -> None:
    assert reference.digests_of(names, repository) == expected


def test_an_image_of_two_repositories_is_not_one_repositorys_own() -> None:
    assert reference.is_only_of([f"a@{DIGEST}", f"a@{DIGEST}"], "a")
    assert not reference.is_only_of([f"a@{DIGEST}", f"b@{DIGEST}"], "a")
    assert not reference.is_only_of([], "a")


@pytest.mark.parametrize(
    ("names", "expected"),
    [(None, ()), (["<none>:<none>"], ()), (["app:1", "app@sha256:" + "0" * 64, "app:2"], ("app:1", "app:2"))],
)
def test_what_is_no_tag_does_not_count_as_one(names: list[str] | None, expected: tuple[str, ...]) -> None:
    """The containerd image store lists digests among them."""
    assert tags_of(names) == expected
