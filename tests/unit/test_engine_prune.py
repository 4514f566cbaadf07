"""Which images may go, and what importing the room costs."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.engine.model import Fetched
from agent.engine.prune import Image, choose, is_deployed

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def images(*names: str) -> list[Image]:
    return [Image(name, (BEGINNING + timedelta(days=day), BEGINNING)) for day, name in enumerate(names)]


@pytest.mark.parametrize(
    ("names", "used", "keep", "is_one_in_use", "expected"),
    [
        ("abc", "", 2, True, ("a", "b")),
        ("abc", "", 2, False, ("a",)),
        ("abc", "", 1, True, ("a", "b", "c")),
        ("abc", "", 0, True, ("a", "b", "c")),
        ("abc", "", 9, True, ()),
        ("abc", "a", 2, True, ("b",)),
        ("abc", "abc", 0, True, ()),
        ("", "", 2, True, ()),
    ],
)
def test_new_and_used_stay(names: str, used: str, keep: int, is_one_in_use: bool, expected: tuple[str, ...]) -> None:
    chosen = choose(images(*names)[::-1], set(used), keep, is_one_in_use=is_one_in_use)

    assert tuple(image.id for image in chosen) == expected


@pytest.mark.parametrize(
    ("tags", "digest", "expected"),
    [
        ((), "a", True),
        (("r:5000/app:1",), "a", True),
        (("r:5000/app:1", "r:5000/app:2"), "a", True),
        (("r:5000/app:1", "r:5000/app:keep"), "a", False),
        # The same tag on another digest was given by someone else.
        (("r:5000/app:3",), "a", False),
        (("other/app:1",), "a", False),
        # It ran here; svcagent has no record of fetching it.
        ((), "old", True),
        (("r:5000/app:1",), "old", False),
        # Pulled by its digest, by someone else.
        ((), "unknown", False),
    ],
)
def test_only_what_svcagent_fetched_or_ran_alone_may_go(tags: tuple[str, ...], digest: str, expected: bool) -> None:
    fetched = [Fetched(f"r:5000/app:{tag}", digest, digest) for tag, digest in (("1", "a"), ("2", "a"), ("3", "b"))]

    assert is_deployed(tags, (digest,), fetched, {"old"}) is expected
