"""Answers of the Engine whose shape differs from its documentation: refused as a whole, naming container and field."""

import contextlib
import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from agent.engine import recreate, replace
from agent.engine.answers import CONTAINER, IMAGE, inspected, with_volume_names
from agent.engine.connections import container_ports
from agent.engine.model import Container
from agent.engine.reference import digests_of, is_digest, parse
from agent.errors import Rejected
from agent.shapes import WrongShape, require

ID = "0123456789ab" + "0" * 52

FULL: dict[str, Any] = {
    "Id": ID,
    "Name": "/web",
    "Image": "sha256:" + "a" * 64,
    "Created": "2024-01-01T00:00:00Z",
    "RestartCount": 0,
    "State": {
        "Running": True,
        "Restarting": False,
        "Status": "running",
        "ExitCode": 0,
        "Pid": 7,
        "StartedAt": "2024-01-01T00:00:00Z",
        "Health": {"Status": "healthy", "Log": [{"Output": "fine"}]},
    },
    "Config": {
        "Image": "web:latest",
        "Hostname": ID[:12],
        "Labels": {"a": "b"},
        "Env": ["A=1"],
        "Cmd": ["serve"],
        "Entrypoint": ["/bin/web"],
        "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "true"]},
        "StopTimeout": 5,
        "MacAddress": "",
    },
    "HostConfig": {
        "NetworkMode": "net",
        "AutoRemove": False,
        "UTSMode": "",
        "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
        "Binds": ["/srv:/srv"],
        "Mounts": [{"Target": "/m", "Type": "volume", "Source": "m", "BindOptions": {"CreateMountpoint": True}}],
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/null"}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "Privileged": False,
        "Tmpfs": {"/t": ""},
        "Links": ["/db:/web/db"],
        "VolumesFrom": ["other"],
    },
    "NetworkSettings": {
        "Networks": {
            "net": {"NetworkID": "1", "Aliases": ["web"], "Links": [], "IPAMConfig": {"IPv4Address": "10.0.0.2"}}
        },
        "Ports": {"80/tcp": [{"HostPort": "8080"}]},
    },
    "Mounts": [{"Type": "volume", "Name": "v", "Source": "/v/_data", "Destination": "/data", "RW": True}],
    "HostsPath": "/var/lib/docker/containers/0/hosts",
}


def paths(shape: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], bool]]:
    """Every place of a shape that `FULL` has, and whether it may be null."""
    found = []
    if isinstance(shape, dict):
        for marked, inner in shape.items():
            key = marked.removesuffix("?")
            if key != "*":
                found += [((*path, key), key != marked), *paths(inner, (*path, key))]
    elif isinstance(shape, list):
        found += [((*path, 0), False), *paths(shape[0], (*path, 0))]
    return found


def changed(path: tuple[Any, ...], value: object) -> dict[str, Any] | None:
    """`FULL` with one place changed; None where it does not have that place."""
    document = copy.deepcopy(FULL)
    inner: Any = document
    try:
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]]
    except (KeyError, IndexError):
        return None
    inner[path[-1]] = value
    return document


def use(document: dict[str, Any]) -> None:
    """All that is worked out of a container before it is replaced."""
    seen = inspected(document, CONTAINER)
    Container.of(seen)
    recreate.refusal(seen)
    recreate.payload(seen, {}, "web:latest", {}, "host", [seen])
    recreate.further_networks(seen)
    recreate.compose_labels(seen, seen)
    container_ports(seen, 8080)
    replace.observed_container(seen)
    replace.stop_seconds(None, seen)


def test_the_full_document_is_used() -> None:
    use(copy.deepcopy(FULL))


@pytest.mark.parametrize("path, is_optional", paths(CONTAINER), ids=str)  # noqa: PT006  # one readable id
def test_null_is_used_where_it_may_be_and_refused_by_name_elsewhere(path: tuple[Any, ...], is_optional: bool) -> None:
    document = changed(path, None)
    if document is None:
        return
    if is_optional:
        use(document)
        return
    with pytest.raises(WrongShape) as caught:
        use(document)
    place = re.sub(r"\.\[", "[", ".".join(f"[{one}]" if isinstance(one, int) else one for one in path))
    assert place in str(caught.value)


@pytest.mark.parametrize("nonsense", [object(), 3.5, [[]], {"": []}, True, "text", -1])
@pytest.mark.parametrize("path", [path for path, _ in paths(CONTAINER)], ids=str)
def test_nonsense_in_any_field_is_used_or_refused_as_a_wrong_shape(path: tuple[Any, ...], nonsense: object) -> None:
    document = changed(path, nonsense)
    if document is None:
        return
    with contextlib.suppress(WrongShape):
        use(document)


@pytest.mark.parametrize("document", [None, [], "<html>", 7, {}, {"State": []}])
def test_what_is_no_container_at_all_is_refused(document: object) -> None:
    with pytest.raises(WrongShape):
        inspected(document, CONTAINER)
    with pytest.raises(WrongShape):
        inspected(document, IMAGE)


def test_a_whole_number_is_not_true() -> None:
    with pytest.raises(WrongShape):
        require({"n": True}, {"n": int})


def mount(target: str, name: str, **more: Any) -> dict[str, Any]:
    return {"Type": "volume", "Name": name, "Destination": target, "RW": True, **more}


@pytest.mark.parametrize(
    ("binds", "mounts", "expected"),
    [
        (["/data"], [mount("/data", "v")], ["v:/data"]),
        (["/data/"], [mount("/data", "v")], ["v:/data"]),
        (["/data", "/srv:/srv"], [mount("/data", "v")], ["/srv:/srv", "v:/data"]),
        (["/data"], [mount("/data", "v", RW=False)], ["v:/data:ro"]),
        (["/data"], [], ["/data"]),
        ([""], [], [""]),
        ([":"], [], [":"]),
        (["named:/data"], [mount("/data", "named")], ["named:/data"]),
        (["named:/data//"], [mount("/data", "named")], ["named:/data//"]),
        (None, [mount("/data", "v")], ["v:/data"]),
        (None, [{"Type": "volume", "Destination": "/data"}], None),
        (None, None, None),
    ],
)
def test_a_bind_without_a_source_keeps_its_anonymous_volume(binds: Any, mounts: Any, expected: Any) -> None:
    document = {**copy.deepcopy(FULL), "Mounts": mounts}
    document["HostConfig"] = {"NetworkMode": "host", "Binds": binds}
    host = recreate.payload(inspected(document, CONTAINER), {}, "web:latest", {})["HostConfig"]
    assert host.get("Binds") == expected


def test_a_tmpfs_over_a_declared_volume_is_the_only_mount_there() -> None:
    document = {**copy.deepcopy(FULL), "Mounts": [mount("/data", "v"), mount("/more", "w")]}
    document["HostConfig"] = {
        "NetworkMode": "host",
        "Tmpfs": {"/data/": ""},
        "Mounts": [{"Type": "tmpfs", "Target": "/more/"}],
    }
    host = recreate.payload(inspected(document, CONTAINER), {}, "web:latest", {})["HostConfig"]
    assert not host.get("Binds")
    assert host["Mounts"] == [{"Type": "tmpfs", "Target": "/more/"}]


GOOD = "sha256:" + "0123456789abcdef" * 4
BAD = [
    "",
    "sha256:",
    "sha256:" + "g" * 64,
    "sha256:" + "a" * 63,
    "sha256:" + "A" * 64,
    f"{GOOD}\0",
    f"{GOOD}\n",
    f" {GOOD}",
    '"$(id)"',
    "sha256:../../x",
    "\ud800",
]


@pytest.mark.parametrize("digest", BAD, ids=ascii)
@pytest.mark.parametrize("use_digest", [parse("web").at, lambda one: parse(f"web@{one}")])
def test_what_is_no_digest_never_becomes_part_of_a_reference(use_digest: Callable[[str], object], digest: str) -> None:
    with pytest.raises(Rejected):
        use_digest(digest)
    assert not is_digest(digest)
    assert digests_of([f"web@{digest}"], "web") == ()


@pytest.mark.parametrize("digest", [one for one in BAD if one], ids=ascii)
def test_a_label_that_is_no_digest_is_as_if_it_were_not_there(digest: str) -> None:
    document = copy.deepcopy(FULL)
    document["Config"]["Labels"] = {recreate.DIGEST_LABEL: digest}
    seen = replace.observed_container(document)
    assert seen is not None
    assert seen.digest == ""


@pytest.mark.parametrize(
    ("mount", "name"),
    [
        ({"Driver": "local", "Source": "/var/lib/docker/volumes/0abc/_data"}, "0abc"),
        ({"Driver": "local", "Source": "/var/lib/docker/volumes/0abc/_data", "Name": "given"}, "given"),
        ({"Driver": "local", "Source": "/mnt/elsewhere"}, None),
        ({"Driver": "nfs", "Source": "/var/lib/docker/volumes/0abc/_data"}, None),
        ({"Driver": "local", "Source": "/var/lib/docker/volumes/0abc/_data", "Type": "bind"}, None),
    ],
)
def test_the_name_of_a_local_volume_is_known_from_its_place(mount: dict[str, Any], name: str | None) -> None:
    found = with_volume_names({**FULL, "Mounts": [{"Type": "volume", "Destination": "/data", **mount}]})

    assert found["Mounts"][0].get("Name") == name
