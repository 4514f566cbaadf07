"""What counts as a difference between a container and its successor."""

from typing import Any

import pytest

from agent.engine.compare import MAY_BE_ADDED, MAY_DIFFER, differences

ID, NEW_ID = "0123456789ab" + "0" * 52, "ba9876543210" + "0" * 52
IMAGE = {"Os": "linux", "Architecture": "amd64", "Config": {"Env": ["A=1"], "Cmd": ["serve"], "Volumes": {"/data": {}}}}


def container(own_id: str = ID, **parts: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Id": own_id,
        "Name": "/app",
        "Config": {"Image": "app:latest", "Hostname": own_id[:12], "Env": ["A=1"], "Cmd": ["serve"]},
        "HostConfig": {"NetworkMode": "front"},
        "NetworkSettings": {"Networks": {"front": {"Aliases": ["web", own_id[:12]]}}},
        "Mounts": [
            {"Type": "volume", "Name": "data", "Source": "/v/data", "Destination": "/data", "Mode": "", "RW": True}
        ],
    }
    for key, value in parts.items():
        found[key] = {**found[key], **value} if isinstance(value, dict) and key in found else value
    return found


def found(old: dict[str, Any], new: dict[str, Any], image: Any = None, new_image: Any = None) -> tuple[str, ...]:
    return differences(old, new, image or IMAGE, new_image or image or IMAGE)


def host(**values: Any) -> dict[str, Any]:
    return {"HostConfig": values}


def network(**endpoint: Any) -> dict[str, Any]:
    return {"NetworkSettings": {"Networks": {"front": endpoint}}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {}),
        (
            {"State": {"Running": True}, "RestartCount": 3, "Created": "a"},
            {"State": {"Running": False}, "Created": "b"},
        ),
        ({"Name": "/app"}, {"Name": "/app.svcagent-new"}),
        # A name where an ID was; the network it was created in was disconnected since.
        (host(NetworkMode="0123abcd"), host(NetworkMode="front")),
        (host(Binds=None), host(Binds=["data:/data"])),
        (host(Devices=None, Dns=[], Ulimits=None), host(Devices=[], Dns=None)),
        (host(Links=["/db:/app/db"]), host(Links=["/db:/app.svcagent-new/db"])),
        (network(IPAddress="198.18.0.2", MacAddress="02:42:c6:12:00:02", DNSNames=["app", ID[:12]]), network()),
        ({"Config": {"Labels": {"svcagent.digest": "a"}}}, {"Config": {"Labels": {"svcagent.digest": "b"}}}),
        (
            {"Config": {"Labels": {"com.docker.compose.image": "a"}}},
            {"Config": {"Labels": {"com.docker.compose.image": "b"}}},
        ),
        ({"Config": {"Entrypoint": [""]}}, {"Config": {"Entrypoint": None}}),
        # An older Engine wrote the same in another way, or left it to the Engine's default of each start.
        (host(PidsLimit=0), host(PidsLimit=None)),
        (host(PidsLimit=-1), host(PidsLimit=0)),
        (host(OomKillDisable=None), host(OomKillDisable=False)),
        (host(MemorySwappiness=-1), host(MemorySwappiness=None)),
        (host(CgroupnsMode=""), host(CgroupnsMode="host")),
        (host(IpcMode=""), host(IpcMode="shareable")),
        (host(RestartPolicy={"Name": ""}), host(RestartPolicy={"Name": "no", "MaximumRetryCount": 0})),
        (host(ShmSize=0), host(ShmSize=64 << 20)),
        (host(MaskedPaths=None, ReadonlyPaths=None), host(MaskedPaths=["/proc/keys"], ReadonlyPaths=["/proc/sys"])),
        (
            host(LogConfig={"Type": "json-file", "Config": {"labels": "a"}}),
            host(LogConfig={"Type": "json-file", "Config": {"labels": "a", "max-size": "10m"}}),
        ),
        # A field of a later Engine that is the same.
        (host(SomethingNew={"x": 1}), host(SomethingNew={"x": 1})),
    ],
)
def test_what_differs_between_any_two_containers_is_no_difference(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert found(container(**old), container(NEW_ID, **new)) == ()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (host(ShmSize=128 << 20), host(ShmSize=64 << 20), "HostConfig.ShmSize: 64 MiB, was 128 MiB"),
        (host(Privileged=True), host(Privileged=False), "HostConfig.Privileged: False, was True"),
        (host(SecurityOpt=["a"]), host(), "HostConfig.SecurityOpt: not set, was a"),
        (host(), host(SomethingNew={"x": 1}), "HostConfig.SomethingNew.x: 1, was not set"),
        (host(RestartPolicy={"Name": "always"}), host(RestartPolicy={"Name": "no"}), "HostConfig.RestartPolicy: no"),
        (host(Ulimits=[{"Name": "nofile", "Soft": 1}]), host(Ulimits=[]), "HostConfig.Ulimits.nofile.Name"),
        (host(OomKillDisable=True), host(OomKillDisable=False), "HostConfig.OomKillDisable: not set, was True"),
        (host(PidsLimit=50), host(PidsLimit=0), "HostConfig.PidsLimit: not set, was 50"),
        (host(CgroupnsMode=""), host(CgroupnsMode="private"), "HostConfig.CgroupnsMode: private, was host"),
        (host(MaskedPaths=[]), host(MaskedPaths=["/proc/keys"]), "HostConfig.MaskedPaths: /proc/keys, was none"),
        (host(MaskedPaths=["/proc/keys"]), host(MaskedPaths=None), "HostConfig.MaskedPaths: not set, was /proc/keys"),
        (
            host(LogConfig={"Config": {"max-size": "1m"}}),
            host(LogConfig={"Config": {"max-size": "10m"}}),
            "HostConfig.LogConfig.Config.max-size: 10m, was 1m",
        ),
        (host(LogConfig={"Type": "journald"}), host(LogConfig={"Type": "local"}), "HostConfig.LogConfig.Type: local"),
        (host(PidMode="host"), host(PidMode=""), "HostConfig.PidMode: not set, was host"),
        (
            {"Config": {"MacAddress": "02:00:00:00:00:01"}},
            {"Config": {}},
            "Config.MacAddress: not set, was 02:00:00:00:00:01",
        ),
        ({"Config": {"Hostname": "web-1"}}, {}, "Config.Hostname: not set, was web-1"),
        (network(Aliases=["web"]), network(Aliases=["www"]), "NetworkSettings.Networks.front.Aliases: www, was web"),
        (network(IPAMConfig={"IPv4Address": "198.18.0.9"}), network(), "NetworkSettings.Networks.front.IPAMConfig"),
        (
            {"NetworkSettings": {"Networks": {"front": {}, "back": {}}}},
            {"NetworkSettings": {"Networks": {"front": {}}}},
            "NetworkSettings.Networks.back.connected: not set, was True",
        ),
        ({}, {"Mounts": []}, "Mounts./data.Destination: not set, was /data"),
        (
            {"Mounts": [{"Type": "bind", "Source": "/a", "Destination": "/b"}]},
            {"Mounts": [{"Type": "bind", "Source": "/c", "Destination": "/b"}]},
            "Mounts./b.Bound: /c, was /a",
        ),
        ({"Config": {"Labels": {"a": "1"}}}, {"Config": {"Labels": {}}}, "Config.Labels.a: not set, was 1"),
    ],
)
def test_what_was_asked_for_and_lost_is_named_by_path(old: dict[str, Any], new: dict[str, Any], expected: str) -> None:
    assert [one for one in found(container(**old), container(NEW_ID, **new)) if one.startswith(expected)]


def test_the_value_of_a_variable_is_not_shown() -> None:
    """It may be a password."""
    old = container(Config={"Env": ["A=1", "PASSWORD=hush"]})

    assert found(old, container(NEW_ID)) == ("Config.Env.PASSWORD: not set, was a value that is not shown",)


def test_what_the_two_images_explain_is_no_difference() -> None:
    """The old value is the old image's, the new one the new image's; a new VOLUME comes with its mount."""
    newer = {
        **IMAGE,
        "Config": {"Env": ["A=2", "B=3"], "Cmd": ["work"], "Volumes": {"/data": {}, "/cache": {}}, "User": "app"},
    }
    new = container(NEW_ID, Config={"Env": ["A=2", "B=3"], "Cmd": ["work"], "User": "app"})
    new["Mounts"] = [*new["Mounts"], {"Type": "volume", "Name": "f00", "Destination": "/cache"}]

    assert found(container(), new, IMAGE, newer) == ()


@pytest.mark.parametrize("key", ["Env", "Cmd", "User"])
def test_a_value_of_the_containers_own_is_never_explained_by_an_image(key: str) -> None:
    own = {"Env": ["A=own"], "Cmd": ["own"], "User": "own"}
    newer = {**IMAGE, "Config": {"Env": ["A=2"], "Cmd": ["work"], "User": "app"}}

    [difference] = found(
        container(Config={key: own[key]}),
        container(NEW_ID, Config={key: newer["Config"][key]}),  # type: ignore[index]  # a mapping
        IMAGE,
        {**newer, "Config": {**IMAGE["Config"], key: newer["Config"][key]}},  # type: ignore[dict-item, index]  # likewise
    )

    assert difference.startswith(f"Config.{key}")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ()),
        ({"PublishAllPorts": True}, ("Config.ExposedPorts.80/tcp: not set, was True",)),
        ({"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}, ("Config.ExposedPorts.80/tcp: not set, was True",)),
    ],
)
def test_an_image_explains_no_loss_of_a_published_port(asked: dict[str, Any], expected: tuple[str, ...]) -> None:
    """It may expose another one."""
    image, newer = ({**IMAGE, "Config": {"ExposedPorts": {port: {}}}} for port in ("80/tcp", "81/tcp"))
    old = container(Config={"ExposedPorts": {"80/tcp": {}}}, HostConfig=asked)
    new = container(NEW_ID, Config={"ExposedPorts": {"81/tcp": {}}}, HostConfig=asked)

    assert found(old, new, image, newer) == expected


def test_an_image_explains_no_loss_of_a_label_of_docker_compose() -> None:
    """The container would leave its project."""
    labels = {"com.docker.compose.project": "shop", "team": "search"}
    image = {**IMAGE, "Config": {"Labels": labels}}

    assert found(container(Config={"Labels": labels}), container(NEW_ID), image, {**IMAGE, "Config": {}}) == (
        "Config.Labels.com.docker.compose.project: not set, was shop",
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"Architecture": "386"}, {"Architecture": "amd64"}, ("Image.Platform: linux/amd64, was linux/386",)),
        ({"Architecture": "arm", "Variant": "v6"}, {"Architecture": "arm", "Variant": "v7"}, 1),
        ({"Architecture": "arm64"}, {"Architecture": "arm64", "Variant": "v8"}, ()),
        ({"Architecture": "arm64", "Variant": "v8"}, {"Architecture": "aarch64"}, ()),
        ({"Architecture": "amd64"}, {"Architecture": "amd64", "Variant": "v1"}, ()),
        ({"Architecture": "amd64"}, {"Architecture": "amd64", "Variant": "v2"}, ()),
        ({"Architecture": "x86_64"}, {"Architecture": "amd64"}, ()),
        # What the old image does not say, the new one may.
        ({"Architecture": ""}, {"Architecture": "amd64"}, ()),
        ({"Os": "", "Architecture": "amd64"}, {"Architecture": "amd64"}, ()),
        ({"Architecture": "arm"}, {"Architecture": "arm", "Variant": "v7"}, ()),
        ({"Architecture": "arm", "Variant": "v7"}, {"Architecture": "arm"}, 1),
        ({"Architecture": "amd64"}, {"Architecture": ""}, ("Image.Platform: not set, was linux/amd64",)),
        ({"Architecture": "arm"}, {"Architecture": "arm64"}, 1),
    ],
)
def test_another_platform_is_a_difference(old: Any, new: Any, expected: Any) -> None:
    seen = found(container(), container(NEW_ID), {**IMAGE, **old}, {**IMAGE, **new})

    assert seen == expected or len(seen) == expected


def test_the_container_says_its_platform_where_one_image_holds_several() -> None:
    """In the containerd image store, from API 1.48 on."""
    said = {"digest": "sha256:a", "platform": {"os": "linux", "architecture": "386"}}

    assert found(container(ImageManifestDescriptor=said), container(NEW_ID)) == (
        "Image.Platform: linux/amd64, was linux/386",
    )


def test_every_exception_has_its_reason() -> None:
    assert all((*MAY_DIFFER.values(), *MAY_BE_ADDED.values()))
