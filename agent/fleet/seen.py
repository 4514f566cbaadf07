"""``seen-<service>.json`` in the state directory: the digests that this host has seen under each image reference, and
the images that svcagent fetched to deploy them.

A pin in Consul KV is followed only to one of these (or one that this host ran), so writing to KV does not suffice to
choose what hosts run. What was fetched says which digest a container runs whose image has lost its names, and which
images may be removed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.engine import Fetched
from agent.errors import SvcagentError
from agent.files import write_atomically
from agent.fleet import history
from agent.fleet.document import Unreadable, decode, encode, file_part, is_digest, is_name
from agent.logs import WARNING, log

KEPT_DIGESTS = 50
"""Of each image reference."""
KEPT_IMAGES = 10
KEPT_FETCHED = 20

_RAN = frozenset({"reloaded", "recovered"})


class SeenDigests:
    """What one service of this host has seen. Written only when there is something new; bounded; mode 0600."""

    def __init__(self, state_dir: Path, service: str) -> None:
        self._state_dir = state_dir
        self._service = service
        self._file = state_dir / f"seen-{file_part(service.lower())}.json"

    def note(self, image: str, digests: Iterable[str], now: datetime) -> None:
        """Remember that an image reference stood for these digests.

        :raises SvcagentError: the file cannot be written.
        """
        document = self._read()
        images = _images(document)
        known = images.pop(image, {})
        new = {digest: _moment(now) for digest in digests if is_digest(digest) and digest not in known}
        if not new:
            return
        images[image] = dict(list({**known, **new}.items())[-KEPT_DIGESTS:])
        self._write(images, _fetched(document))

    def note_fetched(self, one: Fetched) -> None:
        """Remember an image that was fetched to be deployed.

        :raises SvcagentError: the file cannot be written.
        """
        document = self._read()
        known = _fetched(document)
        if one not in known:
            self._write(_images(document), (*known, one))

    def fetched(self) -> tuple[Fetched, ...]:
        """Return the images that were fetched last, the oldest first; none where this user may not read the file."""
        try:
            return _fetched(self._read())
        except SvcagentError:
            return ()

    def knows(self, image: str, digest: str) -> bool:
        """True if this host has seen the digest under the image reference, or ran it.

        :raises SvcagentError: the file or the history cannot be read.
        """
        return digest in self.of(image) or digest in self.ran()

    def of(self, image: str) -> frozenset[str]:
        """Return the digests that were seen under an image reference."""
        return frozenset(_images(self._read()).get(image, {}))

    def ran(self) -> frozenset[str]:
        """Return the digests that this host ran, as far as its own history on disk says.

        :raises SvcagentError: the history cannot be read.
        """
        pasts = history.read_from_disk(self._state_dir, self._service, history.KEPT_ON_DISK)
        return frozenset(
            digest for past in pasts for digest in (past.before, past.after if past.outcome in _RAN else "") if digest
        )

    def _write(self, images: Mapping[str, Mapping[str, str]], fetched: Sequence[Fetched]) -> None:
        document = encode(
            images=dict(list(images.items())[-KEPT_IMAGES:]), fetched=[asdict(one) for one in fetched[-KEPT_FETCHED:]]
        )
        write_atomically(self._file, document, mode=0o600)

    def _read(self) -> Mapping[str, Any]:
        """Return the document. Nothing if it is damaged."""
        try:
            return decode(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except Unreadable as error:
            log(f"{self._file} is replaced, because it cannot be used: {error}", level=WARNING, service=self._service)
            return {}
        except OSError as error:
            raise SvcagentError(
                f"cannot read {self._file}: {error.strerror}. Run as the owner of the state directory"
            ) from error


def _images(document: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Digests with the time when each was first seen, by image reference."""
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
