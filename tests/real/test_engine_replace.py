"""Replacing containers on a real engine: what is kept, what is refused, who is connected."""

from collections.abc import Sequence
from typing import Any

import pytest
from docker.types import EndpointConfig

from agent.errors import ChangedMeanwhile
from tests.real.engine_fixture import BUSYBOX, POLITE, SLEEP, DockerHost, differences, newer
from tests.support.kinds import raises_kind

API = "1.41"
NAMES = ("Aliases", "DNSNames")
"""What an endpoint calls a container's names; the second one since Engine 25."""


def test_the_new_container_runs_the_new_image_and_says_so(docker: DockerHost, image: str) -> None:
    old_id = docker.run("app", image)
    digest = newer(docker, image)

    done = docker.replace("app", image, digest, None)
    app = docker.engine.container("app")

    assert docker.executed("app", "cat", "/version") == "2"
    assert docker.engine.runs_digest(app, image, digest)
    assert docker.engine.digest_of(app, image) == digest
    assert (app.id, app.image_ref, app.is_running) == (done.new_id, image, True)
    assert docker.names() == {"app", "app.svcagent-old"}
    assert docker.engine.container("app.svcagent-old").id == done.old_id == old_id
    labels = docker.inspect("app")["Config"]["Labels"]
    assert labels == {"svcagent.replaces": old_id, "svcagent.digest": digest}


def test_a_container_with_many_settings_keeps_them_all(docker: DockerHost, image: str) -> None:
    docker.add_network("front", 0)
    docker.add_network("back", 64)
    (docker.directory / "bound").mkdir()
    docker.run("db", image, host_config={"network_mode": "front"})
    docker.run(
        "app",
        image,
        ["sleep", "3600"],
        entrypoint=[BUSYBOX],
        hostname="web-1",
        domainname="example.com",
        user="7:8",
        working_dir="/srv",
        environment={"A": "1", "B": "x=y"},
        labels={"team": "search"},
        ports=[8080, (53, "udp")],
        volumes=["/anonymous", "/named", "/bound"],
        stop_signal="SIGKILL",
        stop_timeout=7,
        mac_address="02:42:00:00:00:07",
        healthcheck={"test": ["CMD", BUSYBOX, "true"], "interval": 10**9},
        tty=True,
        stdin_open=True,
        networking_config={
            "EndpointsConfig": {
                "front": EndpointConfig(
                    API, aliases=["web"], links={"db": "database"}, ipv4_address=docker.address("9")
                )
            }
        },
        host_config={
            "network_mode": "front",
            "binds": ["data:/named:ro", f"{docker.directory}/bound:/bound:ro"],
            "mounts": [{"Type": "volume", "Target": "/also-anonymous"}, {"Type": "tmpfs", "Target": "/scratch"}],
            "tmpfs": {"/tmp": "size=1m"},
            "restart_policy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "cap_add": ["NET_ADMIN"],
            "cap_drop": ["MKNOD"],
            "dns": ["192.0.2.53"],
            "dns_search": ["example.com"],
            "dns_opt": ["ndots:2"],
            "extra_hosts": {"other": "192.0.2.1"},
            "group_add": ["9"],
            "ipc_mode": "shareable",
            "log_config": {"Type": "json-file", "Config": {"max-size": "1m"}},
            "mem_limit": 2**26,
            "mem_reservation": 2**25,
            "cpu_shares": 512,
            "nano_cpus": 5 * 10**8,
            "pids_limit": 100,
            "oom_score_adj": 100,
            "security_opt": ["no-new-privileges"],
            "shm_size": 2**20,
            "sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "ulimits": [{"Name": "nofile", "Soft": 1000, "Hard": 2000}],
            "devices": ["/dev/null:/dev/nothing:r"],
            "read_only": True,
            "init": False,
        },
    )
    docker.api.connect_container_to_network("app", "back", ipv4_address=docker.address("99"), aliases=["behind"])
    before = docker.inspect("app")
    volumes = {mount["Destination"]: mount.get("Name") for mount in before["Mounts"]}

    docker.replace("app", image, newer(docker, image), None)
    after = docker.inspect("app")

    changed = differences(before, after)
    networks = "/NetworkSettings/Networks"
    intended = {
        "/Config/Labels/svcagent.replaces": (None, before["Id"]),
        "/Config/Labels/svcagent.digest": (None, after["Config"]["Labels"]["svcagent.digest"]),
        # Anonymous volumes are named now, which is what keeps their content.
        "/HostConfig/Binds": (
            before["HostConfig"]["Binds"],
            [*before["HostConfig"]["Binds"], f"{volumes['/anonymous']}:/anonymous"],
        ),
        "/HostConfig/Mounts//also-anonymous/Source": (None, volumes["/also-anonymous"]),
        "/Mounts//anonymous/Mode": ("", "z"),
    }
    made_up = {f"{networks}/{name}/{key}" for name in ("front", "back") for key in ("EndpointID", *NAMES)}
    made_up |= {"/NetworkSettings/SandboxID", "/NetworkSettings/SandboxKey"}
    # Engine 28 does not derive it from the IP address any more. The one of the first network was requested.
    made_up.add(f"{networks}/back/MacAddress")
    assert {path: change for path, change in changed.items() if path not in made_up} == intended
    assert [names_in(before, name) for name in ("front", "back")] == [
        names_in(after, name) for name in ("front", "back")
    ]
    assert after["State"]["Running"]


def names_in(inspect: dict[str, Any], network: str) -> list[set[str]]:
    """A container's names in a network, without its short ID, which Docker adds."""
    endpoint = inspect["NetworkSettings"]["Networks"][network]
    return [{*(endpoint.get(key) or [])} - {inspect["Id"][:12]} for key in NAMES]


def test_what_the_old_image_set_follows_the_new_image(docker: DockerHost) -> None:
    image = docker.latest
    cmd = f'CMD ["{BUSYBOX}", "sleep", "3600"]'
    old = ["ENV A=old", "ENV GONE=1", "WORKDIR /old", "USER 1", "EXPOSE 1", "VOLUME /kept"]
    new = ["ENV A=new", "ENV CAME=1", "WORKDIR /new", "USER 2", "EXPOSE 2", "VOLUME /fresh"]
    docker.engine.pull(image, docker.push("1", cmd, *old, f"HEALTHCHECK CMD {BUSYBOX} true"), lambda _: None)
    docker.run("app", image, environment={"MINE": "1"})

    digest = newer(docker, image, 'ENTRYPOINT ["/bin/busybox"]', 'CMD ["sleep", "1800"]', *new)
    docker.replace("app", image, digest, 0)
    config = docker.inspect("app")["Config"]

    assert {entry for entry in config["Env"] if not entry.startswith("PATH=")} == {"A=new", "CAME=1", "MINE=1"}
    assert (config["WorkingDir"], config["User"]) == ("/new", "2")
    assert (config["Entrypoint"], config["Cmd"]) == ([BUSYBOX], ["sleep", "1800"])
    assert set(config["ExposedPorts"]) == {"2/tcp"}
    assert "Healthcheck" not in config
    assert {mount["Destination"] for mount in docker.inspect("app")["Mounts"]} == {"/kept", "/fresh"}


@pytest.mark.parametrize("how", ["volumes", "mounts"])
def test_an_anonymous_volume_survives_a_roll_back_and_a_second_reload(docker: DockerHost, image: str, how: str) -> None:
    mounts = {"mounts": [{"Type": "volume", "Target": "/data"}]} if how == "mounts" else {}
    docker.run("app", image, volumes=["/data"] if how == "volumes" else [], host_config=mounts)
    docker.executed("app", "sh", "-c", "echo precious > /data/file")
    digest = newer(docker, image)

    docker.replace("app", image, digest, 0)
    assert docker.executed("app", "cat", "/data/file") == "precious"
    docker.engine.roll_back("app")
    assert docker.executed("app", "cat", "/data/file") == "precious"
    for _ in range(2):
        docker.replace("app", image, digest, 0)
        docker.engine.remove_old("app")
    assert docker.executed("app", "cat", "/data/file") == "precious"
    assert len(docker.api.volumes()["Volumes"]) == 1


def test_a_volume_that_only_the_failed_image_declares_goes_with_its_container(docker: DockerHost, image: str) -> None:
    docker.run("app", image)
    docker.replace("app", image, newer(docker, image, f'CMD ["{BUSYBOX}"]', "VOLUME /fresh"), 0)

    docker.engine.roll_back("app")

    assert not docker.api.volumes()["Volumes"]


def test_under_host_networking_an_explicit_host_name_is_kept(docker: DockerHost, image: str) -> None:
    docker.run("plain", image)
    docker.run("named", image, hostname="web-1")
    digest = newer(docker, image)

    for name, expected in (("plain", docker.api.info()["Name"]), ("named", "web-1")):
        docker.replace(name, image, digest, 0)
        assert docker.inspect(name)["Config"]["Hostname"] == expected


def test_a_container_finds_its_peers_and_is_found_under_its_name_and_alias(docker: DockerHost, image: str) -> None:
    docker.add_network("front", 0)
    aliases = {"EndpointsConfig": {"front": EndpointConfig(API, aliases=["web"])}}
    docker.run("app", image, host_config={"network_mode": "front"}, networking_config=aliases)
    docker.run("peer", image, host_config={"network_mode": "front"})

    docker.replace("app", image, newer(docker, image), 0)

    address = docker.inspect("app")["NetworkSettings"]["Networks"]["front"]["IPAddress"]
    for name in ("app", "web"):
        assert address in docker.executed("peer", "nslookup", name, "127.0.0.11")


@pytest.mark.parametrize(
    ("command", "own", "given", "was_killed"),
    [(SLEEP, 1, None, True), (SLEEP, 60, 0.2, True), (POLITE, None, None, False)],
)
def test_a_stop_timeout_is_honoured_and_a_kill_is_reported(
    docker: DockerHost, image: str, command: Sequence[str], own: int | None, given: float | None, was_killed: bool
) -> None:
    """The given one comes before the container's own."""
    docker.run("app", image, command, **({} if own is None else {"stop_timeout": own}))

    done = docker.replace("app", image, newer(docker, image), given)

    assert done.was_killed is was_killed
    assert done.stop_seconds < 3
    assert done.stop_seconds >= (own if given is None and own else 0)


def test_a_container_removed_after_its_successor_was_created_is_a_conflict(docker: DockerHost, image: str) -> None:
    docker.run("app", image)
    digest = newer(docker, image)
    docker.engine.prepare("app", image, digest)
    docker.api.remove_container("app", force=True)

    with raises_kind(ChangedMeanwhile, "changed-meanwhile"):
        docker.engine.replace("app", digest, 0)


def test_a_tag_that_points_to_another_image_is_corrected(docker: DockerHost, image: str) -> None:
    docker.run("app", image)
    digest = newer(docker, image)
    docker.engine.pull(image, docker.push("3"), lambda _: None)

    docker.replace("app", image, digest, 0)

    assert docker.executed("app", "cat", "/version") == "2"
