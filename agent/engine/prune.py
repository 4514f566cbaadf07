"""Which images of a repository may go."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.engine.connection import Connection
from agent.engine.model import moment
from agent.engine.reference import Reference, is_only_of
from agent.errors import Conflict, NotFound


@dataclass(frozen=True)
class Image:
    """An image without a tag. ``age_key`` sorts older before newer."""

    id: str
    age_key: tuple[datetime, datetime]


def choose(untagged: Sequence[Image], used: Collection[str], keep: int, *, is_one_in_use: bool) -> tuple[str, ...]:
    """The IDs that may go, oldest first, so that ``keep`` images stay. The one in use counts as one of these.

    ``used``: IDs that a container uses; they stay whatever their age.
    """
    unused = sorted((image for image in untagged if image.id not in used), key=lambda image: image.age_key)
    spared = max(0, keep - (1 if is_one_in_use else 0))
    return tuple(image.id for image in unused[: max(0, len(unused) - spared)])


def prune(docker: Connection, reference: Reference, keep: int) -> tuple[str, ...]:
    """Remove the repository's untagged images but for the newest; returns the IDs removed."""
    with docker.call("list images and containers") as client:
        used = {str(entry.get("ImageID")) for entry in client.all_containers()}
        images = client.all_images()
        mine = [entry for entry in images if is_only_of(_real(entry.get("RepoDigests")), reference.repository)]
        untagged = []
        for entry in mine:
            if not _real(entry.get("RepoTags")):
                image = client.image(entry["Id"])
                # When it was deployed here, rather than when it was built: reproducible builds are all of 1970.
                tagged_at = (image.get("Metadata") or {}).get("LastTagTime")
                untagged.append(Image(entry["Id"], (moment(tagged_at), moment(image.get("Created")))))
    removed = []
    for image_id in choose(untagged, used, keep, is_one_in_use=any(entry["Id"] in used for entry in mine)):
        try:
            with docker.call(f"remove image {image_id}", is_write=True) as client:
                client.remove_image(image_id)
        except (Conflict, NotFound):  # used since, or gone already: nothing is lost
            continue
        removed.append(image_id)
    return tuple(removed)


def _real(names: Sequence[str] | None) -> list[str]:
    """The Engine writes ``<none>:<none>`` and ``<none>@<none>`` for no name."""
    return [name for name in names or [] if not name.startswith("<none>")]
