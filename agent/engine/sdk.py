"""The Docker SDK's client: for everything that changes or streams something, and for Engines not on a unix socket.

Imported on first use: with requests, which it uses, it takes longer to import than all the rest of svcagent.
"""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import docker
import requests
from docker.auth import get_config_header
from docker.errors import TLSParameterError
from docker.utils import decode_json_header, kwargs_from_env

from agent.engine.answers import CHANGES, DELETED, SIGNALLED
from agent.engine.failures import RefusedAnswer, message_of
from agent.engine.model import policy_document
from agent.engine.queries import CONNECT_SECONDS, READ_SECONDS, socket_path
from agent.errors import SvcagentError
from agent.shapes import require

S = TypeVar("S")


class Client(docker.APIClient):
    """The SDK's client with explicit timeouts, and without its leak of a socket for each refused connection."""

    def __init__(self, socket_path: str = "", **settings: Any) -> None:
        self._probed = socket_path
        self._silence: float = READ_SECONDS
        self._stream: requests.Response | None = None
        super().__init__(**settings)

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request of the SDK. The SDK itself sets no timeout for streams."""
        kwargs["timeout"] = (CONNECT_SECONDS, kwargs.get("timeout") or self._silence)
        if self._probed:
            _probe(self._probed)
        response = super().request(method, url, *args, **kwargs)
        if response.status_code >= 400:
            with response:
                raise RefusedAnswer(
                    response.status_code,
                    message_of(response.text),
                    response.headers,
                    str(response.request.method),
                    str(response.request.path_url),
                )
        self._stream = response if kwargs.get("stream") else None
        return response

    def get_json(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        """As in `EngineTransport`. ``/version`` is requested without a version in the path."""
        version = "" if path == "/version" else f"/v{self.api_version}"
        return json.loads(self.request("GET", f"{self.base_url}{version}{path}", headers=headers).content)

    @contextmanager
    def reading(self, stream: S) -> Iterator[S]:
        """Yield the stream that was just requested, and end the connection, so that the Engine ends its work for it.

        Closing the SDK's generator would leave the connection open.
        """
        response = self._stream
        try:
            yield stream
        finally:
            if response is not None:
                response.close()

    def limit_silence(self, seconds: float) -> None:
        """Limit the seconds without data in the stream that is being read, and in later ones."""
        self._silence = seconds
        connection = self._stream.raw.connection if self._stream is not None else None
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(seconds)

    def signals(self, container: str, since: datetime, until: datetime) -> list[str]:
        """Return the signals that the Engine was asked to send to the container between two times of its clock."""
        # The SDK passes text on: it has no type for fractions of seconds.
        found = self.events(  # type: ignore[call-overload]
            since=f"{since.timestamp():.6f}",
            until=f"{until.timestamp():.6f}",
            filters={"container": container, "event": "kill"},
            decode=True,
        )
        events = list(found)
        require(events, [SIGNALLED])
        return [event["Actor"]["Attributes"]["signal"] for event in events]

    def create(self, name: str, body: Mapping[str, Any], platform: str = "") -> str:
        """Create a container and return its ID. ``platform``: the image's, if it is not the Engine's own."""
        found = self.create_container_from_config(body, name, platform or None)  # type: ignore[no-untyped-call]
        require(found, {"Id": str})
        return str(found["Id"])

    def changed_paths(self, container: str) -> list[str]:
        """Return the paths in a container's own layer that differ from its image, except deleted ones."""
        found = self.diff(container) or []
        require(found, CHANGES)
        return [str(one["Path"]) for one in found if one["Kind"] != DELETED]

    def path_status(self, container: str, path: str) -> Mapping[str, Any]:
        """Return a path's ``size``, ``mtime``, and ``mode`` as Go writes it, inside a container."""
        url = f"{self.base_url}/v{self.api_version}/containers/{container}/archive"
        answer = self.request("HEAD", url, params={"path": path})
        found = decode_json_header(answer.headers["X-Docker-Container-Path-Stat"])
        require(found, {"size": int, "mode": int, "mtime": str})
        return cast("Mapping[str, Any]", found)

    def set_restart_policy(self, container: str, policy: str) -> None:
        self.update_container(container, restart_policy=policy_document(policy))  # type: ignore[arg-type]

    def authorization(self, file: Path, registry: str) -> str | None:
        """Return the header X-Registry-Auth for a registry, from Docker's configuration and its credential helpers."""
        self.reload_config(str(file))
        header: bytes | None = get_config_header(self, registry)
        return header.decode() if header else None


def connect(address: str, environ: Mapping[str, str], version: str) -> Client:
    """Return a client for this version of the API. ``environ`` has Docker's TLS settings."""
    try:
        # With an empty mapping, the SDK would use os.environ.
        settings = kwargs_from_env(environment={**environ, "DOCKER_HOST": address})
    except TLSParameterError as error:
        message = f"Docker's TLS settings are invalid: {error}. Check DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
        raise SvcagentError(message, kind="docker-settings-invalid") from error
    path = socket_path(address)
    if path:
        settings.pop("tls", None)  # like the docker command: TLS is for TCP
        settings["base_url"] = f"unix://{path}"
    return Client(path, version=version, timeout=READ_SECONDS, credstore_env=dict(environ), **settings)


def _probe(path: str) -> None:
    """Connect once: `UnixHTTPConnection.connect` of SDK 7.2 leaves its socket open if that fails."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(path)
        except OSError as error:
            raise requests.ConnectionError(error) from error
