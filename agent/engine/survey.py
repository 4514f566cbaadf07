"""What ``svcagent doctor`` alone asks the Engine: its properties, its containers' names, its allowed API sections.

A socket proxy refuses sections of the API with 403, 405 or another error. Sections that write are probed on a
container, an image and a network that do not exist: the Engine itself answers 404 or 400, and nothing is changed.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from agent.data import dataclass
from agent.engine.connection import EngineConnection
from agent.engine.failures import RefusedAnswer, is_of_engine
from agent.engine.lookup import inspect
from agent.engine.model import Inspect, moment
from agent.engine.sdk import Client
from agent.shapes import Shape

NOTHING = "svcagent-doctor-asks-for-nothing"

CONTAINERD = "io.containerd.snapshotter"
_INFO: Shape = {
    "ServerVersion": str,
    "DockerRootDir": str,
    "SystemTime?": str,
    "SecurityOptions?": [str],
    "DriverStatus?": [[str]],
}

# Method, path below the API's version, and purpose. Proxies name the sections after the first words of the paths.
# /distribution, the request for a digest, is not included, because the Engine would ask a registry.
_SECTIONS = (
    ("GET", "/containers/json", "list containers"),
    ("GET", "/images/json", "list images"),
    ("GET", "/info", "describe the Engine"),
    ("GET", "/events?since=0&until=1", "see whether an operator stopped a container"),
    ("POST", f"/containers/{NOTHING}/start", "start a container"),
    ("POST", f"/containers/{NOTHING}/stop", "stop a container"),
    ("POST", f"/containers/{NOTHING}/rename?name={NOTHING}-2", "rename a container"),
    ("POST", f"/containers/{NOTHING}/update", "set a restart policy"),
    ("POST", "/containers/create", "create a container"),
    ("POST", f"/images/{NOTHING}/tag?repo={NOTHING}", "tag an image"),
    ("POST", f"/networks/{NOTHING}/connect", "connect a container to a network"),
    ("DELETE", f"/containers/{NOTHING}", "remove a container"),
    ("DELETE", f"/images/{NOTHING}", "remove an image"),
)


@dataclass(frozen=True)
class EngineFacts:
    """An Engine. ``api`` and ``least_api``: the newest and the oldest API that it speaks."""

    version: str
    api: str
    least_api: str
    root_dir: str
    system_time: datetime | None
    is_rootless: bool
    has_containerd_store: bool
    container_names: frozenset[str]


@dataclass(frozen=True)
class RefusedSection:
    """A request, as ``POST /containers``, that something between svcagent and the Engine refuses; and its purpose."""

    section: str
    purpose: str


class EngineSurvey:
    """One connection to the Engine. Raises what `Engine` raises."""

    def __init__(self, host: str | None, environ: Mapping[str, str]) -> None:
        self._docker = EngineConnection(host, environ)

    def close(self) -> None:
        self._docker.close()

    @property
    def credentials_file(self) -> Path:
        return self._docker.credentials_file

    def facts(self) -> EngineFacts:
        with self._docker.query("report its version and settings") as queries:
            info, version = queries.info(_INFO), queries.offered()
            names = {name for entry in queries.all_containers() for name in entry.get("Names") or ()}
        return _facts(info, version, frozenset(name.removeprefix("/") for name in names))

    def container(self, name: str) -> Inspect | None:
        return inspect(self._docker, name)

    def refused_sections(self) -> tuple[RefusedSection, ...]:
        """Return the refused sections that svcagent needs. The requests name nothing that exists."""
        with self._docker.call("report which requests it allows") as client:
            return tuple(_refused(client))


def _facts(info: Inspect, version: Mapping[str, Any], names: frozenset[str]) -> EngineFacts:
    status = dict(pair for pair in info.get("DriverStatus") or () if len(pair) == 2)
    return EngineFacts(
        version=info["ServerVersion"],
        api=version["ApiVersion"],
        least_api=version.get("MinAPIVersion") or version["ApiVersion"],
        root_dir=info["DockerRootDir"],
        system_time=moment(info["SystemTime"]) if info.get("SystemTime") else None,
        is_rootless=any("rootless" in option for option in info.get("SecurityOptions") or ()),
        has_containerd_store=str(status.get("driver-type", "")).startswith(CONTAINERD),
        container_names=names,
    )


def _refused(client: Client) -> Iterator[RefusedSection]:
    for method, path, purpose in _SECTIONS:
        url = f"{client.base_url}/v{client.api_version}{path}"
        try:
            client.request(method, url, timeout=10, **_body(method, path)).close()
        except RefusedAnswer as error:
            if error.status == HTTPStatus.FORBIDDEN or not is_of_engine(error):
                yield RefusedSection(f"{method} /{path.partition('?')[0].split('/')[1]}", purpose)


def _body(method: str, path: str) -> Mapping[str, Any]:
    return {"json": {}} if method == "POST" and not path.endswith(("/start", "/stop")) else {}
