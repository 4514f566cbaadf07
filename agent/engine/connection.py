"""The SDK's client: where it connects, as whom, how long it waits. Every call goes through `Connection.call`."""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import docker
import requests
from docker.errors import TLSParameterError, create_api_error_from_http_exception
from docker.utils import decode_json_header, kwargs_from_env, version_lt

from agent.engine.answers import CHANGES, CONTAINER, DELETED, IMAGE, LISTED_CONTAINERS, LISTED_IMAGES, OFFER, inspected
from agent.engine.failures import translated
from agent.engine.model import Inspect, policy_document
from agent.errors import DockerUnreachable, SvcagentError
from agent.shapes import require

DEFAULT_HOST = "unix:///var/run/docker.sock"
OLDEST_API, NEWEST_API = "1.41", "1.51"
"""The APIs that svcagent speaks: of Engine 20.10 to 28.3. The shapes of answers change with the version."""

CONNECT_SECONDS = 5.0
READ_SECONDS = 60
"""How long the Engine may take for an answer."""


class Client(docker.APIClient):
    """The SDK's client with explicit timeouts, and without its leak of a socket for each refused connect."""

    def __init__(self, socket_path: str = "", **settings: Any) -> None:
        self._probed = socket_path
        self._silence: float = READ_SECONDS
        self._stream: requests.Response | None = None
        super().__init__(**settings)

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Every request of the SDK passes here; it asks for no timeout at all where it streams."""
        kwargs["timeout"] = (CONNECT_SECONDS, kwargs.get("timeout") or self._silence)
        if self._probed:
            _probe(self._probed)
        response = super().request(method, url, *args, **kwargs)
        self._stream = response if kwargs.get("stream") else None
        return response

    def limit_silence(self, seconds: float) -> None:
        """Limit the wait for more of the stream that is being read, and of streams that are asked for later."""
        self._silence = seconds
        connection = self._stream.raw.connection if self._stream is not None else None
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(seconds)

    def kills(self, container: str, since: datetime, until: datetime) -> int:
        """Count the signals that the Engine was asked to send the container between two moments of its clock."""
        # The SDK passes text on: fractions of seconds, for which it has no type.
        found = self.events(  # type: ignore[call-overload]
            since=f"{since.timestamp():.6f}",
            until=f"{until.timestamp():.6f}",
            filters={"container": container, "event": "kill"},
            decode=True,
        )
        return sum(1 for _event in found)

    def offered(self) -> Mapping[str, str]:
        """The Engine's release and the versions of the API that it speaks, asked without a version."""
        found = self.version(api_version=False)
        require(found, OFFER)
        return cast("Mapping[str, str]", found)

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

    def has_containerd_store(self) -> bool:
        """True if images are kept in containerd's store, false for the Engine's older one."""
        found = self.info()
        require(found, {"DriverStatus?": [[str]]})
        return ["driver-type", "io.containerd.snapshotter.v1"] in (found.get("DriverStatus") or [])

    def changed_paths(self, container: str) -> list[str]:
        """The paths that a container has in its own layer: what differs from its image, but for what it deleted."""
        found = self.diff(container) or []
        require(found, CHANGES)
        return [str(one["Path"]) for one in found if one["Kind"] != DELETED]

    def path_status(self, container: str, path: str) -> Mapping[str, Any]:
        """What is at a path inside a container: its ``size``, ``mtime``, and ``mode`` as Go writes it."""
        url = f"{self.base_url}/v{self.api_version}/containers/{container}/archive"
        answer = self.request("HEAD", url, params={"path": path})
        try:
            answer.raise_for_status()
        except requests.HTTPError as error:
            create_api_error_from_http_exception(error)
        found = decode_json_header(answer.headers["X-Docker-Container-Path-Stat"])
        require(found, {"size": int, "mode": int, "mtime": str})
        return cast("Mapping[str, Any]", found)

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

        def client(version: str) -> Client:
            return Client(path, version=version, timeout=READ_SECONDS, credstore_env=self._environ, **settings)

        with translated("say which API it speaks", self.address):
            with closing(client(OLDEST_API)) as asking:
                version = spoken_api(asking.offered(), self.address)
            return client(version)


def spoken_api(offered: Mapping[str, str], address: str) -> str:
    """The newest version of the API that both the Engine and svcagent speak.

    :raises DockerUnreachable: there is none; the message names the Engine's release.
    """
    newest, oldest = offered["ApiVersion"], offered.get("MinAPIVersion") or OLDEST_API
    release = f"the Docker Engine at {address} (release {offered.get('Version') or 'unknown'})"
    if version_lt(newest, OLDEST_API):
        raise DockerUnreachable(
            f"{release} speaks API {newest} at most; svcagent needs {OLDEST_API}: upgrade it to release 20.10 or later"
        )
    if version_lt(NEWEST_API, oldest):
        raise DockerUnreachable(
            f"{release} speaks API {oldest} at least; this svcagent speaks {NEWEST_API} at most: upgrade svcagent"
        )
    return str(NEWEST_API if version_lt(NEWEST_API, newest) else newest)


def _probe(path: str) -> None:
    """Connect once: `UnixHTTPConnection.connect` of SDK 7.2 leaves its socket open where that fails."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(path)
        except OSError as error:
            raise requests.ConnectionError(error) from error
