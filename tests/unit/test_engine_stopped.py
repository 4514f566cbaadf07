"""Who stopped a container: what Docker shows of it in, the verdict out."""

import pytest

from agent.engine.model import Container
from agent.engine.stopped import find_stopped, is_stop_signal


def _container(
    status: str, exit_code: int = 0, policy: str = "no", restarts: int = 0, *, oom: bool = False, error: str = ""
) -> Container:
    name, _, retries = policy.partition(":")
    return Container.of(
        {
            "Id": "1",
            "Name": "/web",
            "Image": "sha256:1",
            "Config": {"Image": "web"},
            "HostConfig": {
                "NetworkMode": "host",
                "RestartPolicy": {"Name": name, "MaximumRetryCount": int(retries or 0)},
            },
            "RestartCount": restarts,
            "State": {
                "Status": status,
                "Running": status in ("running", "paused", "restarting"),
                "Restarting": status == "restarting",
                "ExitCode": exit_code,
                "OOMKilled": oom,
                "Error": error,
                "StartedAt": "2026-05-01T12:00:00Z",
                "Pid": 0,
            },
        }
    )


@pytest.mark.parametrize(
    "container",
    [
        _container("exited", 0),
        _container("exited", 143),
        _container("exited", 137),
        _container("exited", 130),
        _container("exited", 1, "always"),
        _container("exited", 1, "unless-stopped"),
        _container("exited", 137, "always", 7),
        _container("exited", 1, "on-failure"),
        _container("exited", 1, "on-failure:3", 1),
        _container("exited", 143, "on-failure:3", 3),
        _container("paused"),
        _container("created"),
    ],
    ids=repr,
)
def test_stopped_by_an_operator(container: Container) -> None:
    """docker stop, with or without its SIGKILL; docker pause; docker create. Docker would have restarted others."""
    stopped = find_stopped("web", container)

    assert stopped is not None
    assert stopped.by_hand
    assert stopped.start in ("docker start web", "docker unpause web")
    assert stopped.start in str(stopped)


@pytest.mark.parametrize(
    "container",
    [
        _container("exited", 1),
        _container("exited", 139),
        _container("exited", 255),
        _container("exited", 137, oom=True),
        _container("exited", 137, "always", oom=True),
        _container("exited", 1, "on-failure:3", 3),
        _container("exited", 128, "always", error="port is already allocated"),
        _container("created", 127, error="exec: no such file"),
        _container("dead", 1),
    ],
    ids=repr,
)
def test_crashed(container: Container) -> None:
    """An error status that nothing restarts, retries that are used up, no memory, a failed start."""
    stopped = find_stopped("web", container)

    assert stopped is not None
    assert not stopped.by_hand


@pytest.mark.parametrize("status", ["running", "restarting", "removing"])
def test_not_stopped(status: str) -> None:
    """One that runs, that Docker restarts, or that is on its way out."""
    assert find_stopped("web", _container(status, 1, "always", 9)) is None


def test_a_missing_container_was_not_stopped_by_hand() -> None:
    stopped = find_stopped("web", None)

    assert stopped is not None
    assert not stopped.by_hand
    assert "docker start" not in str(stopped)


@pytest.mark.parametrize(
    ("number", "configured", "expected"),
    [
        (15, None, True),
        (9, None, True),
        (2, None, True),
        (3, None, True),
        (1, None, False),
        (10, "SIGTERM", False),
        (3, "SIGQUIT", True),
        (3, "quit", True),
        (3, "3", True),
        (15, "SIGQUIT", True),
        (1, "SIGQUIT", False),
        (37, "SIGRTMIN+3", True),
        (37, "RTMIN+4", False),
        (63, "RTMAX-1", True),
        (1, "no signal", False),
    ],
)
def test_only_a_signal_to_end_is_a_stop(number: int, configured: str | None, *, expected: bool) -> None:
    assert is_stop_signal(str(number), configured) is expected
