"""Pulls an image by digest and gives it its tag. What the registry's answers mean stands in `failures`."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import requests
import urllib3
from docker.credentials.errors import StoreError
from docker.errors import APIError, DockerException

from agent.engine.connection import Connection
from agent.engine.failures import explanation, registry_failure
from agent.engine.model import PullProgress
from agent.engine.reference import Reference, is_digest
from agent.errors import Denied, NotFound, RegistryUnreachable, SvcagentError
from agent.shapes import require
from agent.text import clean, without_credentials

_PROGRESS = {"current?": int, "total?": int}
_DONE = {"Pull complete", "Already exists"}
_FETCHED = {"Verifying Checksum", "Download complete", "Extracting", *_DONE}
_LAYER = {"Pulling fs layer", "Waiting", "Downloading", "Retrying", *_FETCHED}


class Tally:
    """Adds a pull's events up."""

    def __init__(self) -> None:
        self._done: dict[str, bool] = {}
        self._bytes: dict[str, tuple[int, int]] = {}

    def add(self, event: Mapping[str, Any]) -> PullProgress:
        """The state of the pull after one more event."""
        layer, status = event.get("id") or "", str(event.get("status") or "")
        if layer and (status in _LAYER or status.startswith("Retrying")):
            self._done[layer] = self._done.get(layer, False) or status in _DONE
            detail = event.get("progressDetail") or {}
            if status == "Downloading" and (current := detail.get("current")) is not None:
                self._bytes[layer] = (current, max(detail.get("total") or 0, current))
            elif status in _FETCHED and layer in self._bytes:
                self._bytes[layer] = (self._bytes[layer][1],) * 2
        return PullProgress(
            layers_done=sum(self._done.values()),
            layers=len(self._done),
            bytes_done=sum(done for done, _ in self._bytes.values()),
            bytes_total=sum(total for _, total in self._bytes.values()),
        )


def registry_digest(docker: Connection, reference: Reference) -> str:
    """The digest that the registry has under the reference's tag, now."""
    with docker.call(f"ask for {reference.local_name}") as client, _registry(docker, reference):
        docker.refresh_credentials(client)
        found = client.registry_digest(reference.local_name)
    if not is_digest(found):
        raise RegistryUnreachable(
            f"registry {reference.registry} says that {reference.local_name} has the digest {found[:80]!a}, which is "
            "none; does a proxy answer in its place?"
        )
    return found


def pull(
    docker: Connection,
    reference: Reference,
    digest: str,
    progress: Callable[[PullProgress], None],
    platform: str = "",
) -> None:
    """Pull ``repository@digest``; afterwards it is there, and the reference's tag stands for it on this host.

    ``platform``: the one to take of an image for several, as ``linux/386``; empty for the Engine's own.
    """
    wanted = reference.at(digest)
    tally, last = Tally(), PullProgress(0, 0, 0, 0)
    with closing(_events(docker, reference, digest, platform)) as events:
        for event in events:
            current = tally.add(event)
            if current != last:
                progress(current)
            last = current
    with docker.call(f"find {wanted}, which it has just pulled,") as client:
        client.image(wanted)
    if reference.tag:
        tag(docker, reference, digest)


def _events(docker: Connection, reference: Reference, digest: str, platform: str) -> Generator[Mapping[str, Any]]:
    """The pull's events. A generator, so that only what the pull raises is translated, not what its reader does."""
    with docker.call(f"pull {reference.at(digest)}") as client, _registry(docker, reference):
        docker.refresh_credentials(client)
        answer = client.pull(reference.repository, tag=digest, stream=True, decode=True, platform=platform or None)
        with closing(answer) as events:
            for event in events:
                require(event, {"id?": str, "status?": str, "progressDetail?": _PROGRESS})
                if event.get("error"):
                    raise _failure(docker, reference, str(event["error"]))
                yield event


def tag(docker: Connection, reference: Reference, digest: str) -> None:
    """Let the reference's tag stand for that digest on this host."""
    with docker.call(f"tag {reference.at(digest)} as {reference.local_name}", is_write=True) as client:
        client.tag(reference.at(digest), reference.repository, reference.tag)


@contextmanager
def _registry(docker: Connection, reference: Reference) -> Iterator[None]:
    """Raise what the registry, or the credentials for it, got wrong; what the Engine got wrong passes through."""
    try:
        yield
    except (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:  # the latter in mid-stream
        raise RegistryUnreachable(
            f"nothing more came of {reference.local_name} from registry {reference.registry} by way of Docker; "
            "look whether the two answer"
        ) from error
    except APIError as error:
        if error.status_code == requests.codes.not_found:
            raise _failure(docker, reference, explanation(error), NotFound) from error
        if error.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
            raise _failure(docker, reference, explanation(error), Denied) from error
        if error.is_server_error():
            raise _failure(docker, reference, explanation(error)) from error
        raise
    except (DockerException, StoreError) as error:  # not of the Engine's API: the SDK could not read the credentials
        raise _failure(docker, reference, str(error), Denied) from error


def _failure(
    docker: Connection, reference: Reference, text: str, kind: type[SvcagentError] | None = None
) -> SvcagentError:
    kind = kind or registry_failure(text)
    text = clean(without_credentials(text))
    registry, image = reference.registry, reference.local_name
    if kind is NotFound:
        return NotFound(
            f"registry {registry} has no {image}: {text}; was it pushed? Where a registry hides what one may not see, "
            f"`docker login {registry}` as the user svcagent runs as"
        )
    if kind is Denied:
        return Denied(
            f"registry {registry} refused {image}: {text}; `docker login {registry}` as the user svcagent runs as "
            f"({docker.credentials_source()})"
        )
    if kind is RegistryUnreachable:
        return RegistryUnreachable(f"Docker could not get {image} from registry {registry}: {text}")
    return kind(f"Docker could not store {image}: {text}")
