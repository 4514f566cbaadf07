"""``seen-<service>.json`` in the state directory: the digests seen per image reference, and the pulled images.

A pin in Consul KV is followed only to one of these digests (or one that this host ran), so write access to KV does not
suffice to choose what hosts run. The pulled images show which digest a container without image names runs, and which
images may be removed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.engine.model import Fetched
from agent.errors import SvcagentError
from agent.files import write_atomically
from agent.fleet import history
from agent.fleet.document import Unreadable, decode, encode, file_part, is_digest, is_name, read_local
from agent.logs import WARNING, log
from agent.outcomes import WANTED_RAN

KEPT_DIGESTS = 50
"""Per image reference."""
KEPT_IMAGES = 10
KEPT_FETCHED = 20


class SeenDigests:
    """What one service has seen on this host. The file is bounded, has mode 0600, and is written only on news."""

    def __init__(self, state_dir: Path, service: str) -> None:
        self._state_dir = state_dir
        self._service = service
        self._file = state_dir / f"seen-{file_part(service.lower())}.json"

    def note(self, image: str, digests: Iterable[str], now: datetime) -> None:
        """Record that an image reference stood for these digests, the newest last.

        Raise `SvcagentError` if that fails.
        """
        document = self._read()
        images = _images(document)
        known = images.pop(image, {})
        seen = {digest: known.get(digest, _moment(now)) for digest in digests if is_digest(digest)}
        if list(known)[-len(seen) :] == list(seen):
            return
        others = {digest: since for digest, since in known.items() if digest not in seen}
        images[image] = dict(list({**others, **seen}.items())[-KEPT_DIGESTS:])
        self._write(images, _fetched(document))

    def note_fetched(self, one: Fetched) -> None:
        """Record an image that was pulled to be deployed. Raise `SvcagentError` if that fails."""
        document = self._read()
        known = _fetched(document)
        if one not in known:
            self._write(_images(document), (*known, one))

    def fetched(self) -> tuple[Fetched, ...]:
        """Return the last pulled images, the oldest first; none if this user may not read the file."""
        try:
            return _fetched(self._read())
        except SvcagentError:
            return ()

    def knows(self, image: str, digest: str) -> bool:
        """True if this host saw the digest under that reference or ran it. Raise `SvcagentError` if unreadable."""
        return digest in self.of(image) or digest in self.ran()

    def of(self, image: str) -> frozenset[str]:
        return frozenset(_images(self._read()).get(image, {}))

    def latest(self, image: str) -> str:
        """Return the digest that the reference last stood for, as far as this host saw; empty if it is unknown."""
        try:
            return next(reversed(_images(self._read()).get(image, {})), "")
        except SvcagentError:
            return ""

    def ran(self) -> frozenset[str]:
        """Return the digests in this host's history on disk. Raise `SvcagentError` if it cannot be read."""
        pasts = history.read_from_disk(self._state_dir, self._service, history.KEPT_ON_DISK)
        ran = {past.before for past in pasts} | {past.after for past in pasts if past.outcome in WANTED_RAN}
        return frozenset(ran - {""})

    def _write(self, images: Mapping[str, Mapping[str, str]], fetched: Sequence[Fetched]) -> None:
        document = encode(
            images=dict(list(images.items())[-KEPT_IMAGES:]), fetched=[asdict(one) for one in fetched[-KEPT_FETCHED:]]
        )
        write_atomically(self._file, document, mode=0o600)

    def _read(self) -> Mapping[str, Any]:
        """Return the document; empty if it is damaged."""
        content = read_local(self._file)
        try:
            return decode(content) if content else {}
        except Unreadable as error:
            log(f"{self._file} is replaced, because it is invalid: {error}", level=WARNING, service=self._service)
            return {}


def _images(document: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    images = document.get("images")
    return {
        image: {digest: str(since) for digest, since in digests.items() if is_digest(digest)}
        for image, digests in (images.items() if isinstance(images, dict) else ())
        if is_name(image) and isinstance(digests, dict)
    }


def _fetched(document: Mapping[str, Any]) -> tuple[Fetched, ...]:
    entries = document.get("fetched")
    found = (
        Fetched(*(str(entry.get(name) or "") for name in ("image", "digest", "image_id")))
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict)
    )
    return tuple(one for one in found if is_name(one.image) and is_digest(one.digest) and is_digest(one.image_id))


def _moment(now: datetime) -> str:
    return now.isoformat(timespec="seconds")
