"""Requests to the Engine that change nothing: one GET each, without the Docker SDK.

Importing the SDK takes longer than all requests of a reload with nothing to do. The SDK is used for everything that
changes or streams something, and for what this module lacks: an Engine behind TCP or SSH, credential helpers.
"""

from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Protocol, cast
from urllib.parse import quote

from agent.engine.answers import CONTAINER, IMAGE, LISTED_CONTAINERS, LISTED_IMAGES, OFFER, inspected, with_volume_names
from agent.engine.failures import NoAnswer, RefusedAnswer, is_of_engine, message_of
from agent.engine.model import Inspect
from agent.http import HttpAnswer, KeptConnection, was_dropped
from agent.shapes import Shape

CONNECT_SECONDS = 5.0
READ_SECONDS = 60
"""How long the Engine may take to answer."""


class EngineTransport(Protocol):
    """Sends the requests: a `SocketTransport`, or the SDK's client."""

    def get_json(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        """Return the JSON document that a GET of this path is answered with; raise `RefusedAnswer`."""


class Queries:
    """The requests, each answered in the shape that svcagent relies on."""

    def __init__(self, transport: EngineTransport) -> None:
        self._transport = transport

    def offered(self) -> Mapping[str, str]:
        """Return the Engine's release, and the versions of the API that it speaks."""
        return cast("Mapping[str, str]", self._get("/version", OFFER))

    def image(self, name: str) -> Inspect:
        return self._get(f"/images/{quote(name, safe='/:')}/json", IMAGE)

    def inspect(self, container: str) -> Inspect:
        """Return the Engine's description of a container, by name or ID."""
        return with_volume_names(self._get(f"/containers/{quote(container, safe='/:')}/json", CONTAINER))

    def find(self, container: str) -> Inspect | None:
        """Return the same; None if there is no such container."""
        try:
            return self.inspect(container)
        except RefusedAnswer as error:
            if error.status == HTTPStatus.NOT_FOUND and is_of_engine(error):
                return None
            raise

    def all_containers(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self._get("/containers/json?all=1", LISTED_CONTAINERS))

    def all_images(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self._get("/images/json", LISTED_IMAGES))

    def registry_digest(self, name: str, authorization: str | None) -> str:
        headers = {"X-Registry-Auth": authorization} if authorization else {}
        found = self._get(f"/distribution/{quote(name, safe='/:')}/json", {"Descriptor": {"digest": str}}, headers)
        return str(found["Descriptor"]["digest"])

    def platform(self) -> str:
        """Return the platform that the Engine runs on, as ``linux/amd64``."""
        found = self._get("/version", {"Os": str, "Arch": str})
        return f"{found['Os']}/{found['Arch']}"

    def info(self, shape: Shape) -> Inspect:
        return self._get("/info", shape)

    def host_name(self) -> str:
        return str(self.info({"Name": str})["Name"])

    def has_containerd_store(self) -> bool:
        """True if images are in containerd's store, False for the Engine's older one."""
        status = self.info({"DriverStatus?": [[str]]}).get("DriverStatus") or []
        return ["driver-type", "io.containerd.snapshotter.v1"] in status

    def _get(self, path: str, shape: Shape, headers: Mapping[str, str] | None = None) -> Inspect:
        return inspected(self._transport.get_json(path, headers), shape)


class SocketTransport:
    """One kept-alive connection to the Engine's unix socket."""

    def __init__(self, path: str) -> None:
        self._connection = KeptConnection("docker", None, CONNECT_SECONDS, socket_path=path)
        self.version = ""
        """The API version in the paths; the newest if empty."""

    def get_json(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        target = f"/v{self.version}{path}" if self.version else path
        answer = self._answer(target, headers or {})
        if answer.code >= 400:
            raise RefusedAnswer(answer.code, message_of(answer.body), answer.headers, "GET", target)
        return answer.json

    def close(self) -> None:
        self._connection.close()

    def _answer(self, target: str, headers: Mapping[str, str]) -> HttpAnswer:
        is_repeated = False
        while True:
            try:
                self._connection.open()
            except OSError as error:
                raise NoAnswer(str(error)) from error
            try:
                return self._connection.ask("GET", target, None, headers, READ_SECONDS)
            except (OSError, HTTPException) as error:
                if is_repeated or not was_dropped(error):
                    raise NoAnswer(str(error), timed_out=isinstance(error, TimeoutError)) from error
                is_repeated = True


def socket_path(address: str) -> str:
    """Return the path of the Engine's unix socket; empty for every other address."""
    return "/" + address.removeprefix("unix:").lstrip("/") if address.startswith(("unix://", "/")) else ""
