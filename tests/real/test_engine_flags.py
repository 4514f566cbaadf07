"""Every flag of ``docker run`` that a container can be started with here survives a replacement."""

import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from agent.engine.answers import with_volume_names
from tests.real.engine_fixture import BUSYBOX, POLITE, DockerHost, differences, newer

NETWORK = (
    *("--network", "front", "--network-alias", "web", "--network-alias", "www", "--link-local-ip", "169.254.1.9"),
    *("--hostname", "web-1", "--domainname", "example.com", "--dns", "192.0.2.53", "--dns-option", "ndots:2"),
    *("--dns-search", "example.com", "--add-host", "other:192.0.2.1", "--link", "db:database", "--expose", "99"),
    *("--expose", "53/udp", "--publish", "127.0.0.1:18080:80", "--publish", "127.0.0.1:18053:53/udp"),
    *("--sysctl", "net.core.somaxconn=100", "--restart", "on-failure:2"),
)
RESOURCES = (
    *("--network", "host", "--memory", "64m", "--memory-reservation", "32m", "--memory-swap", "128m"),
    *("--memory-swappiness", "10", "--oom-kill-disable", "--oom-score-adj", "5", "--pids-limit", "50"),
    *("--cpuset-cpus", "0", "--cpuset-mems", "0", "--cpu-shares", "100", "--cpu-period", "100000"),
    *("--cpu-quota", "50000", "--ulimit", "nofile=100:200", "--ulimit", "core=0:0", "--shm-size", "2m"),
    *("--blkio-weight", "300", "--device", "/dev/null:/dev/nothing:r", "--device-cgroup-rule", "c 1:3 mr"),
)
NAMESPACES = (
    *("--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host", "--userns", "host"),
    *("--cgroupns", "host", "--init", "--runtime", "runc", "--isolation", "default"),
)
SECURITY = (
    *("--network", "none", "--cap-add", "NET_ADMIN", "--cap-drop", "MKNOD", "--read-only", "--user", "7:8"),
    *("--group-add", "9", "--group-add", "10", "--security-opt", "no-new-privileges"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--security-opt", "label=disable", "--security-opt", "systempaths=unconfined"),
)
STORAGE = (
    *(
        "--network",
        "none",
        "--volume",
        "named:/named:nocopy",
        "--volume",
        "{dir}:/bound:ro",
        "--volume-driver",
        "local",
    ),
    *("--volumes-from", "db:ro", "--tmpfs", "/scratch:size=1m,mode=700"),
    *("--mount", "type=bind,src={dir},dst=/mounted,readonly,bind-propagation=rprivate"),
    *("--mount", "type=volume,src=other,dst=/other,volume-nocopy"),
    *("--mount", "type=tmpfs,dst=/more,tmpfs-size=1048576,tmpfs-mode=700"),
)
PROCESS = (
    *("--network", "none", "--tty", "--interactive", "--env", "A=1", "--env", "B=", "--label", "team=search"),
    *("--workdir", "/srv", "--stop-signal", "SIGKILL", "--stop-timeout", "3", "--restart", "unless-stopped"),
    *("--log-driver", "json-file", "--log-opt", "max-size=1m", "--log-opt", "max-file=2", "--entrypoint", ""),
    *("--health-cmd", f"{BUSYBOX} true", "--health-interval", "7s", "--health-timeout", "2s"),
    *("--health-retries", "5", "--health-start-period", "3s"),
)
SILENT = ("--network", "none", "--no-healthcheck", "--log-driver", "none", "--pid", "container:db", "--ipc", "private")

GROUPS = {
    "network": NETWORK,
    "resources": RESOURCES,
    "namespaces": NAMESPACES,
    "security": SECURITY,
    "storage": STORAGE,
    "process": PROCESS,
    "silent": SILENT,
}


def docker_run(docker: DockerHost, *arguments: str) -> None:
    command = ["docker", "--host", docker.server.url, "run", "--detach", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=docker.environment, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("flags", GROUPS.values(), ids=GROUPS.keys())
def test_flags_of_docker_run_survive_a_replacement(docker: DockerHost, image: str, flags: Sequence[str]) -> None:
    """Inspect before and after differ in nothing but what svcagent says of itself and what Docker makes up."""
    docker.add_network("front", 0)
    docker.run("db", image, volumes=["/shared"], host_config={"network_mode": "front"})
    bound = docker.directory / "bound"
    bound.mkdir(exist_ok=True)
    docker_run(docker, "--name", "app", *(flag.format(dir=bound) for flag in flags), image, *POLITE)
    before = docker.inspect("app")

    docker.replace("app", image, newer(docker, image), 0)
    after = docker.inspect("app")

    assert differences(comparable(before), comparable(after)) == {}
    assert after["State"]["Running"]


def comparable(inspect: dict[str, Any]) -> dict[str, Any]:
    """Return the answer without svcagent's labels, and with one word for what Docker generates for each container."""
    inspect = dict(with_volume_names(inspect))
    short_id = inspect["Id"][:12]
    config, networks = inspect["Config"], inspect["NetworkSettings"]["Networks"]
    labels = {key: value for key, value in config["Labels"].items() if not key.startswith("svcagent.")}
    hostname = "made up" if config["Hostname"] == short_id else config["Hostname"]
    endpoints = {
        name: endpoint
        | {"EndpointID": "made up"}
        # Docker Engine 28 makes up another one for each container; earlier ones derive it from the IP address.
        | {"MacAddress": endpoint["MacAddress"] if endpoint["MacAddress"] == config.get("MacAddress") else "made up"}
        # DNSNames since Engine 25.
        | {key: [one for one in endpoint.get(key) or [] if one != short_id] for key in ("Aliases", "DNSNames")}
        for name, endpoint in networks.items()
    }
    network_settings = inspect["NetworkSettings"] | {"Networks": endpoints, "SandboxID": "", "SandboxKey": ""}
    return inspect | {"Config": config | {"Labels": labels, "Hostname": hostname}, "NetworkSettings": network_settings}
