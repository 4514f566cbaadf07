"""Make foreign text safe to show: cleaned for a terminal, bounded, and without credentials.

Text from Consul, containers, DNS, hooks and definitions may contain escape sequences that a terminal obeys, characters
that reorder or hide what a person reads, and passwords.
"""

import re
import shlex
from collections.abc import Iterable, Sequence

LONGEST_TEXT = 1000
"""The default limit of one foreign text in a message, in characters."""

HIDDEN = "…"
"""Replaces a credential, and the part of a text beyond a limit."""

# The patterns of this module are text: re compiles and caches those that are used. Compiling all of them here would
# take a twentieth of each start.

# ECMA-48: CSI sequences, strings (OSC, DCS, SOS, PM, APC) with their terminator, and the other escapes. Bodies exclude
# control characters, so that no text makes the search quadratic.
_SEQUENCE = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x00-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
# Printable for Unicode, but drawn as nothing or as a blank: fillers, variation selectors, the braille blank.
_BLANK = "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
# More marks on one letter than any script uses cover the lines around it.
_MARKS = (
    "([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{3})"
    "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+"
)
_LONGEST_SOURCE = 16
"""Source characters read for each character of the limit: the rest may be escape sequences."""


def printable(text: str, keep: str = "\n\t") -> str:
    """Return the text without escape sequences, and with every other unprintable character escaped.

    ``keep`` lists the control characters that stay. The length is not bounded: this is for whole messages; foreign text
    inside them goes through `clean`.
    """
    if text.isascii() and text.isprintable():
        return text
    text = re.sub(_MARKS, r"\1", re.sub(_BLANK, "", re.sub(_SEQUENCE, "", text)))
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in keep else _escaped(sign) for sign in text)


def clean(text: str, limit: int = LONGEST_TEXT) -> str:
    """Return foreign text as one line of at most ``limit`` characters that is safe on a terminal.

    Escape sequences are removed and white space, including line breaks, becomes one space. Everything else that cannot
    be printed (control and format characters, bidirectional overrides, surrogates, private use) is escaped.
    """
    source = text[: limit * _LONGEST_SOURCE]
    # Remove sequences first: splitting at white space would leave their end behind.
    is_plain = source.isascii() and source.isprintable()
    words = (source if is_plain else re.sub(_SEQUENCE, "", source)).split()
    cleaned = printable(" ".join(words), keep="")
    is_cut = len(source) < len(text)
    return _bounded(cleaned, limit, is_cut=is_cut)


def clean_lines(text: str, lines: int, limit: int = 200) -> str:
    """Return the last ``lines`` lines that are not blank, each cleaned and at most ``limit`` characters long."""
    # One pass over the end is enough: each line has at least its line break.
    end = text[-lines * limit * _LONGEST_SOURCE :] if lines > 0 else ""
    found = [cleaned for line in re.split(r"[\r\n]+", end) if (cleaned := clean(line, limit))]
    return "\n".join(found[-lines:]) if lines > 0 else ""


def _bounded(text: str, limit: int, *, is_cut: bool) -> str:
    if len(text) > limit or (is_cut and not text.endswith(HIDDEN)):
        return f"{text[: limit - 1]}{HIDDEN}"
    return text


def _escaped(sign: str) -> str:
    code = ord(sign)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


# Credentials -------------------------------------------------------------------------------------------------------

_HIDDEN_NAME = (
    r"(?i)"
    r".*(?:passw(?:or)?d|passphrase|passfile|passcode|secret|token(?!iz)|credential|signature|authorization|webhook|"
    r"(?:api|access|account|private|signing|encryption|master|session|shared|ssh|storage)key).*"
    r"|auths?|bearer|cookies?|connectionstring|connstr|creds?|dsn|jwt|keys?|kubeconfig|netrc|pass|pat|pin|pwd|sas|sig|"
    r"sshpass"
)
_PLAIN_NAMES = frozenset({"PWD", "OLDPWD"})
_PUBLIC = frozenset({"public", "pub"})
_PLACES = frozenset({"file", "path", "dir", "directory"})
_LONGEST_NAME = 200

_USER_INFO = r"""((?<![A-Za-z0-9+.\-])[A-Za-z][A-Za-z0-9+.\-]*://)([^/\s?#"'<>]+)@"""
_BEARER = r"(?i)(\bauthorization[\"']?\s*[:=]\s*[\"']?)(?:(basic|bearer|digest|token)\s+)?[^\s\"',]+"
_LONE_BEARER = r"(?i)\b(bearer)\s+[A-Za-z0-9._~+/=\-]{12,}"
_HEADER = (
    r"(?i)(?<![\w\-])((?:x-[a-z0-9\-]{0,60}?(?:token|key|secret|auth)|(?:set-)?cookie|api-?key)[\"']?\s*:\s*[\"']?)"
    r"[^\s\"',]+"
)
# name=value, "name": "value" and --name value. The value ends where a URL's or a shell's word would.
_ASSIGNED = (
    r"""(?<![\w.\-])(?:--?)?(?P<name>[A-Za-z_][\w.\-]*)(?P<between>["']?=["']?|"\s*:\s*")(?P<value>[^\s&;,"'<>]+)"""
)
_OPTION = r"""(?<![\w\-])--?(?P<name>[A-Za-z][\w.\-]+)(?P<between>["']?\s+["']?)(?P<value>(?!-)[^\s"']+)"""
_LOGIN = r"""(?<!\S)(-u|--user|--proxy-user)([\s=]+["']?)([^\s:"']*):[^\s"']+"""
_SAFE_SCHEMES = ("ssh://",)


def is_secret_name(name: str) -> bool:
    """True if a variable, parameter or option of this name usually contains a credential or names a file of them."""
    words = re.split(r"[_.\-]+", name[:_LONGEST_NAME])
    if name in _PLAIN_NAMES or not _PUBLIC.isdisjoint(word.lower() for word in words):
        return False
    return "connection_string" in name.lower() or any(re.fullmatch(_HIDDEN_NAME, word) for word in words)


def has_credentials(text: str) -> bool:
    return without_credentials(text) != text


def without_credentials(text: str) -> str:
    """Return the text with passwords, tokens and keys replaced by "…".

    It finds user names and passwords in URLs, parameters and options with secret names (``?token=…``, ``--password=…``,
    ``--password …``), and headers such as ``Authorization``.
    """
    text = re.sub(_USER_INFO, _without_user, text)
    text = re.sub(_BEARER, lambda found: f"{found[1]}{found[2] + ' ' if found[2] else ''}{HIDDEN}", text)
    text = re.sub(_LONE_BEARER, rf"\1 {HIDDEN}", text)
    text = re.sub(_HEADER, rf"\1{HIDDEN}", text)
    text = re.sub(_LOGIN, rf"\1\2\3:{HIDDEN}", text)
    text = re.sub(_ASSIGNED, _without_value, text)
    return re.sub(_OPTION, _without_value, text)


def redacted(text: str, limit: int = LONGEST_TEXT) -> str:
    """Return foreign text as `clean` does, and without credentials.

    Escape sequences are removed first, because one before a name hides where the name begins; the text is cut last,
    because a credential that is cut off is not found.
    """
    return clean(without_credentials(printable(text)), limit)


def shown_command(argv: Iterable[str]) -> str:
    """Return a command as a person would type it, cleaned, bounded and without credentials."""
    words: list[str] = []
    is_next_secret = False
    for word in argv:
        is_option = word.startswith("-") and len(word) > 1
        words.append(HIDDEN if is_next_secret and not is_option else without_credentials(word))
        is_next_secret = is_option and "=" not in word and _hides_value(word.lstrip("-"))
    return clean(without_credentials(" ".join(map(_quoted, words))))


def quoted_command(words: Sequence[str]) -> str:
    """Return a command to run, with each argument quoted for a shell, for advice that repeats foreign text."""
    return " ".join(shlex.quote(printable(word, keep="")) for word in words)


def _quoted(word: str) -> str:
    return word if word == HIDDEN else shlex.quote(word)


def _without_user(found: re.Match[str]) -> str:
    scheme, user = found[1], found[2]
    if scheme.lower() in _SAFE_SCHEMES and ":" not in user:
        return found[0]
    return f"{scheme}{HIDDEN}@"


def _without_value(found: re.Match[str]) -> str:
    if found["value"] == HIDDEN or not _hides_value(found["name"]):
        return found[0]
    return found[0].removesuffix(found["value"]) + HIDDEN


def _hides_value(name: str) -> bool:
    return is_secret_name(name) and re.split(r"[_.\-]", name.lower())[-1] not in _PLACES


def short_digest(digest: str) -> str:
    """Return the beginning of an image digest or ID, for people: ``sha256:`` and 12 digits."""
    return digest[:19]


def some_of(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
