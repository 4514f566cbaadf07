"""What a registry's faults become, by way of a real engine: silence, refusals, and being asked too often."""

import os
from collections.abc import Iterator

import pytest

from agent.engine.model import PullProgress
from agent.errors import Denied, NotFound, RateLimited, RegistryUnreachable
from tests.real.engine_fixture import DockerHost
from tests.real.registry_fixture import FaultyRegistry, Refusal, faulty_registry

LIMITED = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "retry-after: 90s, allowed: 44000/minute"}]}'
FORBIDDEN = b'{"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}'
ABSENT = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
JSON = {"Content-Type": "application/json"}


def ignore(_: PullProgress) -> None:
    pass


@pytest.fixture
def registry(docker: DockerHost) -> Iterator[FaultyRegistry]:
    """A stand-in for the registry, without a fault so far."""
    upstream = docker.repository.partition("/")[0]
    with faulty_registry(upstream.partition(":")[0], upstream) as server:
        yield server


def test_a_registry_that_falls_silent_in_a_layer_ends_the_pull(docker: DockerHost, registry: FaultyRegistry) -> None:
    """Docker itself waits for ever; with one of its image stores it goes on saying so ten times a second."""
    digest = docker.push(os.urandom(3_000_000).hex())
    image = f"{registry.name}/app:latest"
    registry.stalls = True

    with pytest.raises(RegistryUnreachable, match=f"{registry.name} .* for 1 s.*pull_timeout"):
        docker.engine.pull(image, digest, ignore, timeout=1.0)
    assert registry.is_stalled.is_set()

    registry.stalls = False
    registry.may_go_on.set()
    docker.engine.pull(image, digest, ignore)
    assert docker.engine.has_image(image, digest)


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (Refusal(429, JSON | {"Retry-After": "90"}, LIMITED), RateLimited),
        (Refusal(429), RateLimited),
        (Refusal(403, JSON, FORBIDDEN), Denied),
        (Refusal(403), Denied),
        (Refusal(404, JSON, ABSENT), NotFound),
        (Refusal(503), RegistryUnreachable),
    ],
    ids=lambda value: f"{value.status} {value.body[13:40]!r}" if isinstance(value, Refusal) else "",
)
def test_a_refusal_has_its_kind_and_names_the_registry(
    docker: DockerHost, registry: FaultyRegistry, refusal: Refusal, expected: type[Exception]
) -> None:
    digest = docker.push("1")
    image = f"{registry.name}/app:latest"
    registry.refusal = refusal

    with pytest.raises(expected, match=registry.name) as asked:
        docker.engine.registry_digest(image)
    with pytest.raises(expected, match=registry.name) as pulled:
        docker.engine.pull(image, digest, ignore)

    print(asked.value, "|||", pulled.value)
