"""The real servers of a lab, how each is started, and when it answers: Consul, the registry, the Docker Engine."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import docker
import requests

from tests.lab.ground import HIDDEN_FROM_ENGINES, wait_until
from tests.lab.server import Server, child_of, spawn

BUSYBOX = Path("/bin/busybox")
DATACENTER = "dc1"

# The namespaces' first process adopts and reaps orphans; with it die all others. A shell does both.
INIT = """
for directory in {hidden}; do [ ! -d $directory ] || mount -t tmpfs tmpfs $directory; done
: > {up}
while :; do {busybox} sleep 3600; done
"""


def consul_server(
    directory: Path, address: str, environment: Mapping[str, str], more: Mapping[str, Any] | None = None
) -> Server:
    """The only Consul server of a lab. ``more`` of its configuration may replace what stands here."""
    config = _consul_config("server", directory, address) | {"server": True, "bootstrap_expect": 1} | dict(more or {})

    def is_ready() -> bool:
        return bool(_answer(f"http://{address}:8500/v1/status/leader"))

    return _consul("consul server", directory, config, environment, is_ready)


def consul_agent(node: str, directory: Path, address: str, join: str, environment: Mapping[str, str]) -> Server:
    """A host's Consul agent: ready when the catalog, asked through it, says that its node is alive."""
    config = _consul_config(node, directory, address) | {"retry_join": [join], "retry_interval": "200ms"}

    def is_ready() -> bool:
        checks = _answer(f"http://{address}:8500/v1/health/node/{node}") or []
        return any(check["CheckID"] == "serfHealth" and check["Status"] == "passing" for check in checks)

    return _consul(f"consul agent of {node}", directory, config, environment, is_ready)


def registry(directory: Path, address: str, environment: Mapping[str, str]) -> Server:
    config = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"{address}:5000"},
    }
    # JSON is YAML.
    file = _written(directory / "registry.yml", config)
    return Server(
        "registry",
        ["docker-registry", "serve", str(file)],
        directory / "registry.log",
        environment,
        lambda: _answer(f"http://{address}:5000/v2/") is not None,
    )


class Engine(Server):
    """A Docker Engine with process and mount namespaces of its own.

    Killing the engine leaves its containers running, as on a real host; started again, it ends them, and takes those
    with the policy ``unless-stopped`` for stopped by hand, so they stay down (Docker 20.10). `power_off` ends the
    namespaces and with them everything: engine, containers, mounts. After that, containers come back.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        cgroup: str,
        environment: Mapping[str, str],
        *,
        has_proxy: bool = False,
        has_bridge: bool = False,
    ) -> None:
        """``cgroup``: the control group above those of its containers, counted from the root of each hierarchy.

        ``has_proxy``: published ports are forwarded by docker-proxy, as they are on a host by default.
        ``has_bridge``: it has the default network, and for that a network namespace in which it reaches no registry.
        The variable SVCAGENT_TEST_STORE chooses the image store of Engines that have two: ``containerd``, else the
        older one.
        """
        self.directory = directory
        self.socket = directory / "docker.sock"
        self._api: docker.APIClient | None = None
        self._box: subprocess.Popen[Any] | None = None
        features = {"containerd-snapshotter": os.environ.get("SVCAGENT_TEST_STORE") == "containerd"}
        argv = (
            *(("unshare", "--net") if has_bridge else ()),
            *("dockerd", "--config-file", str(_written(directory / "daemon.json", {"features": features}))),
            *("--host", f"unix://{self.socket}", "--pidfile", str(directory / "pid")),
            *("--data-root", str(directory / "data"), "--exec-root", str(directory / "exec")),
            *(("--bip", "198.18.0.1/24") if has_bridge else ("--bridge=none",)),
            *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
            # Without the slash it would be below the caller's own group, where nobody would look for it.
            *(f"--userland-proxy={str(has_proxy).lower()}", "--cgroup-parent", f"/{cgroup.strip('/')}"),
            # systemd's driver, the default on cgroup version 2, takes only slices as parents.
            *("--exec-opt", "native.cgroupdriver=cgroupfs"),
        )
        super().__init__(name, argv, directory / "dockerd.log", environment, self._is_answering)

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def api(self) -> docker.APIClient:
        """A client of this engine, closed with the lab."""
        if self._api is None:
            self._api = docker.APIClient(base_url=self.url, version="auto", timeout=60)
        return self._api

    @property
    def pid(self) -> int:
        wrapper = self._running().pid
        wait_until(lambda: child_of(wrapper) is not None, 5, f"{self.name} has been forked")
        return child_of(wrapper) or wrapper

    def start(self) -> None:
        """Start dockerd in its namespaces, made first if there are none."""
        if self._box is None:
            self._box = self._make_box()
        first = child_of(self._box.pid)
        # RemainingInstances by a killed dockerd, it may name a process that is another one's now.
        (self.directory / "pid").unlink(missing_ok=True)
        argv, self._argv = self._argv, ("nsenter", "--target", str(first), "--mount", "--pid", *self._argv)
        try:
            super().start()
        finally:
            self._argv = argv

    def thaw(self) -> None:
        """Let dockerd go on, and nsenter, which stops itself when its child is stopped."""
        super().thaw()
        self._running().send_signal(signal.SIGCONT)

    def power_off(self) -> None:
        """End the engine and all its containers at one stroke, as when the host loses power; `start` brings it back."""
        box, self._box = self._box, None
        first = child_of(box.pid) if box is not None else None
        if first is not None:
            os.kill(first, signal.SIGKILL)
        # nsenter has to reap dockerd before the namespace ends: were nsenter killed, dockerd would be left to the
        # machine's own init, which in a container may never do it.
        if self.is_running:
            self._reap(10)
        if box is not None:
            box.wait(10)
        # A real host keeps these in memory: stale ones would name processes that are others' now.
        shutil.rmtree(self.directory / "exec", ignore_errors=True)
        (self.directory / "up").unlink(missing_ok=True)

    def discard(self) -> None:
        """End it and its containers, whatever state they are in."""
        if self._api is not None:
            self._api.close()
        self.power_off()

    def _make_box(self) -> "subprocess.Popen[Any]":
        up = self.directory / "up"
        script = INIT.format(hidden=" ".join(HIDDEN_FROM_ENGINES), up=up, busybox=BUSYBOX)
        with (self.directory / "box.log").open("ab") as log:
            box = spawn(
                [
                    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("--propagation", "private", str(BUSYBOX), "sh", "-c", script),
                ],
                self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(up.exists, 10, f"the namespaces of {self.name} are up; see {log.name}", every=0.005)
        return box

    def _is_answering(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(2)
                connection.connect(str(self.socket))
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in connection.recv(100)
        except OSError:
            return False


def _consul_config(node: str, directory: Path, address: str) -> dict[str, Any]:
    return {
        "node_name": node,
        "datacenter": DATACENTER,
        "data_dir": str(directory / "consul"),
        "bind_addr": address,
        "client_addr": address,
        "ports": {"serf_wan": -1, "grpc": -1},
        "performance": {"raft_multiplier": 1},
        "connect": {"enabled": False},
        "disable_update_check": True,
        "disable_remote_exec": True,
        "log_level": "INFO",
    }


def _consul(
    name: str, directory: Path, config: Mapping[str, Any], environment: Mapping[str, str], is_ready: Callable[[], bool]
) -> Server:
    file = _written(directory / "consul.json", config)
    argv = ["consul", "agent", "-config-file", str(file)]
    return Server(name, argv, directory / "consul.log", environment, is_ready)


def _written(file: Path, content: Mapping[str, Any]) -> Path:
    file.write_text(json.dumps(content, indent=2))
    return file


def _answer(url: str) -> Any:
    """The JSON that a server answers with; nothing while it does not."""
    try:
        with requests.Session() as session:
            # A proxy of the user's environment has no business between a lab and its servers.
            session.trust_env = False
            response = session.get(url, timeout=2)
            return response.json() if response.ok else None
    except requests.RequestException:
        return None
