"""The TSIG key for updates, from a BIND key file or the settings. No output contains its secret.

A key file is what ``tsig-keygen`` prints and named includes: ``key "name" { algorithm hmac-sha256; secret "…"; };``.
"""

import base64
import hashlib
import hmac
import re
import stat
from dataclasses import field, replace
from pathlib import Path

from agent.data import dataclass
from agent.definitions import DnsSettings, untrusted
from agent.errors import BadDefinition, Fault
from agent.files import NotRegularFile, Untrusted, read_trusted_path

ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224")
"""The strong algorithms of RFC 8945, section 6."""

WEAK_ALGORITHMS = ("hmac-sha1", "hmac-md5")
"""RFC 8945 advises against these, but old primaries may know no others."""

# A secret may contain two slashes. Inside quotes they begin no comment.
_QUOTED_OR_COMMENT = re.compile(r'("[^"]*")|/\*.*?\*/|(?://|#)[^\n]*', re.DOTALL)
_KEY = re.compile(r'\bkey\s+"?(?P<name>[^\s"{;]+)"?\s*\{(?P<body>[^}]*)\}\s*;')
_STATEMENT = re.compile(r'\b(algorithm|secret)\s+(?:"([^"]*)"|([^\s";]+))\s*;')
# Printable ASCII except the dot and the backslash, the escape character of DNS.
_LABEL = r"[!-\-/-\[\]-~]{1,63}"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_LONGEST = 64 * 1024
_REMEDY = "create one with: tsig-keygen -a hmac-sha256 svcagent"


@dataclass(frozen=True)
class Key:
    """A TSIG key. ``source`` describes its origin for messages."""

    name: str
    algorithm: str
    secret: bytes = field(repr=False)
    source: str
    is_readable_by_others: bool = False

    @property
    def is_weak(self) -> bool:
        """True if the algorithm is accepted only with ``allow_weak_keys``."""
        return self.algorithm in WEAK_ALGORITHMS


def find_key(settings: DnsSettings) -> Key:
    """Return the configured key; a file takes precedence. Raise `BadDefinition` (without secrets) if unusable."""
    if settings.key_file is not None:
        return from_file(settings.key_file, may_be_weak=settings.allow_weak_keys)
    if settings.key_secret is not None and settings.key_name is not None:
        secret = settings.key_secret.reveal()
        source, is_allowed = settings.key_secret_source, settings.allow_weak_keys
        return _key(source, settings.key_name, settings.key_algorithm, secret, may_be_weak=is_allowed)
    remedy = f"set dns.key_file in svcagent.toml, or SVCAGENT_DNS_KEY_FILE ({_REMEDY})"
    raise _bad("settings", "DNS updates require a key, but none is set", remedy)


def from_file(file: Path, *, may_be_weak: bool = False) -> Key:
    """Return the only key in a key file. Raise `BadDefinition` if there is no usable one."""
    try:
        raw, opened = read_trusted_path(file, _LONGEST)
        content = raw.decode()
    except Untrusted as error:
        raise BadDefinition([untrusted(str(file), error)]) from error
    except NotRegularFile as error:
        raise _bad(str(file), f"the key file is {error}", _REMEDY) from error
    except OSError as error:
        raise _bad(str(file), f"the key file cannot be read: {error.strerror}", "grant svcagent read access") from error
    except UnicodeDecodeError as error:
        raise _bad(str(file), "not a BIND key file: not text", _REMEDY) from error
    found = list(_KEY.finditer(_QUOTED_OR_COMMENT.sub(lambda one: one[1] or " ", content)))
    if len(found) != 1:
        what = "contains no key statement" if not found else f"contains {len(found)} keys"
        remedy = f"copy svcagent's key into a separate file, or {_REMEDY}"
        raise _bad(str(file), f"the key file {what}", remedy)
    stated = {word: quoted or bare for word, quoted, bare in _STATEMENT.findall(found[0]["body"])}
    if missing := {"algorithm", "secret"} - stated.keys():
        raise _bad(str(file), f"the key has no {' and no '.join(sorted(missing))}", _REMEDY)
    key = _key(str(file), found[0]["name"], stated["algorithm"], stated["secret"], may_be_weak=may_be_weak)
    return replace(key, is_readable_by_others=bool(opened.st_mode & stat.S_IROTH))


def _key(source: str, name: str, algorithm: str, secret: str, *, may_be_weak: bool) -> Key:
    key_name = name.lower().removesuffix(".")
    if not _NAME.fullmatch(key_name):
        raise _bad(source, "the key's name is not a DNS name", _REMEDY)
    # named also accepts md5's name on the wire.
    folded = algorithm.lower().removesuffix(".").removesuffix(".sig-alg.reg.int")
    if folded in WEAK_ALGORITHMS and not may_be_weak:
        remedy = f"{_REMEDY}; if the server knows no other algorithm, set dns.allow_weak_keys = true"
        raise _bad(source, f"the key's algorithm {folded} is too weak (RFC 8945)", remedy)
    if folded not in (*ALGORITHMS, *WEAK_ALGORITHMS):
        raise _bad(source, f"the key's algorithm {algorithm} is not one of {', '.join(ALGORITHMS)}", _REMEDY)
    try:
        # named ignores white space in a secret.
        decoded = base64.b64decode("".join(secret.split()), validate=True)
    except ValueError:  # binascii.Error, or non-ASCII letters
        decoded = b""
    if not decoded:
        raise _bad(source, "the key's secret is not base64", f"copy it completely, or {_REMEDY}")
    _try_algorithm(source, folded, decoded)
    return Key(key_name, folded, decoded, source)


def _try_algorithm(source: str, algorithm: str, secret: bytes) -> None:
    """Raise BadDefinition if the algorithm is unavailable (OpenSSL's FIPS mode). Only its use shows that."""
    try:
        hmac.new(secret, digestmod=getattr(hashlib, algorithm.removeprefix("hmac-")))
    except ValueError as error:
        problem = f"this host's Python or OpenSSL cannot sign with {algorithm} ({error})"
        raise _bad(source, problem, f"check FIPS mode, or use a key with another algorithm: {_REMEDY}") from error


def _bad(file: str, problem: str, remedy: str) -> BadDefinition:
    return BadDefinition([Fault(file, "", problem, remedy)])
