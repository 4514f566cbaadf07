"""Pulls an image by digest and tags it. `failures` interprets the registry's answers."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from agent.clock import Clock
from agent.engine.answers import EVENT
from agent.engine.connection import EngineConnection
from agent.engine.failures import RefusedAnswer, is_of_engine, is_of_sdk, registry_failure, retry_after, timed_out
from agent.engine.model import PullProgress
from agent.engine.queries import READ_SECONDS
from agent.engine.reference import Reference, is_digest
from agent.errors import Denied, NotFound, RateLimited, RegistryUnreachable, SvcagentError
from agent.shapes import require
from agent.text import redacted

EXTRACTING_FACTOR = 10
"""How many times longer than a download an extraction may stall: a large layer on a slow disk takes minutes. Some
Engines report nothing meanwhile, others the seconds that have passed."""

_DONE = {"Pull complete", "Already exists"}
_FETCHED = {"Verifying Checksum", "Download complete", "Extracting", *_DONE}
_LAYER = {"Pulling fs layer", "Waiting", "Downloading", "Retrying", *_FETCHED}


class Tally:
    """Sums up a pull's events."""

    def __init__(self) -> None:
        self._done: dict[str, bool] = {}
        self._fetched: dict[str, bool] = {}
        self._bytes: dict[str, tuple[int, int]] = {}
        self._last: dict[str, tuple[str, int | None]] = {}

    def add(self, event: Mapping[str, Any]) -> bool:
        """Count an event; return True if it reports something new.

        While nothing moves, some Engines repeat the same event ten times a second, or count the seconds.
        """
        layer, status = event.get("id") or "", str(event.get("status") or "")
        detail = event.get("progressDetail") or {}
        current: int | None = None if detail.get("units") == "s" else detail.get("current")
        if layer and (status in _LAYER or status.startswith("Retrying")):
            self._done[layer] = self._done.get(layer, False) or status in _DONE
            self._fetched[layer] = status in _FETCHED
            if status == "Downloading" and current is not None:
                self._bytes[layer] = (current, max(detail.get("total") or 0, current))
            elif status in _FETCHED and layer in self._bytes:
                self._bytes[layer] = (self._bytes[layer][1],) * 2
        is_new = self._last.get(layer) != (status, current)
        self._last[layer] = (status, current)
        return is_new

    @property
    def is_fetching(self) -> bool:
        """True until all layers are on this host, even if they are not extracted yet."""
        return not self._fetched or not all(self._fetched.values())

    @property
    def progress(self) -> PullProgress:
        return PullProgress(
            layers_done=sum(self._done.values()),
            layers=len(self._done),
            bytes_done=sum(done for done, _ in self._bytes.values()),
            bytes_total=sum(total for _, total in self._bytes.values()),
        )


def registry_digest(docker: EngineConnection, reference: Reference) -> str:
    with docker.query(f"look up {reference.local_name} in its registry") as queries, _registry(docker, reference):
        found = queries.registry_digest(reference.local_name, docker.authorization(reference.registry))
    if not is_digest(found):
        raise RegistryUnreachable(
            f"registry {reference.registry} returned {found[:80]!a} for {reference.local_name}, which is "
            "not a digest. A proxy may answer in its place"
        )
    return found


def pull(
    docker: EngineConnection,
    clock: Clock,
    reference: Reference,
    digest: str,
    progress: Callable[[PullProgress], None],
    timeout: float,
    platform: str = "",
) -> None:
    """Pull ``repository@digest``, and make the reference's tag refer to it on this host.

    ``platform``: the one to pull of a multi-platform image, as ``linux/386``; empty for the Engine's own.
    """
    wanted = reference.at(digest)
    last = PullProgress(0, 0, 0, 0)
    with closing(_progress(docker, clock, reference, digest, timeout, platform)) as states:
        for current in states:
            if current != last:
                progress(current)
            last = current
    with docker.query(f"find {wanted} after the pull") as queries:
        queries.image(wanted)
    if reference.tag:
        tag(docker, reference, digest)


def _progress(
    docker: EngineConnection, clock: Clock, reference: Reference, digest: str, timeout: float, platform: str
) -> Generator[PullProgress]:
    """Yield the pull's states. A generator, so that failures of the pull are translated, and not those of its reader.

    :raises RegistryUnreachable: nothing new was reported for ``timeout`` seconds.
    """
    with docker.call(f"pull {reference.at(digest)}") as client, _registry(docker, reference, timeout):
        # Read again, so that a daemon sees a new `docker login`.
        client.reload_config(str(docker.credentials_file))
        tally, moved_at = Tally(), clock.monotonic()
        client.limit_silence(timeout)
        answer = client.pull(reference.repository, tag=digest, stream=True, decode=True, platform=platform or None)
        with client.reading(answer) as events:
            for event in events:
                require(event, EVENT)
                if text := (event.get("errorDetail") or {}).get("message") or event.get("error"):
                    raise _failure(docker, reference, text)
                if tally.add(event):
                    yield tally.progress
                    moved_at = clock.monotonic()
                allowed = timeout if tally.is_fetching else timeout * EXTRACTING_FACTOR
                left = moved_at + allowed - clock.monotonic()
                if left <= 0:
                    raise _silent(reference, allowed)
                client.limit_silence(left)
        # Not every Engine reports the end of each layer.
        total = tally.progress
        yield replace(total, layers_done=total.layers, bytes_done=total.bytes_total)


def tag(docker: EngineConnection, reference: Reference, digest: str) -> None:
    with docker.call(f"tag {reference.at(digest)} as {reference.local_name}", is_write=True) as client:
        client.tag(reference.at(digest), reference.repository, reference.tag)


def _silent(reference: Reference, seconds: float) -> RegistryUnreachable:
    return RegistryUnreachable(
        f"the pull of {reference.local_name} from registry {reference.registry} made no progress for "
        f"{seconds:g} s (reload.pull_timeout). Check that Docker and the registry answer"
    )


@contextmanager
def _registry(docker: EngineConnection, reference: Reference, timeout: float = READ_SECONDS) -> Iterator[None]:
    """Translate failures of the registry and the credentials, not the Engine's. ``timeout``: the longest silence."""
    try:
        yield
    except RefusedAnswer as error:
        by_text = registry_failure(error.message)
        # Some Engines also answer 404 if a registry refused.
        not_found = Denied if by_text is Denied else NotFound
        kinds = {401: Denied, 403: Denied, 404: not_found, 429: RateLimited}
        kind = by_text if error.status >= 500 else kinds.get(error.status)
        if kind is None or not is_of_engine(error):
            raise
        raise _failure(docker, reference, error.message, kind, error) from error
    except Exception as error:
        if timed_out(error):
            raise _silent(reference, timeout) from error
        if is_of_sdk(error):  # the SDK could not read the credentials
            raise _failure(docker, reference, str(error), Denied) from error
        raise


def _failure(
    docker: EngineConnection,
    reference: Reference,
    text: str,
    kind: type[SvcagentError] | None = None,
    error: RefusedAnswer | None = None,
) -> SvcagentError:
    kind = kind or registry_failure(text)
    text = redacted(text)
    registry, image = reference.registry, reference.local_name
    if kind is NotFound:
        return NotFound(
            f"registry {registry} has no {image}: {text}. Check that it was pushed. A private repository may require "
            f"`docker login {registry}` as the user svcagent runs as",
            kind="not-in-registry",
        )
    if kind is Denied:
        return Denied(
            f"registry {registry} refused {image}: {text}. Run `docker login {registry}` as the user svcagent runs as "
            f"({docker.credentials_source()})",
            kind="registry-denied",
        )
    if kind is RateLimited:
        seconds = retry_after(text, error)
        when = "later" if seconds is None else f"in {math.ceil(seconds)} s"
        return RateLimited(
            f"registry {registry} limits the rate of requests and refused {image}: {text}. Try again "
            f"{when}. Reduce the frequency of reload.schedule, or run `docker login {registry}` for a higher limit",
            seconds,
        )
    if kind is RegistryUnreachable:
        return RegistryUnreachable(f"Docker could not get {image} from registry {registry}: {text}")
    return kind(f"Docker could not store {image}: {text}")
