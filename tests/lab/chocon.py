"""The second service of a lab: proxies named chocon, one on each host, that clients reach through a name of DNS.

Their image holds `proxy` alone; Python is the host's own, bound read-only into the container.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from tests.lab import image, proxy
from tests.lab.ground import LabError, wait_until
from tests.lab.host import Host
from tests.lab.lab import QUICK_SETTLE, Lab

NAME = "chocon"
TAG = "production"
PORT = 80
LOCK = "chocon_reload"
RECORD = f"*{proxy.SUFFIX}."
CLIENTS_NAME = f"example.jp{proxy.SUFFIX}"
"""A name below the record, as a client writes it."""
CLIENTS_PATH = "/v1/foo"

PYTHON = str(Path(shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable).resolve())
# Where an interpreter of the system has itself, its library, and the shared ones.
SYSTEM = ("/usr", "/lib", "/lib64")

DOCKERFILE = """\
FROM scratch
COPY proxy.py /proxy.py
ENV VERSION={version}
ENTRYPOINT ["{python}", "-I", "-S", "/proxy.py"]
"""


class Chocon:
    """The proxies of a lab; versions as with `Lab.push`."""

    def __init__(self, lab: Lab, *, interval: str = "10s", settle: Mapping[str, str] = QUICK_SETTLE) -> None:
        """``interval``: of the check of every proxy. ``settle``: that key of every definition."""
        self._lab = lab
        self._settle = dict(settle)
        self._interval = interval
        self._repository = f"{lab.repository.rpartition('/')[0]}/{NAME}"

    def start(self, load_seconds: float = 0.2) -> None:
        """Version 1 runs on every host, registered by svcagent and passing."""
        self.push("1")
        for host in self._lab.hosts:
            self.run(host, load_seconds)
            self.write_definition(host)
        self.everywhere("register")
        self.wait_passing()

    def everywhere(self, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """svcagent on all hosts at once, which must succeed; what it prints, by host."""
        running = {host.name: self._lab.svcagent(host, *arguments, env=dict(env or {})) for host in self._lab.hosts}
        printed = {}
        for name, process in running.items():
            printed[name], errors = process.communicate(timeout=60)
            if process.returncode:
                raise LabError(f"svcagent {' '.join(arguments)} on {name}: {errors}")
        return printed

    def push(self, version: str) -> str:
        """Build one version and push it; its digest in the registry."""
        reference = f"{self._repository}:latest"
        files = {
            "Dockerfile": DOCKERFILE.format(version=version, python=PYTHON).encode(),
            "proxy.py": Path(proxy.__file__).read_bytes(),
        }
        image.make(self._lab.builder.api, reference, files)
        return image.push(self._lab.builder.api, reference)

    def run(self, host: Host, load_seconds: float) -> None:
        """Pull the latest image on a host and start its proxy there; it listens after ``load_seconds``."""
        api, reference = host.engine.api, f"{self._repository}:latest"
        image.pull(api, reference)
        container = api.create_container(
            reference,
            name=NAME,
            environment={"ADDR": host.address, "ON_HOST": host.name, "LOAD_SECONDS": f"{load_seconds:g}"},
            host_config=api.create_host_config(
                network_mode="host",
                restart_policy={"Name": "unless-stopped"},
                binds=[f"{place}:{place}:ro" for place in SYSTEM if Path(place).exists()],
            ),
        )
        api.start(container)

    def definition(self, host: Host, *, cname: Sequence[dict[str, Any]] | None = None) -> dict[str, Any]:
        """The host's definition. ``cname``: its records, by default the one that clients use."""
        url = f"http://{host.address}:{PORT}{proxy.STATS}"
        return {
            "service": {
                "name": NAME,
                "tags": [TAG],
                "address": host.address,
                "port": PORT,
                "checks": [{"http": url, "interval": self._interval, "timeout": "5s"}],
            },
            "reload": {"image": f"{self._repository}:latest", "container": NAME, "lock": LOCK, "settle": self._settle},
            "cname": [{"name": RECORD, "tag": TAG}] if cname is None else list(cname),
        }

    def write_definition(self, host: Host, *, cname: Sequence[dict[str, Any]] | None = None) -> Path:
        """Put the host's definition into its ``services.d``; the file."""
        file = host.services_dir / f"{NAME}.json"
        file.write_text(json.dumps(self.definition(host, cname=cname), indent=2))
        return file

    def passing(self) -> tuple[str, ...]:
        """The hosts whose proxy is passing in the catalog."""
        return self._lab.consul().passing(NAME)

    def wait_passing(self, hosts: Sequence[Host] | None = None, seconds: float = 30) -> None:
        """Wait until exactly these hosts' proxies (default: all) are passing in the catalog."""
        wanted = tuple(sorted(host.name for host in (self._lab.hosts if hosts is None else hosts)))
        wait_until(lambda: self.passing() == wanted, seconds, f"exactly {wanted} are passing")

    def versions(self) -> dict[str, str | None]:
        """The version of each host's proxy; nothing where none answers."""
        return {host.name: _version_at(host.address) for host in self._lab.hosts}


def _version_at(address: str) -> str | None:
    try:
        with requests.Session() as session:
            session.trust_env = False
            response = session.get(f"http://{address}:{PORT}{proxy.STATS}", timeout=2)
            return str(response.json()["version"]) if response.ok else None
    except requests.RequestException:
        return None
