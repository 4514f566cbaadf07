"""For want of what a container could not be started again."""

from typing import Any

import pytest

from agent.engine.startable import DIRECTORY, FILE, NOTHING, Surroundings, find_missing, log_collector, needed_paths


def container(mounts: Any = (), **host: Any) -> dict[str, Any]:
    return {"Mounts": list(mounts), "HostConfig": {"NetworkMode": "default", **host}}


def bind(source: str, target: str) -> dict[str, str]:
    return {"Type": "bind", "Source": source, "Destination": target}


def log(driver: str, **options: str) -> dict[str, Any]:
    return {"Type": driver, "Config": {key.replace("_", "-"): value for key, value in options.items()}}


RUNS, ENDED = ({"State": {"Running": is_running}} for is_running in (True, False))
APP = container([bind("/srv/app.conf", "/etc/app.conf")])


@pytest.mark.parametrize(
    ("one", "seen", "expected"),
    [
        (container(), Surroundings(), ()),
        # What could not be looked at is left to Docker.
        (APP, Surroundings(), ()),
        (APP, Surroundings(paths={"/srv/app.conf": FILE}, mounted={"/etc/app.conf": FILE}), ()),
        (APP, Surroundings(paths={"/srv/app.conf": FILE}), ()),
        (APP, Surroundings(paths={"/srv/app.conf": NOTHING}), ("bind source /srv/app.conf does not exist",)),
        (
            APP,
            Surroundings(paths={"/srv/app.conf": DIRECTORY}, mounted={"/etc/app.conf": FILE}),
            ("/srv/app.conf is a directory, but was a file",),
        ),
        (
            container([bind("/srv/data", "/data/")]),
            Surroundings(paths={"/srv/data": FILE}, mounted={"/data": DIRECTORY}),
            ("/srv/data is a file, but was a directory",),
        ),
        # Deleted and made again: the one that is mounted is no more.
        (
            container([bind("/srv/data", "/data")]),
            Surroundings(paths={"/srv/data": DIRECTORY}, mounted={"/data": NOTHING}),
            (),
        ),
        (
            container(Devices=[{"PathOnHost": "/dev/x", "PathInContainer": "/dev/y"}]),
            Surroundings(paths={"/dev/x": NOTHING}),
            ("device /dev/x does not exist",),
        ),
        (container(Links=["/db:/app/db"]), Surroundings({"db": RUNS}), ()),
        (container(Links=["/db:/app/db"]), Surroundings({"db": ENDED}), ("linked (--link) to container db",)),
        (container(Links=["/db:/app/db"]), Surroundings({"db": None}), ("linked (--link) to container db",)),
        (container(Links=["db:db"], NetworkMode="front"), Surroundings(), ()),
        (container(PidMode="container:db"), Surroundings({"db": ENDED}), ("uses the PID namespace of",)),
        (container(VolumesFrom=["db:ro"]), Surroundings({"db": ENDED}), ()),
        (container(VolumesFrom=["db:ro"]), Surroundings({"db": None}), ("uses the volumes of container db",)),
        (
            container(LogConfig=log("fluentd")),
            Surroundings(is_collector_silent=True),
            ("log driver fluentd cannot connect to tcp://localhost",),
        ),
        (container(LogConfig=log("fluentd", fluentd_async="true")), Surroundings(is_collector_silent=True), ()),
        (
            container([bind("/a", "/a"), bind("/b", "/b")]),
            Surroundings(paths={"/a": NOTHING, "/b": NOTHING}),
            ("/a does not exist", "/b does not exist"),
        ),
    ],
)
def test_what_a_container_needs_is_named(one: dict[str, Any], seen: Surroundings, expected: tuple[str, ...]) -> None:
    found = find_missing(one, seen)

    assert len(found) == len(expected)
    assert all(part in lack for part, lack in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (container([{"Type": "volume", "Name": "v", "Source": "/v/_data", "Destination": "/data"}]), set()),
        (container([bind("/srv", "/srv")]), {"/srv"}),
        # Docker makes this one.
        (container([bind("/srv", "/x")], Mounts=[{"Target": "/x/", "BindOptions": {"CreateMountpoint": True}}]), set()),
        (container(Devices=[{"PathOnHost": "/dev/x", "PathInContainer": "/dev/x"}]), {"/dev/x"}),
        (container(Devices=[{"PathOnHost": "/dev/x", "PathInContainer": "/dev/x"}], Privileged=True), set()),
        (container(Devices=[{"PathOnHost": "/dev/x", "PathInContainer": "/dev/y"}], Privileged=True), {"/dev/x"}),
        (container(LogConfig=log("syslog", syslog_address="unixgram:///dev/log")), {"/dev/log"}),
    ],
)
def test_the_paths_of_the_host_that_a_start_needs(one: dict[str, Any], expected: set[str]) -> None:
    assert set(needed_paths(one)) == expected


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        (log("json-file", max_size="10m"), None),
        (log("fluentd"), ("localhost", None)),
        (log("fluentd", fluentd_address="192.0.2.1:24225"), ("192.0.2.1", 24225)),
        (log("fluentd", fluentd_address="tcp://logs"), ("logs", None)),
        (log("fluentd", fluentd_async_connect="True"), None),
        (log("gelf", gelf_address="udp://192.0.2.1:12201"), None),
        (log("gelf", gelf_address="tcp://192.0.2.1:12201"), ("192.0.2.1", 12201)),
        (log("syslog"), None),
        (log("syslog", syslog_address="tcp+tls://[2001:db8::1]:6514"), ("2001:db8::1", 6514)),
        (log("syslog", syslog_address="tcp://[bad"), None),
    ],
)
def test_where_a_log_driver_connects(configured: dict[str, Any], expected: tuple[str, int | None] | None) -> None:
    found = log_collector(container(LogConfig=configured))

    assert (found and (found.hostname, found.port)) == expected
