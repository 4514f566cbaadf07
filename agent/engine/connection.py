"""The SDK's client: where it connects, as whom, how long it waits. Every call goes through `Connection.call`."""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import docker
import requests
from docker.errors import TLSParameterError
from docker.utils import kwargs_from_env, version_lt

from agent.engine.answers import CONTAINER, IMAGE, LISTED_CONTAINERS, LISTED_IMAGES, inspected
from agent.engine.failures import translated
from agent.engine.model import Inspect, policy_document
from agent.errors import DockerUnreachable, SvcagentError
from agent.shapes import require

DEFAULT_HOST = "unix:///var/run/docker.sock"
MINIMUM_API = "1.41"

CONNECT_SECONDS = 5.0
READ_SECONDS = 60
"""How long the Engine may take for an answer."""
STREAM_READ_SECONDS = 600.0
"""How long a pull may stand still: a large layer on a slow disk is extracted for minutes without a word."""


class Client(docker.APIClient):
    """The SDK's client with explicit timeouts, and without its leak of a socket for each refused connect."""

    def __init__(self, socket_path: str = "", **settings: Any) -> None:
        self._probed = socket_path
        super().__init__(**settings)

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Every request of the SDK passes here; it asks for no timeout at all where it streams."""
        kwargs["timeout"] = (CONNECT_SECONDS, kwargs.get("timeout") or STREAM_READ_SECONDS)
        if self._probed:
            _probe(self._probed)
        return super().request(method, url, *args, **kwargs)

    # types-docker leaves three of the calls below untyped, and knows only two restart policies.

    def image(self, name: str) -> Inspect:
        """The Engine's description of an image."""
        return inspected(self.inspect_image(name), IMAGE)  # type: ignore[no-untyped-call]

    def inspect(self, container: str) -> Inspect:
        """The Engine's description of a container, by name or ID."""
        return inspected(self.inspect_container(container), CONTAINER)

    def all_containers(self) -> list[dict[str, Any]]:
        """Every container, running or not, as the list shows it."""
        found = self.containers(all=True)
        require(found, LISTED_CONTAINERS)
        return cast("list[dict[str, Any]]", found)

    def all_images(self) -> list[dict[str, Any]]:
        """Every image, as the list shows it."""
        found = self.images()
        require(found, LISTED_IMAGES)
        return cast("list[dict[str, Any]]", found)

    def registry_digest(self, name: str) -> str:
        """The digest that the registry has under that name."""
        found = self.inspect_distribution(name)  # type: ignore[no-untyped-call]
        require(found, {"Descriptor": {"digest": str}})
        return str(found["Descriptor"]["digest"])

    def create(self, name: str, body: Mapping[str, Any], platform: str = "") -> str:
        """Create a container; returns its ID. ``platform``: of the image, where it is not the Engine's own."""
        found = self.create_container_from_config(body, name, platform or None)  # type: ignore[no-untyped-call]
        require(found, {"Id": str})
        return str(found["Id"])

    def platform(self) -> str:
        """What the Engine runs on, as ``linux/amd64``."""
        found = self.version()
        require(found, {"Os": str, "Arch": str})
        return f"{found['Os']}/{found['Arch']}"

    def host_name(self) -> str:
        """The host name of the machine that the Engine runs on."""
        found = self.info()
        require(found, {"Name": str})
        return str(found["Name"])

    def set_restart_policy(self, container: str, policy: str) -> None:
        """As ``docker update --restart``."""
        self.update_container(container, restart_policy=policy_document(policy))  # type: ignore[arg-type]


class Connection:
    """One Docker Engine, connected to when it is first needed."""

    def __init__(self, host: str | None, environ: Mapping[str, str]) -> None:
        self.address = host or environ.get("DOCKER_HOST") or DEFAULT_HOST
        self._environ = dict(environ)
        self._client: Client | None = None

    @contextmanager
    def call(self, doing: str, *, is_write: bool = False) -> Iterator[Client]:
        """The client, for one call; what goes wrong comes out as `agent.errors`."""
        client = self._client
        if client is None:
            with translated("connect", self.address):
                client = self._client = self._connect()
        with translated(doing, self.address, is_write=is_write):
            yield client

    @property
    def credentials_file(self) -> Path:
        """Docker's own configuration, where `docker login` puts credentials."""
        home = self._environ.get("HOME")
        directory = self._environ.get("DOCKER_CONFIG") or (Path(home) if home else Path.home()) / ".docker"
        return Path(directory) / "config.json"

    def credentials_source(self) -> str:
        """Where credentials come from, and what is wrong there: the SDK takes a malformed file for an empty one."""
        path = self.credentials_file
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return f"there are no credentials: {path} does not exist"
        except (OSError, ValueError, RecursionError) as error:
            return f"{path} was ignored: {error}"
        return f"credentials are read from {path}"

    def refresh_credentials(self, client: Client) -> None:
        """Read the registries' credentials again: a daemon must see a `docker login` of today."""
        client.reload_config(str(self.credentials_file))

    def close(self) -> None:
        """Give the sockets back."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connect(self) -> Client:
        is_unix = self.address.startswith(("unix://", "/"))
        try:
            # An empty mapping would send the SDK to os.environ.
            settings = kwargs_from_env(environment={**self._environ, "DOCKER_HOST": self.address})
        except TLSParameterError as error:
            message = f"Docker's TLS settings cannot be used: {error}; see DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
            raise SvcagentError(message) from error
        path = "/" + self.address.removeprefix("unix:").lstrip("/") if is_unix else ""
        if is_unix:
            settings.pop("tls", None)  # as the docker command: TLS is for TCP
            settings["base_url"] = f"unix://{path}"
        with translated("say which API it speaks", self.address):
            client = Client(path, version="auto", timeout=READ_SECONDS, credstore_env=self._environ, **settings)
        try:
            is_old = version_lt(client.api_version, MINIMUM_API)
        except BaseException:
            client.close()
            raise
        if is_old:
            client.close()
            raise DockerUnreachable(
                f"Docker at {self.address} speaks API {client.api_version}; "
                f"svcagent needs {MINIMUM_API} (Engine 20.10) or newer"
            )
        return client


def _probe(path: str) -> None:
    """Connect once: `UnixHTTPConnection.connect` of SDK 7.2 leaves its socket open where that fails."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(path)
        except OSError as error:
            raise requests.ConnectionError(error) from error
