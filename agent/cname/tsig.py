"""The key that signs updates, from a BIND key file or from the settings. Its secret appears in no output.

A key file is what ``tsig-keygen`` prints and named includes: ``key "name" { algorithm hmac-sha256; secret "…"; };``.
"""

import base64
import binascii
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from agent.definitions import DnsSettings, untrusted
from agent.errors import BadDefinition, Fault
from agent.files import NotAFile, Untrusted, read_trusted_alone

ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512")
"""Those that RFC 8945 recommends; it calls MD5 and SHA-1 not to be used."""

# A secret may hold two slashes: in quotes they begin no comment.
_QUOTED_OR_COMMENT = re.compile(r'("[^"]*")|/\*.*?\*/|(?://|#)[^\n]*', re.DOTALL)
_KEY = re.compile(r'\bkey\s+"?(?P<name>[^\s"{;]+)"?\s*\{(?P<body>[^}]*)\}\s*;')
_STATEMENT = re.compile(r'\b(algorithm|secret)\s+"?([^\s";]+)"?\s*;')
_LONGEST = 64 * 1024
_REMEDY = "make one: tsig-keygen -a hmac-sha256 svcagent"


@dataclass(frozen=True)
class Key:
    """A TSIG key; ``source`` says where it came from, for messages."""

    name: str
    algorithm: str
    secret: bytes = field(repr=False)
    source: str
    is_readable_by_others: bool = False


def find_key(settings: DnsSettings) -> Key:
    """The key that the settings name; a file wins over a key written out.

    :raises BadDefinition: there is none, or it cannot be used. No message repeats a secret.
    """
    if settings.key_file is not None:
        return from_file(settings.key_file)
    if settings.key_secret is not None and settings.key_name is not None:
        source = settings.key_secret_source
        return _key(source, settings.key_name, settings.key_algorithm, settings.key_secret.get_secret_value())
    remedy = f"set dns.key_file in svcagent.toml, or SVCAGENT_DNS_KEY_FILE ({_REMEDY})"
    raise _bad("settings", "updates of DNS need a key, and none is set", remedy)


def from_file(file: Path) -> Key:
    """The only key of a key file. Raises `BadDefinition`."""
    try:
        raw, opened = read_trusted_alone(file, _LONGEST)
        content = raw.decode()
    except Untrusted as error:
        raise BadDefinition([untrusted(str(file), error)]) from error
    except NotAFile as error:
        raise _bad(str(file), f"the key file is {error}", _REMEDY) from error
    except OSError as error:
        raise _bad(str(file), f"the key file cannot be read: {error.strerror}", "let svcagent read it") from error
    except UnicodeDecodeError as error:
        raise _bad(str(file), "not a BIND key file: not text", _REMEDY) from error
    found = list(_KEY.finditer(_QUOTED_OR_COMMENT.sub(lambda one: one[1] or " ", content)))
    if len(found) != 1:
        what = "holds no key statement" if not found else f"holds {len(found)} keys"
        raise _bad(str(file), f"the key file {what}", f"leave one, or {_REMEDY}")
    stated = dict(_STATEMENT.findall(found[0]["body"]))
    if missing := {"algorithm", "secret"} - stated.keys():
        raise _bad(str(file), f"the key has no {' and no '.join(sorted(missing))}", _REMEDY)
    key = _key(str(file), found[0]["name"], stated["algorithm"], stated["secret"])
    return Key(key.name, key.algorithm, key.secret, key.source, bool(opened.st_mode & stat.S_IROTH))


def _key(source: str, name: str, algorithm: str, secret: str) -> Key:
    folded = algorithm.lower().rstrip(".")
    if folded not in ALGORITHMS:
        raise _bad(source, f"the key's algorithm {algorithm} is not one of {', '.join(ALGORITHMS)}", _REMEDY)
    try:
        decoded = base64.b64decode(secret, validate=True)
    except binascii.Error:
        decoded = b""
    if not decoded:
        raise _bad(source, "the key's secret is not base64", f"copy it whole, or {_REMEDY}")
    return Key(name.lower().rstrip("."), folded, decoded, source)


def _bad(file: str, problem: str, remedy: str) -> BadDefinition:
    return BadDefinition([Fault(file, "", problem, remedy)])
