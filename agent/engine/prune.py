"""Which images of a repository may go."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.engine.connection import Connection
from agent.engine.model import Fetched, Inspect, moment
from agent.engine.reference import Reference, digests_of, is_only_of, is_same_repository, parse, tags_of
from agent.errors import Conflict, NotFound


@dataclass(frozen=True)
class Image:
    """An image that svcagent may remove. ``age_key`` sorts older before newer; ``tags`` are those it has."""

    id: str
    age_key: tuple[datetime, datetime]
    tags: tuple[str, ...] = ()


def choose(images: Sequence[Image], used: Collection[str], keep: int, *, is_one_in_use: bool) -> tuple[Image, ...]:
    """The images that may go, oldest first, so that ``keep`` images stay. The one in use counts as one of these.

    ``used``: IDs that a container uses; they stay whatever their age.
    """
    unused = sorted((image for image in images if image.id not in used), key=lambda image: image.age_key)
    spared = max(0, keep - (1 if is_one_in_use else 0))
    return tuple(unused[: max(0, len(unused) - spared)])


def is_deployed(
    tags: Iterable[str], digests: Collection[str], fetched: Iterable[Fetched], ran: Collection[str]
) -> bool:
    """True if an image of these digests was brought here or run by svcagent, which gave it each of its tags.

    An image without a tag that nobody knows was pulled by its digest, by a person or another program.
    """
    own = [parse(one.image) for one in fetched if one.digest in digests]
    is_known = bool(own) or any(digest in ran for digest in digests)
    return is_known and all(
        any(given.tag == tag.tag and is_same_repository(given.repository, tag.repository) for given in own)
        for tag in map(parse, tags)
    )


def prune(
    docker: Connection, reference: Reference, keep: int, fetched: Sequence[Fetched], ran: Collection[str]
) -> tuple[str, ...]:
    """Remove the repository's images but for the newest, except those of others; returns the IDs removed."""
    with docker.call("list images and containers") as client:
        used = {str(entry.get("ImageID")) for entry in client.all_containers()}
        listed = client.all_images()
        mine = [entry for entry in listed if is_only_of(_real(entry.get("RepoDigests")), reference.repository)]
        images = []
        for entry in mine:
            tags = tags_of(entry.get("RepoTags"))
            if is_deployed(tags, digests_of(entry.get("RepoDigests"), reference.repository), fetched, ran):
                images.append(_image(client.image(entry["Id"]), tags))
    removed = []
    for image in choose(images, used, keep, is_one_in_use=any(entry["Id"] in used for entry in mine)):
        try:
            # By its ID, Docker removes an image only if it has no more than one tag.
            for name in (*image.tags[1:], image.id):
                with docker.call(f"remove image {name}", is_write=True) as client:
                    client.remove_image(name)
        except (Conflict, NotFound):  # used since, or gone already: nothing is lost
            continue
        removed.append(image.id)
    return tuple(removed)


def _image(found: Inspect, tags: tuple[str, ...]) -> Image:
    # When it was deployed here, rather than when it was built: reproducible builds are all of 1970.
    tagged_at = (found.get("Metadata") or {}).get("LastTagTime")
    return Image(found["Id"], (moment(tagged_at), moment(found.get("Created"))), tags)


def _real(names: Sequence[str] | None) -> list[str]:
    """The Engine writes ``<none>@<none>`` for no name."""
    return [name for name in names or [] if not name.startswith("<none>")]
