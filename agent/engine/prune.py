"""Chooses and removes old images of a repository."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from agent.data import dataclass
from agent.engine.connection import EngineConnection
from agent.engine.model import Fetched, Inspect, moment
from agent.engine.reference import Reference, digests_of, is_only_of, is_same_repository, parse, tags_of
from agent.errors import Conflict, NotFound


@dataclass(frozen=True)
class Image:
    """An image that svcagent may remove. ``age_key`` sorts older before newer."""

    id: str
    age_key: tuple[datetime, datetime]
    tags: tuple[str, ...] = ()


def choose(images: Sequence[Image], used: Collection[str], keep: int, *, is_one_in_use: bool) -> tuple[Image, ...]:
    """Return the images to remove, oldest first. ``keep`` counts one ``used`` by a container; these stay at any age."""
    unused = sorted((image for image in images if image.id not in used), key=lambda image: image.age_key)
    spared = max(0, keep - (1 if is_one_in_use else 0))
    return tuple(unused[: max(0, len(unused) - spared)])


def is_deployed(
    tags: Iterable[str], digests: Collection[str], fetched: Iterable[Fetched], ran: Collection[str]
) -> bool:
    """True if svcagent pulled or ran an image of these digests, and gave it each of its tags.

    An image without a tag that svcagent does not know was pulled by its digest, by a person or another program.
    """
    own = [parse(one.image) for one in fetched if one.digest in digests]
    is_known = bool(own) or any(digest in ran for digest in digests)
    return is_known and all(
        any(given.tag == tag.tag and is_same_repository(given.repository, tag.repository) for given in own)
        for tag in map(parse, tags)
    )


def prune(
    docker: EngineConnection, reference: Reference, keep: int, fetched: Sequence[Fetched], ran: Collection[str]
) -> tuple[str, ...]:
    """Remove the repository's images except the newest and those of others; return the IDs removed."""
    with docker.query("list images and containers") as queries:
        used = {str(entry.get("ImageID")) for entry in queries.all_containers()}
        listed = queries.all_images()
        mine = [
            entry for entry in listed if is_only_of(_existing_names(entry.get("RepoDigests")), reference.repository)
        ]
        images = []
        for entry in mine:
            tags = tags_of(entry.get("RepoTags"))
            if is_deployed(tags, digests_of(entry.get("RepoDigests"), reference.repository), fetched, ran):
                images.append(_image(queries.image(entry["Id"]), tags))
    removed = []
    for image in choose(images, used, keep, is_one_in_use=any(entry["Id"] in used for entry in mine)):
        try:
            # By its ID, Docker removes an image only if it has at most one tag.
            for name in (*image.tags[1:], image.id):
                with docker.call(f"remove image {name}", is_write=True) as client:
                    client.remove_image(name)
        except (Conflict, NotFound):  # used or removed meanwhile
            continue
        removed.append(image.id)
    return tuple(removed)


def _image(found: Inspect, tags: tuple[str, ...]) -> Image:
    # The time of its deployment here, not of its build: reproducible builds are all of 1970.
    tagged_at = (found.get("Metadata") or {}).get("LastTagTime")
    return Image(found["Id"], (moment(tagged_at), moment(found.get("Created"))), tags)


def _existing_names(names: Sequence[str] | None) -> list[str]:
    """Return the names without ``<none>@<none>``, which the Engine writes for no name."""
    return [name for name in names or [] if not name.startswith("<none>")]
