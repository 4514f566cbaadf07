"""The grammar of image names, ``[registry[:port]/]repository[:tag]``, and of names on Docker's own Hub.

Source: the distribution project's `reference` package.
"""

import re

HUB = "docker.io"

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")


def repository_and_tag(name: str) -> tuple[str, str]:
    """Return the repository as written and the tag, which may be empty. Raise `ValueError` if it is no image name."""
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # the last colon belongs to the registry's port
        repository, colon, tag = name, "", ""
    registry, path = registry_and_path(repository)
    if not (_PATH.fullmatch(path) and _HOST.fullmatch(registry) and (not colon or _TAG.fullmatch(tag))):
        raise ValueError(name)
    return repository, tag


def registry_and_path(repository: str) -> tuple[str, str]:
    """Return both in full."""
    host, slash, path = repository.partition("/")
    if not slash or not (set(".:[") & set(host) or host == "localhost" or host.lower() != host):
        host, path = HUB, repository
    if host == f"index.{HUB}":
        host = HUB
    if host == HUB and "/" not in path:
        path = f"library/{path}"
    return host, path
