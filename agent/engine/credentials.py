"""Registry credentials from Docker's own configuration file. Everything else is left to the SDK."""

import base64
import json
from pathlib import Path

from agent.engine.reference import HUB

ONLY_SDK = frozenset({"credsStore", "credHelpers", "HttpHeaders"})
"""Keys of the configuration that only the SDK supports: helper programs, and headers for the Engine."""


def needs_sdk(file: Path) -> bool:
    """True if requests to the Engine get headers from the configuration."""
    try:
        return "HttpHeaders" in json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def plain_authorization(file: Path, registry: str) -> str | None:
    """Return the header X-Registry-Auth as the SDK makes it; empty for none, None if only the SDK can decide."""
    if not file.exists():
        others = (Path.home() / one for one in (".docker/config.json", ".dockercfg"))
        return None if any(one.exists() for one in others) else ""
    try:
        configuration = json.loads(file.read_text(encoding="utf-8"))
        auths = configuration["auths"]
        if configuration.keys() & ONLY_SDK:
            return None
        address = registry if registry in auths else next((one for one in auths if _host(one) == registry), None)
        if address is None:
            return ""
        entry = dict(auths[address])
        user, password = base64.b64decode(entry.pop("auth")).decode().split(":", 1)
        known = {"username": user, "password": password, "email": None, "serveraddress": address}
        return None if entry else base64.urlsafe_b64encode(json.dumps(known).encode()).decode()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _host(address: str) -> str:
    """Return the registry that an entry is for; some entries are URLs."""
    host = address.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return HUB if host == f"index.{HUB}" else host
