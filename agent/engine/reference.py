"""Image references: ``registry.example.com:5000/team/app:tag@sha256:…``. Pure."""

import re
from collections.abc import Iterable

from agent.data import dataclass
from agent.definitions.image_name import registry_and_path, repository_and_tag
from agent.errors import Rejected

_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """A parsed image name. ``tag`` is empty only if a digest was given alone."""

    repository: str
    """As written, with its registry if that was written."""
    tag: str
    digest: str

    @property
    def registry(self) -> str:
        """The registry's host, with its port; ``docker.io`` for Docker Hub."""
        return registry_and_path(self.repository)[0]

    @property
    def local_name(self) -> str:
        """The name to create a container from: with the tag if there is one, else with the digest."""
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository}@{self.digest}"

    def at(self, digest: str) -> str:
        """Return the repository at that digest. Raise `Rejected`: nothing else may reach a URL or a command."""
        if not is_digest(digest):
            raise Rejected(
                f"{digest[:80]!a} is not an image digest; write sha256: and 64 hexadecimal digits",
                kind="digest-invalid",
            )
        return f"{self.repository}@{digest}"


def parse(image: str) -> Reference:
    """Parse a reference; without tag and digest, the tag is ``latest`` as for Docker. Raise `Rejected`."""
    name, at, digest = image.partition("@")
    try:
        repository, tag = repository_and_tag(name)
    except ValueError:
        repository = tag = ""
    if not repository or (at and not is_digest(digest)):
        raise Rejected(
            f"{image!r} is not an image reference; write it as [registry[:port]/]repository[:tag], in lower case",
            kind="image-invalid",
        )
    return Reference(repository, tag or ("" if digest else "latest"), digest)


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None and (
        not text.startswith("sha256:") or _SHA256.fullmatch(text) is not None
    )


def digests_of(repo_digests: Iterable[str] | None, repository: str) -> tuple[str, ...]:
    """Return the digests that an image's RepoDigests have for that repository, in any spelling of it."""
    entries = (entry.partition("@") for entry in repo_digests or ())
    return tuple(digest for name, _, digest in entries if is_same_repository(name, repository) and is_digest(digest))


def is_only_of(repo_digests: Iterable[str] | None, repository: str) -> bool:
    """True if an image comes from that repository only."""
    origins = {registry_and_path(entry.partition("@")[0]) for entry in repo_digests or ()}
    return origins == {registry_and_path(repository)}


def is_same_repository(one: str, other: str) -> bool:
    return registry_and_path(one) == registry_and_path(other)


def is_of(image: str, repository: str) -> bool:
    """True if ``image`` is a reference to the repository; False for another repository and for an image's ID."""
    try:
        return is_same_repository(parse(image).repository, repository)
    except Rejected:
        return False


def tags_of(repo_tags: Iterable[str] | None) -> tuple[str, ...]:
    """Return the tags in RepoTags, without ``<none>:<none>`` and without digests, which the containerd store lists."""
    return tuple(name for name in repo_tags or () if "@" not in name and not name.startswith("<none>"))
