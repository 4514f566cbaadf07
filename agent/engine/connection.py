"""The connection to the Engine: address, credentials, API version. Every call goes through `EngineConnection`."""

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.definitions.image_name import HUB
from agent.engine.failures import translated
from agent.engine.queries import Queries, SocketTransport, socket_path
from agent.errors import DockerUnreachable

if TYPE_CHECKING:
    from agent.engine.sdk import Client

DEFAULT_HOST = "unix:///var/run/docker.sock"
OLDEST_API, NEWEST_API = "1.41", "1.51"
"""The APIs that svcagent speaks: of Engine 20.10 to 28.3. The shapes of answers change with the version."""


class EngineConnection:
    """One Docker Engine, connected to on first use."""

    def __init__(self, host: str | None, environ: Mapping[str, str]) -> None:
        self.address = host or environ.get("DOCKER_HOST") or DEFAULT_HOST
        self._environ = dict(environ)
        self._socket: SocketTransport | None = None
        self._client: Client | None = None

    @contextmanager
    def call(self, doing: str, *, is_write: bool = False) -> Iterator["Client"]:
        """Yield the SDK's client for one call; its failures are raised as `agent.errors`."""
        client = self._sdk()
        with translated(doing, self.address, is_write=is_write):
            yield client

    @contextmanager
    def query(self, doing: str) -> Iterator[Queries]:
        """Yield the requests that change nothing, for one of them; their failures are raised as `agent.errors`."""
        transport = self._socket or self._open() or self._sdk()
        with translated(doing, self.address):
            yield Queries(transport)

    def authorization(self, registry: str) -> str | None:
        """Return the header with a registry's credentials, read again so that a daemon sees a new `docker login`."""
        found = plain_authorization(self.credentials_file, registry) if self._socket is not None else None
        return self._sdk().authorization(self.credentials_file, registry) if found is None else found

    @property
    def credentials_file(self) -> Path:
        """Docker's own configuration, where `docker login` stores credentials."""
        home = self._environ.get("HOME")
        directory = self._environ.get("DOCKER_CONFIG") or (Path(home) if home else home_directory()) / ".docker"
        return Path(directory) / "config.json"

    def credentials_source(self) -> str:
        """Describe where credentials come from, and what is wrong there: the SDK treats a malformed file as empty."""
        path = self.credentials_file
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return f"no credentials: {path} does not exist"
        except (OSError, ValueError, RecursionError) as error:
            return f"{path} was ignored: {error}"
        return f"credentials are read from {path}"

    def close(self) -> None:
        for one in (self._socket, self._client):
            if one is not None:
                one.close()
        self._socket = self._client = None

    def _open(self) -> SocketTransport | None:
        """Connect to the unix socket; None if there is none, or if the SDK has to add headers to requests."""
        path = socket_path(self.address)
        if not path or needs_sdk(self.credentials_file):
            return None
        with translated("report its API versions", self.address):
            transport = SocketTransport(path)
            transport.version = spoken_api(Queries(transport).offered(), self.address)
        self._socket = transport
        return transport

    def _sdk(self) -> "Client":
        if self._client is None:
            from agent.engine import sdk

            with translated("report its API versions", self.address):
                with closing(sdk.connect(self.address, self._environ, OLDEST_API)) as transport:
                    version = spoken_api(Queries(transport).offered(), self.address)
                self._client = sdk.connect(self.address, self._environ, version)
        return self._client


def spoken_api(offered: Mapping[str, str], address: str) -> str:
    """Return the newest API that both the Engine and svcagent speak. Raise `DockerUnreachable` if there is none."""
    newest, oldest = offered["ApiVersion"], offered.get("MinAPIVersion") or OLDEST_API
    release = f"the Docker Engine at {address} (release {offered.get('Version') or 'unknown'})"
    if _numbers(newest) < _numbers(OLDEST_API):
        raise DockerUnreachable(
            f"{release} supports API {newest} at most, and svcagent needs {OLDEST_API}. Upgrade Docker to "
            "release 20.10 or later"
        )
    if _numbers(NEWEST_API) < _numbers(oldest):
        raise DockerUnreachable(
            f"{release} requires API {oldest} or later, and this svcagent supports {NEWEST_API} at most. "
            "Upgrade svcagent"
        )
    return min(NEWEST_API, newest, key=_numbers)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


ONLY_SDK = frozenset({"credsStore", "credHelpers", "HttpHeaders"})
"""Keys of the configuration that only the SDK supports: helper programs, and headers for the Engine."""


def home_directory() -> Path:
    """Return the same as the SDK: ``~`` itself without HOME and without an entry in the password database."""
    return Path(os.path.expanduser("~"))  # noqa: PTH111  # pathlib raises RuntimeError then


def needs_sdk(file: Path) -> bool:
    """True if requests to the Engine get headers from the configuration."""
    try:
        return "HttpHeaders" in json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def plain_authorization(file: Path, registry: str) -> str | None:
    """Return the header X-Registry-Auth as the SDK makes it; empty for none, None if only the SDK can decide."""
    if not os.path.exists(file):  # noqa: PTH110  # like the SDK: Path.exists() raises PermissionError
        others = (home_directory() / one for one in (".docker/config.json", ".dockercfg"))
        return None if any(map(os.path.exists, others)) else ""
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
