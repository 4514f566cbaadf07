"""The ACL token: where it comes from, and when it is read again. Its text leaves this module in a header only."""

import re
import shlex
from functools import lru_cache
from pathlib import Path

from agent.definitions import ConsulSettings
from agent.errors import Denied
from agent.files import NotAFile, Untrusted, is_exposed, read_trusted_alone
from agent.logs import WARNING, log

# What may stand in a header's value, without spaces. Python's HTTP client would quote anything else in an error.
_USABLE = re.compile(r"[\x21-\x7e]+")
_LONGEST = 4096
"""Bytes of a token file that are read."""
# Consul makes its tokens in this form; in the place of a path it is a token in the wrong variable.
_LIKE_A_TOKEN = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Token:
    """A token given directly, or one in a file that somebody else may replace at any moment (Vault's agent does).

    A file that is not empty wins over a token given directly, as in Consul's own tools.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self._settings = settings
        self._seen: tuple[int, int, int] | None = None
        self._from_file: str | None = None

    def value(self) -> str | None:
        """The token to send now; None if there is none.

        :raises Denied: the file cannot be read and never could, or what is in it cannot be a token.
        """
        if self._settings.token_file is not None:
            self._look_at(self._settings.token_file)
            if self._from_file:
                return self._from_file
        given = self._settings.token
        return _usable(given.reveal(), self._settings.token_source) if given else None

    def has_changed(self) -> bool:
        """Read the file again, whatever its time stamp says: does it hold another token than before?"""
        before = self._from_file
        if self._settings.token_file is None:
            return False
        self._seen = None
        self._look_at(self._settings.token_file)
        return self._from_file != before

    @property
    def source(self) -> str:
        """Where the token comes from, in words, for a message; empty if there is none."""
        if self._from_file:
            return f"{self._settings.token_file} (from {self._settings.token_file_source})"
        return self._settings.token_source if self._settings.token else ""

    def hide_in(self, text: str) -> str:
        """The text without the token: a server may echo what it was sent."""
        given = self._settings.token.reveal() if self._settings.token else None
        for secret in filter(None, (self._from_file, given)):
            text = text.replace(secret, "…")
        return text

    def _look_at(self, file: Path) -> None:
        try:
            content, found = read_trusted_alone(file, _LONGEST)
        except Untrusted as error:
            raise Denied(f"the Consul token file (from {self._settings.token_file_source}): {error}") from error
        except (OSError, NotAFile, ValueError) as error:  # ValueError: a path with NUL
            if self._from_file:
                # Between the old file and the new one there may be a moment without any.
                return
            said = (error.strerror if isinstance(error, OSError) else "") or str(error)
            raise Denied(
                f"cannot read the Consul token file {_shown(file)} (from {self._settings.token_file_source}): "
                f"{said}. Check its path, owner and mode; a token itself belongs into CONSUL_HTTP_TOKEN"
            ) from error
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp == self._seen:
            return
        if self._seen is None and is_exposed(file, found):
            _warn_of_exposure(file, stamp)
        text = content.decode("utf-8", "replace").strip()
        if text or not self._from_file:
            self._from_file = _usable(text, f"{file} (from {self._settings.token_file_source})") if text else None
            self._seen = stamp


@lru_cache
def _warn_of_exposure(file: Path, _stamp: tuple[int, int, int]) -> None:
    """Log it once for each version of the file, however many connections of this process use it."""
    log(
        f"every user of this host can read the Consul token file {file}; run: "
        f"{shlex.join(['chmod', 'o-rwx', str(file)])}",
        level=WARNING,
    )


def _usable(text: str, source: str) -> str:
    if not _USABLE.fullmatch(text):
        raise Denied(
            f"the Consul token from {source} holds a space, a line break or a letter beyond ASCII. Write the token's "
            "SecretID there and nothing else"
        )
    return text


def _shown(file: Path) -> str:
    return "…" if _LIKE_A_TOKEN.search(str(file)) else str(file)
