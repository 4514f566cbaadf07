"""What a real engine's containers tell: who cannot be replaced, health, logs, connections."""

import socket
from contextlib import suppress

import pytest
from docker.errors import APIError

from agent.clock import SystemClock
from agent.engine.client import Engine
from agent.engine.stopped import find_stopped
from agent.errors import Conflict, NotFound
from tests.lab.ground import wait_until
from tests.real.engine_fixture import BUSYBOX, POLITE, SLEEP, DockerHost
from tests.support.kinds import raises_kind


def test_what_cannot_be_recreated_is_refused_with_a_remedy(docker: DockerHost, image: str) -> None:
    image_id = docker.image(image)["Id"]
    base = docker.run("base", image)
    docker.run("removed", image, host_config={"auto_remove": True})
    docker.run("bare", image_id)
    docker.run("lender", image, volumes=["/shared"])
    docker.run("borrower", image, host_config={"volumes_from": ["lender"]})
    docker.api.remove_container("lender", force=True)
    docker.run("guest", image, host_config={"network_mode": f"container:{base}"})

    for name, kind in (
        ("removed", "not-recreatable"),
        ("bare", "not-recreatable"),
        ("guest", "not-recreatable"),
        ("borrower", "not-startable"),
        ("base", "containers-depend-on-it"),
    ):
        with raises_kind(Conflict, kind):
            docker.engine.check_recreatable(name)
        with raises_kind(Conflict, kind):
            docker.replace(name, image, "sha256:" + "0" * 64, 0)

    with raises_kind(NotFound, "not-found"):
        docker.engine.check_recreatable("absent")
    assert docker.names() == {"base", "removed", "bare", "guest", "borrower"}


def test_a_container_whose_image_is_gone_is_refused(docker: DockerHost, image: str) -> None:
    docker.run("app", image)
    docker.api.stop("app")
    docker.api.remove_image(docker.image(image)["Id"], force=True)

    with raises_kind(Conflict, "old-image-missing"):
        docker.engine.check_recreatable("app")


def test_a_container_is_found_by_its_name_and_not_by_its_id(docker: DockerHost, image: str) -> None:
    app = docker.run("app", image)

    assert docker.engine.find("app") is not None
    assert docker.engine.find(app) is None
    assert docker.engine.find(app[:8]) is None


def test_a_container_has_its_health_and_policy(docker: DockerHost, image: str) -> None:
    check = {"test": ["CMD", BUSYBOX, "echo", "all\nis well"], "interval": 10**8}
    docker.run("app", image, healthcheck=check, host_config={"restart_policy": {"Name": "unless-stopped"}})
    docker.run("dead", image, [BUSYBOX, "sh", "-c", "echo last words; exit 7"])

    wait_until(lambda: docker.engine.container("app").health == "healthy", 10, "healthy")
    wait_until(lambda: not docker.engine.container("dead").is_running, 10, "dead")
    app, dead = docker.engine.container("app"), docker.engine.container("dead")

    assert (app.restart_policy, app.network_mode, app.stop_timeout) == ("unless-stopped", "host", None)
    assert (app.health_output, dead.health_output) == ("all is well", "")
    assert (dead.exit_code, dead.health, dead.pid) == (7, None, 0)
    assert docker.engine.log_tail("dead") == "last words"
    assert docker.engine.log_tail("absent") == ""


def test_connections_under_host_networking_are_counted_by_local_address(docker: DockerHost, image: str) -> None:
    first, second = (docker.repository.replace(".1:5000/app", f".{last}") for last in (2, 3))
    docker.run("app", image, [BUSYBOX, "httpd", "-f", "-p", f"{first}:8080"])
    app = docker.engine.container("app")
    clients: list[socket.socket] = []

    def connects() -> bool:
        with suppress(ConnectionRefusedError):
            clients.append(socket.create_connection((first, 8080)))
        return bool(clients)

    wait_until(connects, 5, "the service listens")
    try:
        assert docker.engine.connections(app, 8080, first) == 1
        assert docker.engine.connections(app, 8080) >= 1
        assert docker.engine.connections(app, 8080, second) == 0
        assert docker.engine.connections(app, 8081, first) == 0
    finally:
        clients[0].close()


def test_connections_in_a_separate_network_namespace_are_counted_there(docker: DockerHost, image: str) -> None:
    docker.add_network("front", 0)
    docker.run("app", image, host_config={"network_mode": "front"})
    # Its loopback counts as well as any interface, and needs no route from here.
    docker.executed("app", "sh", "-c", f"{BUSYBOX} nc -ll -p 80 -e {BUSYBOX} cat >/dev/null 2>&1 & {BUSYBOX} sleep 0.3")
    docker.executed(
        "app", "sh", "-c", f"({BUSYBOX} sleep 60 | {BUSYBOX} nc 127.0.0.1 80) >/dev/null 2>&1 & {BUSYBOX} sleep 0.3"
    )
    engine = Engine(docker.server.url, docker.environment, SystemClock(), docker.proc)
    try:
        app = engine.container("app")

        assert engine.connections(app, 80) == 1
        assert engine.connections(app, 81) == 0
        docker.api.stop("app", timeout=0)
        assert engine.connections(app, 80) == 0
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("command", "options", "stop"),
    [
        (POLITE, {}, "stop"),  # it handles SIGTERM and exits 0
        (SLEEP, {}, "stop"),  # it ignores SIGTERM, and is killed: 137
        (POLITE, {"restart_policy": {"Name": "always"}}, "stop"),
        (SLEEP, {"restart_policy": {"Name": "on-failure", "MaximumRetryCount": 3}}, "stop"),
        (SLEEP, {}, "pause"),
    ],
)
def test_a_container_that_an_operator_stopped(
    docker: DockerHost, image: str, command: tuple[str, ...], options: dict[str, object], stop: str
) -> None:
    """By docker stop, whatever the program makes of its signal, or by docker pause."""
    docker.run("app", image, command, host_config=options)
    assert find_stopped("app", docker.engine.find("app")) is None

    if stop == "pause":
        docker.api.pause("app")
    else:
        docker.api.stop("app", timeout=1)

    stopped = find_stopped("app", docker.engine.find("app"))
    assert stopped is not None
    assert stopped.by_hand
    if stop == "pause":
        docker.api.unpause("app")


@pytest.mark.parametrize("request_", ["stop", "kill"])
@pytest.mark.parametrize("command", [POLITE, SLEEP])
def test_a_stop_differs_from_an_exit(docker: DockerHost, image: str, command: tuple[str, ...], request_: str) -> None:
    """Whatever the program makes of its signal; also when the container was started again, for the run that ended."""
    docker.run("app", image, command)
    started = docker.engine.container("app").started_at
    assert not docker.engine.stop_was_requested("app", started)

    if request_ == "stop":
        docker.api.stop("app", timeout=1)
    else:
        docker.api.kill("app")
    wait_until(lambda: docker.inspect("app")["State"]["Status"] == "exited", 30, "it has ended")
    assert docker.engine.stop_was_requested("app", started)

    docker.api.start("app")
    assert docker.engine.stop_was_requested("app", started)
    assert not docker.engine.stop_was_requested("app", docker.engine.container("app").started_at)


@pytest.mark.parametrize(("stop_signal", "was_requested"), [(None, False), ("SIGHUP", True)])
def test_a_signal_that_rotates_logs_requests_no_stop(
    docker: DockerHost, image: str, stop_signal: str | None, *, was_requested: bool
) -> None:
    """The program ends by itself afterwards."""
    command = (BUSYBOX, "sh", "-c", f"trap 'kill $!' HUP; {BUSYBOX} sleep 3600 & echo ready; wait $!; exit 1")
    docker.run("app", image, command, stop_signal=stop_signal)
    wait_until(lambda: b"ready" in docker.api.logs("app"), 30, "it has set its trap")

    docker.api.kill("app", "HUP")

    wait_until(lambda: docker.inspect("app")["State"]["Status"] == "exited", 30, "it has ended")
    assert docker.engine.stop_was_requested("app", docker.engine.container("app").started_at) is was_requested


@pytest.mark.parametrize("status", [0, 1, 137, 143])
def test_a_program_that_ends_by_itself_was_not_requested_to(docker: DockerHost, image: str, status: int) -> None:
    docker.run("app", image, (BUSYBOX, "sh", "-c", f"exit {status}"))
    wait_until(lambda: docker.inspect("app")["State"]["Status"] == "exited", 30, "it has ended")

    assert not docker.engine.stop_was_requested("app", docker.engine.container("app").started_at)


@pytest.mark.parametrize(
    "options",
    [{}, {"restart_policy": {"Name": "on-failure", "MaximumRetryCount": 1}}],
    ids=["no restarts", "restarts used up"],
)
def test_a_container_that_crashed_was_not_stopped(docker: DockerHost, image: str, options: dict[str, object]) -> None:
    """It exits with 1 by itself, until nothing starts it any more."""
    docker.run("app", image, (BUSYBOX, "sh", "-c", "exit 1"), host_config=options)
    wait_until(lambda: docker.inspect("app")["State"]["Status"] == "exited", 30, "it is given up")

    stopped = find_stopped("app", docker.engine.find("app"))
    assert stopped is not None
    assert not stopped.by_hand


def test_a_container_in_a_crash_loop_is_docker_s_to_restart(docker: DockerHost, image: str) -> None:
    """At no moment does it look as if a person had stopped it."""
    always = {"restart_policy": {"Name": "always"}}
    docker.run("app", image, (BUSYBOX, "sh", "-c", "exit 1"), host_config=always)
    seen = []

    def has_restarted_thrice() -> bool:
        seen.append(find_stopped("app", docker.engine.find("app")))
        return bool(docker.inspect("app")["RestartCount"] >= 3)

    wait_until(has_restarted_thrice, 30, "it has crashed three times")

    assert not any(stopped is not None and stopped.by_hand for stopped in seen)


def test_a_container_that_cannot_start_was_not_stopped(docker: DockerHost, image: str) -> None:
    with pytest.raises(APIError):
        docker.run("app", image, ("/nowhere",))

    stopped = find_stopped("app", docker.engine.find("app"))
    assert stopped is not None
    assert not stopped.by_hand
    assert "could not be started" in stopped.what
