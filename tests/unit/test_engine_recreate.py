"""The create request for a container's successor, as tables."""

from typing import Any

import pytest

from agent.engine import recreate

ID = "0123456789ab" + "0" * 52


def old(
    config: dict[str, Any] | None = None,
    host: dict[str, Any] | None = None,
    networks: dict[str, Any] | None = None,
    mounts: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    return {
        "Id": ID,
        "Image": "sha256:" + "a" * 64,
        "Config": {"Image": "app:latest", "Hostname": ID[:12], "Cmd": ["serve"], **(config or {})},
        "HostConfig": {"NetworkMode": "default", **(host or {})},
        "NetworkSettings": {"Networks": {"bridge": {}} if networks is None else networks},
        "Mounts": mounts or [],
    }


def made(container: dict[str, Any], defaults: dict[str, Any] | None = None, engine_host: str = "") -> dict[str, Any]:
    return recreate.payload(container, {"Config": defaults or {}}, "app:latest", {}, engine_host)


@pytest.mark.parametrize(
    ("key", "container", "image", "expected"),
    [
        ("Env", ["A=1", "B=2"], ["A=1"], ["B=2"]),
        ("Env", ["A=2"], ["A=1"], ["A=2"]),
        ("Env", None, None, []),
        ("Labels", {"a": "1", "b": "2"}, {"a": "1"}, {"b": "2"}),
        ("Labels", {"a": "2"}, {"a": "1"}, {"a": "2"}),
        ("Labels", {"svcagent.replaces": "x", "svcagent.digest": "y", "mine": "z"}, None, {"mine": "z"}),
        (
            "Labels",
            {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "a": "1"},
            {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "a": "1"},
            {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"},
        ),
        ("Labels", {"com.docker.compose.version": "2"}, {"com.docker.compose.version": "2"}, {}),
        ("Volumes", {"/data": {}, "/cache": {}}, {"/data": {}}, {"/cache": {}}),
        ("ExposedPorts", {"80/tcp": {}, "81/tcp": {}}, {"80/tcp": {}}, {"81/tcp": {}}),
        ("WorkingDir", "/srv", "/srv", None),
        ("WorkingDir", "/opt", "/srv", "/opt"),
        ("User", "app", "app", None),
        ("User", "root", "app", "root"),
        ("StopSignal", "SIGINT", "SIGINT", None),
        ("StopSignal", "SIGTERM", "SIGINT", "SIGTERM"),
        ("Shell", ["/bin/ash"], ["/bin/ash"], None),
        ("StopTimeout", 30, None, 30),
        ("Tty", True, False, True),
        ("Domainname", "example.com", "", "example.com"),
        ("OnBuild", ["RUN x"], ["RUN x"], None),
        ("Healthcheck", {"Test": ["CMD", "x"]}, {"Test": ["CMD", "x"]}, None),
        ("Healthcheck", {"Test": ["CMD", "x"], "Interval": 5}, {"Test": ["CMD", "x"], "Interval": 9}, {"Interval": 5}),
        ("Healthcheck", {"Test": ["NONE"]}, {"Test": ["CMD", "x"]}, {"Test": ["NONE"]}),
    ],
)
def test_the_old_images_defaults_are_left_to_the_new_one(key: str, container: Any, image: Any, expected: Any) -> None:
    assert made(old({key: container}), {key: image}).get(key) == expected


@pytest.mark.parametrize(
    ("container", "image", "expected"),
    [
        ((None, ["serve"]), (None, ["serve"]), (None, None)),
        ((["run"], ["serve"]), (["run"], ["serve"]), (None, None)),
        ((["run"], ["other"]), (["run"], ["serve"]), (None, ["other"])),
        ((["mine"], None), (["run"], ["serve"]), (["mine"], None)),
        # The image's Cmd would be dropped beside another entrypoint: it was given again, and must be given again.
        ((["mine"], ["serve"]), (["run"], ["serve"]), (["mine"], ["serve"])),
        ((["mine"], ["other"]), (None, ["serve"]), (["mine"], ["other"])),
        # --entrypoint "" clears the image's.
        ((None, ["serve"]), (["run"], ["serve"]), ([""], ["serve"])),
        # --entrypoint run, with no arguments.
        ((["run"], None), (["run"], ["serve"]), (["run"], None)),
    ],
)
def test_entrypoint_and_cmd_are_subtracted_together(container: Any, image: Any, expected: Any) -> None:
    config, defaults = (dict(zip(("Entrypoint", "Cmd"), pair, strict=True)) for pair in (container, image))

    request = made(old(config), defaults)

    assert (request["Entrypoint"], request["Cmd"]) == expected


@pytest.mark.parametrize(
    ("mode", "uts", "hostname", "expected"),
    [
        ("default", "", ID[:12], ""),
        ("default", "", "web-1", "web-1"),
        ("default", "", ID[:2], ID[:2]),  # given, although the ID begins with it
        ("host", "", "machine", ""),
        ("host", "", "web-1", "web-1"),
        ("default", "host", "machine", ""),
        ("container:" + "b" * 64, "", "other", ""),
    ],
)
def test_a_host_name_is_kept_only_if_it_was_given(mode: str, uts: str, hostname: str, expected: str) -> None:
    container = old({"Hostname": hostname}, {"NetworkMode": mode, "UTSMode": uts})

    assert made(container, engine_host="machine")["Hostname"] == expected


def test_the_host_configuration_passes_as_it_is() -> None:
    host = {"Memory": 64, "RestartPolicy": {"Name": "always"}, "Binds": ["/a:/b:ro"], "SomethingNew": {"x": 1}}

    assert made(old(host=host))["HostConfig"] == {**host, "NetworkMode": "default", "Links": None, "PortBindings": None}


@pytest.mark.parametrize("key", ["CgroupnsMode", "IpcMode"])
def test_an_empty_mode_of_an_older_engine_is_asked_for_by_its_name(key: str) -> None:
    """Asked for as it stands, it would become the Engine's default of today."""
    expected = {"CgroupnsMode": "host", "IpcMode": "shareable"}[key]

    assert made(old(host={key: ""}))["HostConfig"][key] == expected
    assert made(old(host={key: "private"}))["HostConfig"][key] == "private"


def test_links_are_rewritten_from_inspects_form_to_creates() -> None:
    host = made(old(host={"Links": ["/db:/app/database"]}))["HostConfig"]

    assert host["Links"] == ["db:database"]


def volume(name: str, target: str, *, is_writable: bool = True) -> dict[str, Any]:
    return {"Type": "volume", "Name": name, "Destination": target, "RW": is_writable}


@pytest.mark.parametrize(
    ("host", "mounts", "binds", "expected_mounts"),
    [
        ({}, [volume("f00", "/data")], ["f00:/data"], None),
        ({}, [volume("f00", "/data", is_writable=False)], ["f00:/data:ro"], None),
        ({"Binds": ["db:/data"]}, [volume("db", "/data")], ["db:/data"], None),
        ({"Binds": ["db:/data/"]}, [volume("db", "/data")], ["db:/data/"], None),
        (
            {"Mounts": [{"Type": "volume", "Target": "/data"}]},
            [volume("f00", "/data")],
            None,
            [{"Type": "volume", "Target": "/data", "Source": "f00"}],
        ),
        (
            {"Mounts": [{"Type": "volume", "Target": "/data", "Source": "db"}]},
            [volume("db", "/data")],
            None,
            [{"Type": "volume", "Target": "/data", "Source": "db"}],
        ),
        ({}, [{"Type": "bind", "Source": "/a", "Destination": "/b", "RW": True}], None, None),
    ],
)
def test_anonymous_volumes_become_named_ones(host: Any, mounts: Any, binds: Any, expected_mounts: Any) -> None:
    request = made(old(host=host, mounts=mounts))["HostConfig"]

    assert (request.get("Binds"), request.get("Mounts")) == (binds, expected_mounts)


@pytest.mark.parametrize(
    ("noted", "expected"),
    [("sha256:" + "a" * 64, {"com.docker.compose.image": "sha256:new"}), ("of some other meaning", {}), (None, {})],
)
def test_docker_compose_finds_the_new_image_noted_as_the_old_one(noted: str | None, expected: dict[str, str]) -> None:
    labels = {} if noted is None else {"com.docker.compose.image": noted}

    assert recreate.compose_labels(old({"Labels": labels}), {"Image": "sha256:new"}) == expected


def test_volumes_from_another_container_are_asked_of_it_again() -> None:
    """Pinned by name they would hide what that container has after it is made anew."""
    mine, theirs = volume("f00", "/data"), volume("bar", "/shared")
    container = old(host={"VolumesFrom": ["db:ro", "0123456789"]}, mounts=[mine, theirs])

    request = recreate.payload(container, {"Config": {}}, "app:latest", {}, volume_owners=[{"Mounts": [theirs]}, {}])

    assert recreate.volume_sources(container) == ("db", "0123456789")
    assert (request["HostConfig"]["Binds"], request["HostConfig"]["VolumesFrom"]) == (
        ["f00:/data"],
        ["db:ro", "0123456789"],
    )


def endpoint(network_id: str = "n1", **more: Any) -> dict[str, Any]:
    return {"NetworkID": network_id, "IPAddress": "198.18.0.2", "MacAddress": "02:42:c6:12:00:02", **more}


def test_a_user_defined_network_keeps_what_was_asked_for_and_loses_what_docker_filled_in() -> None:
    networks = {"front": endpoint(Aliases=["web", ID[:12]], IPAMConfig={"IPv4Address": "198.18.0.9"}, Links=["db:x"])}

    request = made(old(host={"NetworkMode": "front"}, networks=networks))

    kept = {"IPAMConfig": {"IPv4Address": "198.18.0.9"}, "Links": ["db:x"], "Aliases": ["web"]}
    assert request["NetworkingConfig"] == {"EndpointsConfig": {"front": kept}}


def test_a_network_named_by_id_is_named_by_name_in_both_places() -> None:
    request = made(old(host={"NetworkMode": "abcdef"}, networks={"front": endpoint("abcdef0123")}))

    assert request["HostConfig"]["NetworkMode"] == "front"
    assert set(request["NetworkingConfig"]["EndpointsConfig"]) == {"front"}


def test_a_mac_address_that_was_given_goes_to_the_container_and_to_its_network() -> None:
    mac = "02:00:00:00:00:01"

    request = made(old({"MacAddress": mac}, {"NetworkMode": "front"}, {"front": endpoint()}))

    assert request["MacAddress"] == mac
    assert request["NetworkingConfig"]["EndpointsConfig"]["front"] == {"MacAddress": mac}


@pytest.mark.parametrize(
    ("mode", "networks", "expected"),
    [
        ("default", {"bridge": endpoint()}, {}),
        ("host", {"host": endpoint()}, {}),
        ("front", {"front": endpoint()}, {}),
        ("front", {"front": endpoint(), "back": endpoint("n2", Aliases=["b", ID[:12]])}, {"back": {"Aliases": ["b"]}}),
        ("default", {"bridge": endpoint(), "back": endpoint("n2")}, {"back": {}}),
    ],
)
def test_further_networks_are_all_but_the_one_of_its_creation(mode: str, networks: Any, expected: Any) -> None:
    assert recreate.further_networks(old(host={"NetworkMode": mode}, networks=networks)) == expected


@pytest.mark.parametrize(
    ("config", "host", "is_refused"),
    [
        ({}, {}, False),
        ({"Image": "cafe"}, {}, False),  # a repository's name, although it could be a number
        ({}, {"AutoRemove": True}, True),
        ({"Image": "sha256:" + "a" * 64}, {}, True),
        ({"Image": "a" * 12}, {}, True),
        ({}, {"NetworkMode": "container:" + "b" * 64}, True),
        ({"Labels": {"com.docker.swarm.task.id": "x"}}, {}, True),
    ],
)
def test_containers_that_cannot_be_recreated_are_refused(config: Any, host: Any, is_refused: bool) -> None:
    assert (recreate.refusal(old(config, host)) is not None) == is_refused


def test_the_new_container_says_what_it_replaces_and_what_it_runs() -> None:
    labels = {recreate.REPLACES_LABEL: ID, recreate.DIGEST_LABEL: "sha256:1"}

    request = recreate.payload(old({"Labels": {"a": "b"}}), {"Config": None}, "app:2", labels)

    assert request["Labels"] == {"a": "b", **labels}
    assert request["Image"] == "app:2"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({}, {"81/tcp"}),
        ({"PortBindings": {"80/tcp": [{"HostPort": "8000"}]}}, {"80/tcp", "81/tcp"}),
        ({"PortBindings": {"80/udp": [{"HostPort": "8000"}]}}, {"81/tcp"}),
        ({"PublishAllPorts": True}, {"80/tcp", "81/tcp"}),
    ],
)
def test_a_published_port_stays_exposed_if_the_old_image_exposed_it(host: dict[str, Any], expected: set[str]) -> None:
    """Docker publishes only what is exposed, and the new image may not expose it."""
    container = old({"ExposedPorts": {"80/tcp": {}, "81/tcp": {}}}, host)

    assert set(made(container, {"ExposedPorts": {"80/tcp": {}}})["ExposedPorts"]) == expected


def published(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"HostIp": address, "HostPort": port} for address, port in pairs]


@pytest.mark.parametrize(
    ("asked", "actual", "expected"),
    [
        ([("127.0.0.1", "80")], [("127.0.0.1", "80")], [("127.0.0.1", "80")]),
        ([("127.0.0.1", "")], [("127.0.0.1", "32768")], [("127.0.0.1", "32768")]),
        ([("127.0.0.1", "0")], [("127.0.0.1", "32768")], [("127.0.0.1", "32768")]),
        ([("", "")], [("0.0.0.0", "32768"), ("::", "32768")], [("", "32768")]),
        # Engine 20.10 may choose two.
        ([("", "")], [("0.0.0.0", "32768"), ("::", "32769")], [("0.0.0.0", "32768"), ("::", "32769")]),
        ([("", "8000-8010")], [("0.0.0.0", "8003")], [("", "8003")]),
        ([("", "80"), ("", "")], [("0.0.0.0", "80"), ("0.0.0.0", "32768")], [("", "80"), ("", "32768")]),
        ([("127.0.0.1", ""), ("::1", "")], [("::1", "5"), ("127.0.0.1", "6")], [("127.0.0.1", "6"), ("::1", "5")]),
        # It does not run: nothing was chosen.
        ([("", "")], [], [("", "")]),
    ],
)
def test_a_host_port_that_docker_chose_is_kept(asked: Any, actual: Any, expected: Any) -> None:
    container = old(host={"PortBindings": {"80/tcp": published(*asked)}})
    container["NetworkSettings"]["Ports"] = {"80/tcp": published(*actual), "81/tcp": None}

    assert made(container)["HostConfig"]["PortBindings"] == {"80/tcp": published(*expected)}


def test_ports_published_because_the_image_exposes_them_are_kept_as_well() -> None:
    container = old(host={"PublishAllPorts": True, "PortBindings": {}})
    container["NetworkSettings"]["Ports"] = {"80/tcp": published(("0.0.0.0", "32768")), "81/tcp": None}

    assert made(container)["HostConfig"]["PortBindings"] == {"80/tcp": published(("", "32768"))}


@pytest.mark.parametrize(
    ("mode", "networks", "expected"),
    [
        # Disconnected from the network of its creation, which may be gone.
        ("front", {"back": endpoint("n2", Aliases=["b"])}, "back"),
        ("front", {"zeta": endpoint("n3"), "back": endpoint("n2")}, "back"),
        ("default", {"back": endpoint("n2")}, "back"),
    ],
)
def test_a_container_is_created_in_a_network_that_it_is_in_now(mode: str, networks: Any, expected: str) -> None:
    container = old(host={"NetworkMode": mode}, networks=networks)

    request = made(container)

    assert request["HostConfig"]["NetworkMode"] == expected
    assert set(request["NetworkingConfig"]["EndpointsConfig"]) == {expected}
    assert set(recreate.further_networks(container)) == set(networks) - {expected}


def test_a_container_that_is_connected_to_no_network_is_refused() -> None:
    refused = recreate.refusal(old(host={"NetworkMode": "front"}, networks={}))

    assert refused is not None
    assert "not connected to any network" in refused[0]


def test_compose_finds_the_new_manifest_noted_where_it_noted_the_old_ones() -> None:
    """From Compose 5.5 on, in the containerd image store."""
    container = old({"Labels": {"com.docker.compose.image": "sha256:old manifest"}})
    container["ImageManifestDescriptor"] = {"digest": "sha256:old manifest"}
    new = {"Image": "sha256:new", "ImageManifestDescriptor": {"digest": "sha256:new manifest"}}

    assert recreate.compose_labels(container, new) == {"com.docker.compose.image": "sha256:new manifest"}


@pytest.mark.parametrize(
    ("host", "is_refused"),
    [
        ({}, True),
        ({"Binds": ["/data"]}, True),
        ({"Binds": ["named:/data/"]}, False),
        ({"Mounts": [{"Target": "/data", "Type": "volume"}]}, True),
        ({"Mounts": [{"Target": "/data", "Type": "volume", "Source": "named"}]}, False),
        ({"Tmpfs": {"/data": ""}}, False),
    ],
)
def test_a_volume_without_a_name_is_refused_unless_the_request_names_it(host: dict[str, Any], is_refused: bool) -> None:
    container = old(host=host, mounts=[{"Type": "volume", "Destination": "/data", "Driver": "nfs"}])

    assert (recreate.refusal(container) is not None) == is_refused
