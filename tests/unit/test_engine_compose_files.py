"""Which files Docker Compose copied into a container, among those that its programs wrote."""

from typing import Any

import pytest

from agent.engine.compose_files import LARGEST, candidates, is_of_compose

CREATED, STARTED = "2026-01-01T00:00:00.7Z", "2026-01-01T00:00:02.2Z"
DIRECTORY, LINK = 1 << 31, 1 << 27


def container(mounts: Any = (), **host: Any) -> dict[str, Any]:
    return {
        "Created": CREATED,
        "State": {"StartedAt": STARTED},
        "Mounts": [{"Destination": path} for path in mounts],
        "HostConfig": host,
    }


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/etc/app.conf", {}, True),
        # Rounded, down and up.
        ("/etc/app.conf", {"mtime": "2026-01-01T00:00:00Z"}, True),
        ("/etc/app.conf", {"mtime": "2026-01-01T09:00:03+09:00"}, True),
        # By a program, which dates them to the nanosecond.
        ("/etc/app.conf", {"mtime": "2026-01-01T00:00:01.123456789Z"}, False),
        # Of the image, or copied from it with its date; or copied into it by a person.
        ("/etc/app.conf", {"mtime": "2025-12-31T23:59:59Z"}, False),
        ("/etc/app.conf", {"mtime": "2026-01-01T00:00:04Z"}, False),
        ("/etc/app.conf", {"mode": DIRECTORY | 0o755}, False),
        ("/etc/app.conf", {"mode": LINK | 0o777}, False),
        ("/etc/app.conf", {"size": LARGEST + 1}, False),
        # Nobody else writes there.
        ("/run/secrets/token", {"mtime": "2026-01-01T00:00:01.5Z"}, True),
        ("/run/secrets/token", {"mode": DIRECTORY | 0o755}, False),
    ],
)
def test_files_of_compose_are_identified_by_their_date(path: str, status: dict[str, Any], expected: bool) -> None:
    found = {"size": 3, "mode": 0o444, "mtime": "2026-01-01T00:00:01Z", **status}

    assert is_of_compose(path, found, container()) is expected


@pytest.mark.parametrize(
    ("dated", "expected"),
    [
        ("2026-01-01T00:00:02Z", True),  # copied after the creation
        ("2026-01-05T10:00:00Z", False),  # copied into the running container, as by docker cp
        ("2026-01-09T11:59:20Z", False),  # likewise, just before a restart
        ("2026-01-09T11:59:41Z", True),  # copied into the stopped container, before its start
        ("2026-01-09T12:00:02Z", False),
    ],
)
def test_a_restarted_container_has_files_of_compose_from_its_creation_and_from_before_its_last_start(
    dated: str, *, expected: bool
) -> None:
    one = container()
    one["State"] = {"StartedAt": "2026-01-09T12:00:00.1Z", "FinishedAt": "2026-01-09T11:59:40.5Z"}

    assert is_of_compose("/etc/app.conf", {"size": 3, "mode": 0o444, "mtime": dated}, one) is expected


def test_a_stopped_container_has_files_of_compose_from_its_creation_and_from_before_its_last_start() -> None:
    one = container()
    one["State"] = {"StartedAt": "2026-01-09T12:00:00.1Z", "FinishedAt": "2026-01-09T13:00:00Z"}
    dates = [f"2026-01-{day}Z" for day in ("01T00:00:02", "05T10:00:00", "09T11:59:20", "09T12:30:00")]

    found = [is_of_compose("/etc/app.conf", {"size": 3, "mode": 0o444, "mtime": date}, one) for date in dates]

    assert found == [True, False, True, False]


def test_what_is_hidden_by_a_mount_or_holds_others_is_no_candidate() -> None:
    one = container(["/data/", "/run/secrets/file"], Tmpfs={"/cache": ""})
    changed = ["/a", "/a/b", "/a/b/c", "/data", "/data/x", "/database", "/cache/x", "/run", "/run/secrets"]
    changed += ["/run/secrets/file", "/run/secrets/token"]

    assert candidates(one, changed) == ["/run/secrets/token", "/database", "/a/b/c"]
