"""``seen-<service>.json`` in the state directory: the digests that this host has seen under each image reference.

A pin in Consul KV is followed only to one of these (or one that this host ran), so writing to KV does not suffice to
choose what hosts run.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from agent.errors import SvcagentError
from agent.files import write_atomically
from agent.fleet import history
from agent.fleet.document import Unreadable, decode, encode, file_part, is_digest, is_name
from agent.logs import WARNING, log

KEPT_DIGESTS = 50
"""Of each image reference."""
KEPT_IMAGES = 10

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
        images = self._read()
        known = images.pop(image, {})
        new = {digest: _moment(now) for digest in digests if is_digest(digest) and digest not in known}
        if not new:
            return
        images[image] = dict(list({**known, **new}.items())[-KEPT_DIGESTS:])
        write_atomically(self._file, encode(images=dict(list(images.items())[-KEPT_IMAGES:])), mode=0o600)

    def knows(self, image: str, digest: str) -> bool:
        """True if this host has seen the digest under the image reference, or ran it.

        :raises SvcagentError: the file or the history cannot be read.
        """
        return digest in self.of(image) or digest in self.ran()

    def of(self, image: str) -> frozenset[str]:
        """Return the digests that were seen under an image reference."""
        return frozenset(self._read().get(image, {}))

    def ran(self) -> frozenset[str]:
        """Return the digests that this host ran, as far as its own history on disk says.

        :raises SvcagentError: the history cannot be read.
        """
        pasts = history.read_from_disk(self._state_dir, self._service, history.KEPT_ON_DISK)
        return frozenset(
            digest for past in pasts for digest in (past.before, past.after if past.outcome in _RAN else "") if digest
        )

    def _read(self) -> dict[str, dict[str, str]]:
        """Return digests with the time when each was first seen, by image reference. Nothing if it is damaged."""
        try:
            images = decode(self._file.read_bytes()).get("images")
        except FileNotFoundError:
            return {}
        except Unreadable as error:
            log(f"{self._file} is replaced, because it cannot be used: {error}", level=WARNING, service=self._service)
            return {}
        except OSError as error:
            raise SvcagentError(
                f"cannot read {self._file}: {error.strerror}. Run as the owner of the state directory"
            ) from error
        return {
            image: {digest: str(since) for digest, since in digests.items() if is_digest(digest)}
            for image, digests in (images.items() if isinstance(images, dict) else ())
            if is_name(image) and isinstance(digests, dict)
        }


def _moment(now: datetime) -> str:
    return now.isoformat(timespec="seconds")
