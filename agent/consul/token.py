"""The ACL token: its sources and when it is read again. Its text leaves this module only in a header."""

import re
import shlex
from functools import lru_cache
from pathlib import Path

from agent.definitions import ConsulSettings
from agent.errors import TokenUnusable
from agent.files import NotRegularFile, Untrusted, is_exposed, read_trusted_path
from agent.logs import WARNING, log

# Characters of a header value, without spaces. Python's HTTP client would quote any others in its error.
_USABLE = re.compile(r"[\x21-\x7e]+")
_LONGEST = 4096
"""Bytes of a token file that are read."""
# The format of Consul's tokens. A path that looks like this is a token in the wrong variable.
_LIKE_A_TOKEN = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Token:
    """A token from a setting, or from a file that another process may replace at any moment (as Vault's agent does).

    A non-empty file takes precedence over a setting, as in Consul's own tools.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self._settings = settings
        self._seen: tuple[int, int, int] | None = None
        self._from_file: str | None = None

    def value(self) -> str | None:
        """Return the token to send, or None. Raise `TokenUnusable` if its file was never readable or is no token."""
        if self._settings.token_file is not None:
            self._read_file(self._settings.token_file)
            if self._from_file:
                return self._from_file
        given = self._settings.token
        return _checked(given.reveal(), self._settings.token_source) if given else None

    def has_changed(self) -> bool:
        """Read the file again regardless of its time stamp. True if it has another token than before."""
        before = self._from_file
        if self._settings.token_file is None:
            return False
        self._seen = None
        self._read_file(self._settings.token_file)
        return self._from_file != before

    @property
    def source(self) -> str:
        """Return a description of the token's source for a message; empty if there is no token."""
        if self._from_file:
            return f"{self._settings.token_file} (from {self._settings.token_file_source})"
        return self._settings.token_source if self._settings.token else ""

    def hide_in(self, text: str) -> str:
        """Return the text without the token. A server may echo what it received."""
        given = self._settings.token.reveal() if self._settings.token else None
        for secret in filter(None, (self._from_file, given)):
            text = text.replace(secret, "…")
        return text

    def _read_file(self, file: Path) -> None:
        try:
            content, found = read_trusted_path(file, _LONGEST)
        except Untrusted as error:
            raise TokenUnusable(f"the Consul token file (from {self._settings.token_file_source}): {error}") from error
        except (OSError, NotRegularFile, ValueError) as error:  # ValueError: a path with NUL
            if self._from_file:
                # While the file is being replaced, it may be absent for a moment.
                return
            reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
            raise TokenUnusable(
                f"cannot read the Consul token file {_shown(file)} (from {self._settings.token_file_source}): "
                f"{reason}. Check its path, owner and mode; put the token itself in CONSUL_HTTP_TOKEN",
            ) from error
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp == self._seen:
            return
        if self._seen is None and is_exposed(file, found):
            _warn_of_exposure(file, stamp)
        text = content.decode("utf-8", "replace").strip()
        if text or not self._from_file:
            self._from_file = _checked(text, f"{file} (from {self._settings.token_file_source})") if text else None
            self._seen = stamp


@lru_cache
def _warn_of_exposure(file: Path, _stamp: tuple[int, int, int]) -> None:
    """Warn once per version of the file, however many connections of this process use it."""
    log(
        f"every user of this host can read the Consul token file {file}; run: "
        f"{shlex.join(['chmod', 'o-rwx', str(file)])}",
        level=WARNING,
    )


def _checked(text: str, source: str) -> str:
    if not _USABLE.fullmatch(text):
        raise TokenUnusable(
            f"the Consul token from {source} contains a space, a line break or a non-ASCII character. Write only the "
            "token's SecretID there",
        )
    return text


def _shown(file: Path) -> str:
    return "…" if _LIKE_A_TOKEN.search(str(file)) else str(file)
