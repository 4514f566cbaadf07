"""Which version of the API is spoken with which Engine."""

import pytest

from agent.engine.connection import NEWEST_API, OLDEST_API, spoken_api
from agent.errors import DockerUnreachable


def offer(release: str, newest: str, oldest: str | None = None) -> dict[str, str]:
    return {"Version": release, "ApiVersion": newest} | ({"MinAPIVersion": oldest} if oldest else {})


@pytest.mark.parametrize(
    ("offered", "spoken"),
    [
        (offer("20.10.24", "1.41", "1.12"), "1.41"),
        (offer("26.1.5", "1.45", "1.24"), "1.45"),
        (offer("28.5.2", "1.51", "1.24"), "1.51"),
        (offer("29.0.0", "1.52", "1.44"), "1.51"),
        (offer("30.0.0", "1.100", "1.44"), "1.51"),
        (offer("4.3.1", "1.41"), "1.41"),
    ],
)
def test_the_newest_version_that_both_know_is_spoken(offered: dict[str, str], spoken: str) -> None:
    """The shapes of answers change with it, so not whatever a later Engine offers."""
    assert spoken_api(offered, "unix:///d.sock") == spoken


@pytest.mark.parametrize(
    ("offered", "words"),
    [
        (offer("19.03.15", "1.40", "1.12"), ("19.03.15", "1.40", OLDEST_API, "20.10")),
        (offer("40.0.0", "1.70", "1.60"), ("40.0.0", "1.60", NEWEST_API, "Upgrade svcagent")),
        ({"ApiVersion": "1.9"}, ("unix:///d.sock", "1.9", OLDEST_API)),
    ],
)
def test_an_engine_without_a_common_version_is_refused_with_its_versions(
    offered: dict[str, str], words: tuple[str, ...]
) -> None:
    with pytest.raises(DockerUnreachable) as caught:
        spoken_api(offered, "unix:///d.sock")

    assert all(word in str(caught.value) for word in words)
